package engine

import "sync"

// Buffers that a batch needs only until it is captured, and records only until they are handled, go round: at full speed they would be
// most of the garbage.
var (
	bytesPool   = sync.Pool{New: func() any { return new([]byte) }}
	recordsPool = sync.Pool{New: func() any { return new([]Record) }}
)

func getBytes() []byte { return (*bytesPool.Get().(*[]byte))[:0] } //nolint:forcetypeassert // only []byte goes in

// pooledBytes is the largest buffer that goes round: what large records have blown up would stay so.
const pooledBytes = 4 << 20

func putBytes(b []byte) {
	if cap(b) > 0 && cap(b) <= pooledBytes {
		bytesPool.Put(&b)
	}
}

func getRecords() []Record { return (*recordsPool.Get().(*[]Record))[:0] } //nolint:forcetypeassert // only []Record goes in

func putRecords(r []Record) {
	if cap(r) > 0 {
		clear(r[:cap(r)]) // keys and values must not be kept alive
		recordsPool.Put(&r)
	}
}

// captured gives back what only the capture needed.
func (b *Batch) captured() {
	for i := range b.Tables {
		putBytes(b.Tables[i])
	}
	putBytes(b.Outbox)
	b.Tables, b.Outbox, b.Counts = nil, nil, nil
}
