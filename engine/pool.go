package engine

import (
	"sync"
	"unsafe"

	"github.com/exactly-pipeline/exactly/outbox"
)

// Buffers that a batch needs only until it is captured or published, and records only until they are handled, go round: at full speed they
// would be most of the garbage. Not by sync.Pool: a collection empties it, and each buffer then grows anew from nothing, which is as much garbage again.
var (
	bytesRound    = round[byte]{most: 24 << 20}
	recordsRound  = round[Record]{most: 12 << 20}
	messagesRound = round[outbox.Message]{most: 8 << 20}
)

// round keeps buffers that nobody uses, the last one given back first, and no more than most bytes of them.
type round[T any] struct {
	mu   sync.Mutex
	free [][]T
	kept int // bytes
	most int
}

// largest is the share of most that one buffer may have: what large records have blown up would stay so.
const largest = 6

func (r *round[T]) get() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.free)
	if n == 0 {
		return nil
	}
	b := r.free[n-1]
	r.free[n-1] = nil
	r.free = r.free[:n-1]
	r.kept -= r.size(b)
	return b[:0]
}

func (r *round[T]) put(b []T) {
	size := r.size(b)
	if size == 0 || size > r.most/largest {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.kept+size > r.most {
		return
	}
	r.kept += size
	r.free = append(r.free, b)
}

func (r *round[T]) size(b []T) int {
	var one T
	return cap(b) * int(unsafe.Sizeof(one))
}

func getBytes() []byte { return bytesRound.get() }

func putBytes(b []byte) { bytesRound.put(b) }

func getRecords() []Record { return recordsRound.get() }

func putRecords(r []Record) {
	clear(r[:cap(r)]) // keys and values must not be kept alive
	recordsRound.put(r)
}

// getMessages has room for n.
func getMessages(n int) []outbox.Message {
	if m := messagesRound.get(); cap(m) >= n {
		return m
	}
	return make([]outbox.Message, 0, n+n/8)
}

func putMessages(m []outbox.Message) {
	clear(m[:cap(m)])
	messagesRound.put(m)
}

// captured gives back what only the capture needed.
func (b *Batch) captured() {
	for i := range b.Tables {
		putBytes(b.Tables[i])
	}
	putBytes(b.Outbox)
	b.Tables, b.Outbox, b.Counts = nil, nil, nil
}
