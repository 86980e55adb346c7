package heal

import (
	"fmt"

	"github.com/exactly-pipeline/exactly/outbox"
)

// place is where an event is, in one word: whether it is in the DLQ, its partition, its offset and 1. 0 is nowhere.
type place uint64

const (
	offsetBits    = 48
	partitionBits = 15
	inDLQ         = place(1) << 63
)

func placed(dlq bool, partition int32, offset int64) place {
	p := place(partition)<<offsetBits | place(offset+1)
	if dlq {
		p |= inDLQ
	}
	return p
}

func (p place) dlq() bool        { return p&inDLQ != 0 }
func (p place) partition() int32 { return int32(p >> offsetBits & (1<<partitionBits - 1)) }
func (p place) offset() int64    { return int64(p&(1<<offsetBits-1)) - 1 }

// index says where the event of each record of one source partition is: 8 bytes a source offset, however large the events are.
type index struct {
	base int64 // source offset of at[0]
	open bool  // base is only where it happens to begin: what is below it is wanted too
	at   []place
}

// add notes the event of a source offset. false: there is one already, elsewhere.
func (x *index) add(offset int64, p place) bool {
	if x.open && (len(x.at) == 0 || offset < x.base) {
		if len(x.at) == 0 {
			x.base = offset
		} else { // half as many again, so that a log read backwards would not be copied once an event
			grow := max(x.base-offset, min(int64(len(x.at)/2), x.base))
			x.at = append(make([]place, grow, grow+int64(len(x.at))), x.at...)
			x.base -= grow
		}
	}
	i := offset - x.base
	if i < 0 {
		return true // not lost
	}
	for int64(len(x.at)) <= i {
		x.at = append(x.at, 0)
	}
	if x.at[i] != 0 {
		return x.at[i] == p
	}
	x.at[i] = p
	return true
}

// get is where the event of a source offset is, 0 if nowhere.
func (x *index) get(offset int64) place {
	if i := offset - x.base; i >= 0 && i < int64(len(x.at)) {
		return x.at[i]
	}
	return 0
}

// end is the offset behind the last event.
func (x *index) end() int64 {
	for i := len(x.at) - 1; i >= 0; i-- {
		if x.at[i] != 0 {
			return x.base + int64(i) + 1
		}
	}
	return 0
}

// first is the offset of the first event.
func (x *index) first() (int64, bool) {
	for i, p := range x.at {
		if p != 0 {
			return x.base + int64(i), true
		}
	}
	return 0, false
}

func where(topic string, partition int32, offset int64) string {
	return fmt.Sprintf("%s/%d@%d", topic, partition, offset)
}

// window is the messages of one source partition's records [from, to).
type window struct {
	from, to int64
	messages []outbox.Message // by source offset; Topic is empty where there is none
}
