package audit

import (
	"cmp"
	"slices"
)

// settle looks at every input offset once all is read: what is owed by now, and where it is not.
func (r *run) settle() {
	for _, p := range r.sorted() {
		anyLost := p.hasLost()
		for i := range p.cells {
			offset, c := p.base+int64(i), &p.cells[i]
			if offset < p.from || !c.has(inInput) || anyLost && p.lost(offset) {
				continue
			}
			r.settleCell(p, c, offset)
		}
		r.settleLater(p)
		r.settlePositions(p)
		r.ledgerCounts(p)
	}
}

func (r *run) settleCell(p *partition, c *cell, offset int64) {
	sink := DeadLetters
	if c.clickExpected() {
		sink = Rows
	}
	if c.rows == 0 && c.dead == 0 {
		r.found(Missing, sink, p.id, offset, nil, "read by the pipeline (the stored offset is %d), but neither a row nor a dead letter is there", p.stored)
	}
	if c.outbox == 0 && (offset >= p.published() || !c.has(pruned)) {
		r.found(Missing, Outbox, p.id, offset, nil, "no outbox message")
	}
	if o, gone := r.missing(p, c, offset); gone {
		switch {
		case o.expired(p, c, offset):
			p.stat.OutOfReach++
		case o.hidden(c):
			r.found(Undecided, o.sink, p.id, offset, nil, "not in %s, though the group offset is %d; an open transaction may still hide it: audit again when it is over", o.topic, p.group)
		default:
			r.found(Missing, o.sink, p.id, offset, nil, "not in %s, though the group offset is %d", o.topic, p.group)
		}
	}
	if sink == Rows && c.dlq > 0 {
		r.found(Unexplained, DLQ, p.id, offset, nil, "a record in %s, but nothing made this click a dead letter", r.opts.DLQ)
	}
	if sink == DeadLetters && c.events > 0 {
		r.found(Unexplained, Events, p.id, offset, nil, "an event in %s, but the record is a dead letter", r.opts.Output)
	}
	if offset >= p.published() && c.events == 0 && c.dlq == 0 {
		p.stat.Owed++
	}
}

// settleLater judges the events that the snapshot had not captured: the stored offset read at the end must cover each, once.
func (r *run) settleLater(p *partition) {
	slices.SortFunc(p.beyond, func(a, b beyond) int {
		return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(a.at.Topic, b.at.Topic), cmp.Compare(a.at.Partition, b.at.Partition), cmp.Compare(a.at.Offset, b.at.Offset))
	})
	for i, b := range p.beyond {
		sink := r.outputs[b.at.Topic].sink
		switch {
		case b.source >= p.storedAgain:
			r.found(Unexplained, sink, p.id, b.source, &b.at, "%s: source offset %d is not captured; the stored offset was %d, and is %d after reading", b.at, b.source, p.stored, p.storedAgain)
		case i > 0 && p.beyond[i-1].source == b.source:
			r.found(Duplicate, sink, p.id, b.source, &b.at, "%s: published once more", b.at)
		default:
			p.stat.Later++
		}
	}
	p.beyond = nil
}

func (r *run) settlePositions(p *partition) {
	if floor := max(p.floor, p.group); p.groupAgain < floor && floor > 0 {
		r.found(GroupBehind, Group, p.id, p.groupAgain, nil, "the group offset is %d (-1: none), it was at %d before: somebody reset it, or it expired", p.groupAgain, floor)
	}
	if !r.opts.Settled {
		return
	}
	owed := 0
	for offset := max(p.published(), p.from); offset < p.base+int64(len(p.cells)); offset++ {
		if p.cells[offset-p.base].has(inInput) {
			owed++
		}
	}
	if owed > 0 {
		r.found(Gap, Group, p.id, p.group, nil, "settled, but Kafka is owed what %d records in [%d,%d) became", owed, p.published(), p.stored)
	}
	if p.stat.Waiting > 0 {
		r.found(Gap, Input, p.id, p.stored, nil, "settled, but %d records from offset %d on are not captured", p.stat.Waiting, p.stored)
	}
}
