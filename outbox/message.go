// Package outbox owns what Postgres holds for Kafka: the bytes of every event, as Kafka will be given them, keyed by where they came from.
//
// It promises that what is drained is byte for byte what was captured. It never knows clicks.
package outbox

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Header is one Kafka record header. A nil Value is a null, which is not the same as an empty one.
type Header struct {
	Key   string
	Value []byte
}

// Message is one record that Kafka is owed, exactly as it will be produced.
type Message struct {
	SourceOffset int64 // offset of the source record it came from
	Seq          int16 // 0.. within that source record
	Topic        string
	Partition    int32 // chosen at capture
	TimestampMs  int64 // ms since the Unix epoch (Kafka CreateTime)
	Key          []byte
	Value        []byte
	Headers      []Header
}

// Size is the message's approximate cost in memory and on the wire, in bytes.
func (m *Message) Size() int {
	n := len(m.Key) + len(m.Value) + 64
	for _, h := range m.Headers {
		n += len(h.Key) + len(h.Value) + 8
	}
	return n
}

// WireSize is what the message takes at most in a record batch of its own, in bytes: what max.message.bytes is compared with.
func (m *Message) WireSize() int {
	const batch, record, header = 61, 36, 10 // varints at their longest
	n := batch + record + len(m.Key) + len(m.Value)
	for i := range m.Headers {
		n += header + len(m.Headers[i].Key) + len(m.Headers[i].Value)
	}
	return n
}

// AppendHeaders appends the headers to dst in the form the outbox column holds: a varint count, then per header
// uvarint key length, key, varint value length (-1 for null), value. Order, duplicates and nulls survive.
func AppendHeaders(dst []byte, hs []Header) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(hs)))
	for _, h := range hs {
		dst = binary.AppendUvarint(dst, uint64(len(h.Key)))
		dst = append(dst, h.Key...)
		if h.Value == nil {
			dst = binary.AppendVarint(dst, -1)
			continue
		}
		dst = binary.AppendVarint(dst, int64(len(h.Value)))
		dst = append(dst, h.Value...)
	}
	return dst
}

var errHeaders = errors.New("outbox headers column is damaged")

// ParseHeaders reads what AppendHeaders wrote. It returns an error, never a guess, on anything else.
func ParseHeaders(b []byte) ([]Header, error) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)) {
		return nil, fmt.Errorf("%w: bad count", errHeaders)
	}
	b = b[k:]
	if n == 0 && len(b) == 0 {
		return nil, nil
	}
	hs := make([]Header, 0, n)
	for range n {
		l, k := binary.Uvarint(b)
		if k <= 0 || l > uint64(len(b)-k) {
			return nil, fmt.Errorf("%w: bad key length", errHeaders)
		}
		h := Header{Key: string(b[k : k+int(l)])}
		b = b[k+int(l):]
		vl, k := binary.Varint(b)
		if k <= 0 || vl < -1 || vl > int64(len(b)-k) {
			return nil, fmt.Errorf("%w: bad value length", errHeaders)
		}
		b = b[k:]
		if vl >= 0 {
			h.Value = append([]byte{}, b[:vl]...)
			b = b[vl:]
		}
		hs = append(hs, h)
	}
	if len(b) != 0 {
		return nil, fmt.Errorf("%w: %d bytes left over", errHeaders, len(b))
	}
	return hs, nil
}
