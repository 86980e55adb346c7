package audit

import (
	"fmt"
	"slices"
	"sync"
)

// cell is all that is kept of one input offset: 48 bytes, whatever the record's size. Counts stop at 255; totals don't.
type cell struct {
	kv                              uint64 // the input's key and value
	text                            uint64 // the input's click, address as text; with decodes only
	plain                           uint64 // the input's click as a row's columns; with decodes only
	row                             uint64 // the row's columns
	msg                             uint64 // the outbox message
	target                          int16  // output partition it is owed to; -1 unknown
	rows, outbox, dead, events, dlq uint8
	flags                           uint8
}

const (
	inInput    = 1 << iota // a committed input record is there
	decodes                // and is a click
	toDLQ                  // the outbox message goes to the DLQ
	pruned                 // the outbox's time partition of that capture was dropped
	rowDiffers             // already reported: say it once
)

func (c *cell) has(flag uint8) bool { return c.flags&flag != 0 }

func inc(n *uint8) uint8 {
	if *n < 255 {
		*n++
	}
	return *n
}

// partition is one source partition. Its cells cover the offsets [base, base+len(cells)).
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
	from      int64 // what it can vouch from: retention may have taken input below
	seq       int64 // ledger_seq
	head      []byte

	base  int64
	cells []cell
	spans []span // the ledger's entries

	storedAgain, groupAgain int64
	beyond                  []beyond

	stat PartitionReport
}

// span is what the end still needs of a ledger entry.
type span struct {
	seq, from, to, records, rows, dead, events int64
	lost                                       bool // accepted as lost: nothing is owed for it
}

// beyond is an event of an offset that the snapshot had not captured.
type beyond struct {
	source int64
	at     At
}

// published is the offset below which everything must be in Kafka.
func (p *partition) published() int64 { return max(p.group, p.begin) }

func (p *partition) makeCells(end int64) {
	p.base = max(p.begin, p.logStart)
	p.from = p.base
	if end > p.base {
		p.cells = make([]cell, end-p.base)
		for i := range p.cells {
			p.cells[i].target = -1
		}
	}
}

// at is the offset's cell, or nil and why there can be none; nil and "" if retention took the input, so that nothing can be said.
func (p *partition) at(offset int64) (*cell, string) {
	switch {
	case offset < p.begin:
		return nil, fmt.Sprintf("offset %d is before %d, where this partition was started", offset, p.begin)
	case offset < p.from:
		return nil, ""
	case offset >= p.stored:
		return nil, fmt.Sprintf("offset %d is not below the stored offset %d", offset, p.stored)
	case offset >= p.base+int64(len(p.cells)):
		return nil, fmt.Sprintf("offset %d is not below the input's stable end %d", offset, p.stableEnd)
	}
	c := &p.cells[offset-p.base]
	if !c.has(inInput) {
		return nil, fmt.Sprintf("the input has no committed record at offset %d", offset)
	}
	return c, ""
}

// lost says whether the offset was given up by a person (ledger entry accept_loss).
func (p *partition) lost(offset int64) bool {
	for _, s := range p.spans {
		if s.lost && offset >= s.from && offset < s.to {
			return true
		}
	}
	return false
}

// unskip takes back what was given up from an offset on: a person went back there.
func (p *partition) unskip(to int64) {
	for i := range p.spans {
		if s := &p.spans[i]; s.lost && s.to > to {
			s.to = max(s.from, to)
		}
	}
}

func (p *partition) hasLost() bool {
	return slices.ContainsFunc(p.spans, func(s span) bool { return s.lost })
}

// clickExpected decides whether the offset is owed a row and an event or a dead letter and its record, by what most of the
// evidence says. A wrong guess would only name the wrong sink: something is missing either way.
func (c *cell) clickExpected() bool {
	switch {
	case c.rows > 0:
		return true
	case c.dead > 0:
		return false
	case c.outbox > 0:
		return !c.has(toDLQ)
	case c.events > 0 || c.dlq > 0:
		return c.events > 0
	}
	return c.has(decodes)
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
