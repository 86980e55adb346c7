package confluent

/*
#include <stdlib.h>
#include "bulk.h"
*/
import "C"

import (
	"encoding/binary"
	"reflect"
	"time"
	"unsafe"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/outbox"
)

// The Go client crosses into C several times a record, and allocates as often: reading and writing took more than half of a worker's time. So
// records cross many at a time, over functions of the same library. All else is the Go client's: membership, rebalances, transactions. Where
// its insides are not as known here, records go one by one, as it has it.

// handleOf is the library's own handle of a client; nil if it is not where it was.
func handleOf(client any) unsafe.Pointer {
	h := reflect.ValueOf(client).Elem().FieldByName("handle")
	if C.bulk_there() == 0 || !h.IsValid() || h.Kind() != reflect.Struct {
		return nil
	}
	rk := h.FieldByName("rk")
	if !rk.IsValid() || rk.Kind() != reflect.Pointer {
		return nil
	}
	return rk.UnsafePointer()
}

const (
	bulkRecords = 1024      // in one call
	arenaBytes  = 256 << 10 // keys and values of many records are one allocation, which goes when all of them have gone
	arenaSpare  = 16 << 10  // less than this is not worth a call
)

// bulkReader takes records of partitions that are forwarded to it. One goroutine.
type bulkReader struct {
	rk, queue unsafe.Pointer
	poll      *C.bulk_poll // in C's memory, since it keeps pointers of C's
	records   []C.bulk_record
	arena     []byte
}

// newBulkReader returns nil where it can't be.
func newBulkReader(c *kafka.Consumer) *bulkReader {
	rk := handleOf(c)
	if rk == nil {
		return nil
	}
	return &bulkReader{
		rk: rk, queue: C.bulk_queue_new(rk), poll: (*C.bulk_poll)(C.calloc(1, C.sizeof_bulk_poll)), records: make([]C.bulk_record, bulkRecords),
	}
}

// forward has a partition's records come here. It has to be started and paused: what comes before does not.
func (b *bulkReader) forward(topic string, partition int32) bool {
	name := C.CString(topic)
	defer C.free(unsafe.Pointer(name))
	return C.bulk_forward(b.rk, b.queue, name, C.int32_t(partition)) != 0
}

// close comes before the consumer's.
func (b *bulkReader) close() {
	C.bulk_queue_free(b.queue, b.poll)
	C.free(unsafe.Pointer(b.poll))
	b.queue, b.poll = nil, nil
}

// read appends up to n records to buf, and none once it has engine.PollBytes, waiting for the first. An error is what came behind them.
func (b *bulkReader) read(buf []engine.Record, n int, wait time.Duration) ([]engine.Record, error) {
	for bytes := 0; n > 0 && bytes < engine.PollBytes; wait = 0 {
		if cap(b.arena)-len(b.arena) < arenaSpare {
			b.arena = make([]byte, 0, arenaBytes)
		}
		free := b.arena[len(b.arena):cap(b.arena)]
		most := min(n, len(b.records))
		got := int(C.bulk_read(b.queue, C.int(wait.Milliseconds()), &b.records[0], C.int(most), (*C.char)(unsafe.Pointer(unsafe.SliceData(free))), C.size_t(len(free)), b.poll))
		used := int(b.poll.used)
		b.arena = b.arena[:len(b.arena)+used]
		buf = b.append(buf, b.records[:got], free[:used])
		n, bytes = n-got, bytes+used
		if b.poll.code != 0 {
			return buf, kafka.NewError(kafka.ErrorCode(b.poll.code), C.GoString(&b.poll.text[0]), b.poll.fatal != 0)
		}
		if need := int(b.poll.need); need > 0 {
			b.arena = make([]byte, 0, max(arenaBytes, need))
			continue
		}
		if got < most {
			break
		}
	}
	return buf, nil
}

// append makes records of what lies in data. It stays there: nothing is copied.
func (b *bulkReader) append(buf []engine.Record, records []C.bulk_record, data []byte) []engine.Record {
	for i := range records {
		c := &records[i]
		d := data[:c.size:c.size]
		data = data[c.size:]
		r := engine.Record{Partition: int32(c.partition), Offset: int64(c.offset), LeaderEpoch: int32(c.epoch), TimestampMs: max(int64(c.timestamp), 0)}
		if c.epoch < 0 {
			r.LeaderEpoch = -1
		}
		r.Key, d = cut(d, int32(c.key))
		r.Value, d = cut(d, int32(c.value))
		if c.headers > 0 {
			r.Headers = make([]outbox.Header, c.headers)
			for j := range r.Headers {
				name, value := int32(binary.NativeEndian.Uint32(d)), int32(binary.NativeEndian.Uint32(d[4:]))
				var key []byte
				key, d = cut(d[8:], name)
				r.Headers[j].Key = unsafe.String(unsafe.SliceData(key), len(key))
				r.Headers[j].Value, d = cut(d, value)
			}
		}
		buf = append(buf, r)
	}
	return buf
}

// cut takes n bytes off; nil for -1.
func cut(b []byte, n int32) (first, rest []byte) {
	if n < 0 {
		return nil, b
	}
	return b[:n:n], b[n:]
}
