package audit

import (
	"fmt"
	"slices"
	"sync"
)

// partition is one source partition.
type partition struct {
	mu sync.Mutex

	id        int32
	inTopic   bool
	logStart  int64 // the input log's first offset
	stableEnd int64 // the input's stable end, read after stored
	group     int64 // committed group offset; -1 none
	stored    int64 // next_offset
	floor     int64 // published_at_least
	begin     int64 // where the ledger says it was started
	from      int64 // below it the input is not looked at: retention has taken it, or rows made of it were pruned
	lo, hi    int64 // what is laid out: asked for, captured, and in the input when the audit began
	seq       int64 // ledger_seq
	head      []byte

	stretches  []stretch
	big        []bigEntry
	healed     []int64        // entries of heals that stand for captures
	miscounted map[int64]bool // entries whose counts were found wrong
	dead       bitmap         // offsets that have a dead letter
	erased     bitmap         // offsets whose data was blanked, by an entry of the ledger

	pruned   takenOut // what was dropped on purpose
	coarseTo int64    // entries that end at it or below are laid out without their ends: their outbox messages are said to be pruned

	short      []shortfall // what heals could not bring back
	erasedGone int64       // events that are missing, of what was erased

	early map[int64]uint64 // events that were owed by the group offset and are there: by source offset, the message's hash
	wins  []window         // what the present second pass looks at, one by one

	storedAgain, groupAgain int64
	pending                 bool // a transaction still held the group offset then
	beyond                  []beyond

	stat PartitionReport
}

// beyond is an event of an offset that the snapshot had not captured.
type beyond struct {
	source, at int64
	partition  int32
	sink       Sink
}

// most of what is kept beside the sums, over all partitions
const (
	mostBeyond = 1_000_000
	mostEarly  = 1_000_000
	mostCells  = 1_000_000 // of one second pass: 48 MB
)

// published is the offset below which everything must be in Kafka.
func (p *partition) published() int64 { return max(p.group, p.begin) }

// prunedRows is the offset below which rows or dead letters were dropped on purpose.
func (p *partition) prunedRows() int64 { return max(p.pruned.rows.end(), p.pruned.dead.end()) }

// vouched is the offset from which on everything is held against the input.
func (p *partition) vouched() int64 { return max(p.lo, min(p.from, p.hi)) }

// reach says why a record of the offset can't be; "" if it can. The second result: the input is not looked at there; what is left is held
// against each other. What is in reach may still not be laid out: it was not asked for.
func (p *partition) reach(offset int64) (why string, gone bool) {
	switch {
	case offset < p.begin:
		return fmt.Sprintf("offset %d is before %d, where this partition was started", offset, p.begin), false
	case offset < p.from:
		return "", true
	case offset >= p.stored:
		return fmt.Sprintf("offset %d is not below the stored offset %d", offset, p.stored), false
	case offset >= p.stableEnd:
		return fmt.Sprintf("offset %d is not below the input's stable end %d", offset, p.stableEnd), false
	}
	return "", false
}

// bitmap is a set of offsets, a bit each where there are any.
type bitmap map[int64]*[1 << 10]uint64

func (b bitmap) set(offset int64) {
	c := b[offset>>16]
	if c == nil {
		c = new([1 << 10]uint64)
		b[offset>>16] = c
	}
	c[offset>>6&1023] |= 1 << (offset & 63)
}

func (b bitmap) has(offset int64) bool {
	c := b[offset>>16]
	return c != nil && c[offset>>6&1023]&(1<<(offset&63)) != 0
}

// sorted is the partitions in order.
func (r *run) sorted() []*partition {
	ps := make([]*partition, 0, len(r.parts))
	for _, p := range r.parts {
		ps = append(ps, p)
	}
	slices.SortFunc(ps, func(a, b *partition) int { return int(a.id - b.id) })
	return ps
}
