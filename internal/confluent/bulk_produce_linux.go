package confluent

/*
#include <stdlib.h>
#include "bulk.h"
*/
import "C"

import (
	"encoding/binary"
	"unsafe"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/exactly-pipeline/exactly/outbox"
)

// bulkBytes is from how many bytes on what was collected is handed over.
const bulkBytes = 256 << 10

// bulkTopics is how many topics one producer writes to, at most: events, dead letters, heads.
const bulkTopics = 64

// bulkWriter collects messages and hands them over many at a time. One goroutine.
type bulkWriter struct {
	rk      unsafe.Pointer
	topics  *[bulkTopics]unsafe.Pointer // in C's memory
	known   map[string]int32
	records []C.bulk_record
	buf     []byte
}

// newBulkWriter returns nil where it can't be.
func newBulkWriter(p *kafka.Producer) *bulkWriter {
	rk := handleOf(p)
	if rk == nil {
		return nil
	}
	topics := (*[bulkTopics]unsafe.Pointer)(C.calloc(bulkTopics, C.size_t(unsafe.Sizeof(unsafe.Pointer(nil)))))
	return &bulkWriter{rk: rk, topics: topics, known: map[string]int32{}, records: make([]C.bulk_record, 0, bulkRecords)}
}

// close comes before the producer's.
func (w *bulkWriter) close() {
	for _, i := range w.known {
		C.bulk_topic_free(w.topics[i])
	}
	C.free(unsafe.Pointer(w.topics))
	w.topics, w.known = nil, nil
}

// forget leaves out what was not handed over.
func (w *bulkWriter) forget() { w.records, w.buf = w.records[:0], w.buf[:0] }

// add collects a message and says whether it is time to hand over. false, false: it can't, for there are too many topics.
func (w *bulkWriter) add(m *outbox.Message) (full, ok bool) {
	topic, ok := w.known[m.Topic]
	if !ok {
		if len(w.known) == bulkTopics {
			return false, false
		}
		topic = int32(len(w.known))
		name := C.CString(m.Topic)
		w.topics[topic] = C.bulk_topic(w.rk, name)
		C.free(unsafe.Pointer(name))
		if w.topics[topic] == nil {
			return false, false
		}
		w.known[m.Topic] = topic
	}
	at := len(w.buf)
	w.buf = append(append(w.buf, m.Key...), m.Value...)
	for i := range m.Headers {
		h := &m.Headers[i]
		w.buf = binary.NativeEndian.AppendUint32(w.buf, uint32(len(h.Key)))
		w.buf = binary.NativeEndian.AppendUint32(w.buf, uint32(length(h.Value)))
		w.buf = append(append(w.buf, h.Key...), h.Value...)
	}
	w.records = append(w.records, C.bulk_record{
		timestamp: C.int64_t(m.TimestampMs), partition: C.int32_t(m.Partition), epoch: C.int32_t(topic), key: C.int32_t(length(m.Key)),
		value: C.int32_t(length(m.Value)), headers: C.int32_t(len(m.Headers)), size: C.int32_t(len(w.buf) - at),
	})
	return len(w.buf) >= bulkBytes || len(w.records) == bulkRecords, true
}

// length is -1 for null.
func length(b []byte) int32 {
	if b == nil {
		return -1
	}
	return int32(len(b))
}

// hand hands over what was collected. wait is called while the library's queue is full, and says whether to go on.
func (w *bulkWriter) hand(wait func() bool) error {
	defer w.forget()
	for at, n := 0, len(w.records); at < n; {
		var code C.int32_t
		at = int(C.bulk_produce(w.rk, unsafe.Pointer(w.topics), &w.records[0], C.int(at), C.int(n), (*C.char)(unsafe.Pointer(unsafe.SliceData(w.buf))), &code))
		if code == 0 {
			return nil
		}
		if kafka.ErrorCode(code) != kafka.ErrQueueFull || !wait() {
			return kafka.NewError(kafka.ErrorCode(code), "", kafka.ErrorCode(code) == kafka.ErrFatal)
		}
	}
	return nil
}
