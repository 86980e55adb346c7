package audit

import (
	"cmp"
	"context"
	"slices"
)

// doubt is a stretch to be looked at.
type doubt struct {
	p *partition
	s *stretch
}

// settle compares the sums of every stretch once all is read, and has the second pass look at those that differ.
func (r *run) settle(ctx context.Context) error {
	var doubts, digests []doubt
	for k := range r.digests.pending { // too few messages, or one too many
		if s := r.parts[k.partition].stretchAt(k.end - 1); s != nil {
			s.digest.plus(wide{1, 1})
		}
	}
	for _, p := range r.sorted() {
		for offset := range p.early { // in Kafka, and not in the outbox
			if s := p.stretchAt(offset); s != nil {
				s.suspect = true
			}
		}
		for i := range p.stretches {
			s := &p.stretches[i]
			of := r.sides(p, s)
			if s.digest != s.saysDigest && !of.noOutbox {
				digests = append(digests, doubt{p, s})
			}
			if s.from < p.from && p.from < s.to || s.suspicious(of) { // retention took some of its input while it was read
				doubts = append(doubts, doubt{p, s})
				continue
			}
			r.settleSound(p, s)
		}
		for i := range p.big {
			if b := &p.big[i]; !b.unchecked {
				r.countsDiffer(p, b.seq, b.from, b.to, b.says, b.counts)
			}
		}
		r.settleLater(p)
		r.settlePositions(p)
	}
	if err := r.checkDigests(ctx, digests); err != nil {
		return err
	}
	for len(doubts) > 0 {
		cells := int64(0)
		for len(doubts) > 0 && (cells == 0 || cells+doubts[0].s.to-doubts[0].s.from <= mostCells) {
			d := doubts[0]
			d.p.open(d.s.from, d.s.to)
			cells += d.s.to - d.s.from
			doubts = doubts[1:]
		}
		if err := r.look(ctx); err != nil {
			return err
		}
		for _, p := range r.sorted() {
			r.settleWindows(p)
			if err := r.ledgerCounts(ctx, p); err != nil {
				return err
			}
			p.wins = nil
		}
	}
	return nil
}

// settleSound counts what is owed and out of reach in a stretch that nothing is wrong with.
func (r *run) settleSound(p *partition, s *stretch) {
	switch {
	case s.lost:
	case s.to <= p.from: // counted as it came in
	case s.owed:
		p.stat.Owed += s.input - s.early
	default:
		p.stat.OutOfReach += s.input - s.events.n
	}
}

// look reads the records of the windows, in an order in which each can be held against those before.
func (r *run) look(ctx context.Context) error {
	var parts []part
	for _, p := range r.sorted() {
		for i := range p.wins {
			parts = append(parts, part{p.id, p.wins[i].from, p.wins[i].to()})
		}
	}
	newLooker := func() *looker { return &looker{r.newWorker()} }
	for _, at := range parts {
		p, w := r.parts[at.partition], newLooker()
		if p.inTopic {
			if err := r.readInput(ctx, p, max(at.from, p.from), at.to, w.input); err != nil {
				return err
			}
		}
	}
	if err := r.readRows(ctx, parts, func() func(*rowRow) error { return newLooker().row }); err != nil {
		return err
	}
	if err := r.readDeadLetters(ctx, parts, func() func(*deadRow) error { return newLooker().deadLetter }); err != nil {
		return err
	}
	if err := r.readOutbox(ctx, parts, func() func(context.Context, *outboxRow) error { return newLooker().message }); err != nil {
		return err
	}
	ends := map[*outputPart]int64{}
	for _, o := range r.outputs { // the same records again, no more
		for _, p := range o.parts {
			ends[p] = p.next
			p.rewind()
		}
	}
	return r.readEvents(ctx, func(_ *output, p *outputPart) int64 { return ends[p] }, func() eventReader { return newLooker().event })
}

func (r *run) settleWindows(p *partition) {
	for i := range p.wins {
		w := &p.wins[i]
		for j := range w.cells {
			offset, c := w.from+int64(j), &w.cells[j]
			switch {
			case p.lost(offset):
			case offset < p.from:
				r.settleBlind(p, c, offset)
			case c.has(inInput):
				r.settleCell(p, c, offset)
			}
		}
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
	r.settleEvent(p, c, offset)
}

// settleEvent judges the record's events.
func (r *run) settleEvent(p *partition, c *cell, offset int64) {
	if o, gone := r.missing(p, c, offset); gone {
		switch {
		case o.mayBeGone(int32(c.target), p.id, offset):
			p.stat.OutOfReach++
		case p.erased.has(offset): // published again it can't be: a note
			p.erasedGone++
		case p.excused(o.topic, offset, false):
			p.stat.OutOfReach++
		case o.hidden(int32(c.target)):
			r.found(Undecided, o.sink, p.id, offset, nil, "not in %s, though the group offset is %d; an open transaction may still hide it: audit again when it is over", o.topic, p.group)
		default:
			r.found(Missing, o.sink, p.id, offset, nil, "not in %s, though the group offset is %d", o.topic, p.group)
		}
	}
	sink := DeadLetters
	if c.clickExpected() {
		sink = Rows
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

// settleBlind judges an offset whose input is not looked at: what there is of it must be there once in every store that reaches so far back. What has gone
// from all of them only the ledger's counts tell.
func (r *run) settleBlind(p *partition, c *cell, offset int64) {
	stored, sent := c.rows > 0 || c.dead > 0, c.events > 0 || c.dlq > 0
	if !stored && !sent && c.outbox == 0 {
		return
	}
	sink, table := DeadLetters, p.pruned.dead
	if c.clickExpected() {
		sink, table = Rows, p.pruned.rows
	}
	dropped := c.has(pruned) || p.pruned.outbox.has(offset)
	if o, _ := r.expected(c); c.outbox == 0 && !dropped && (!stored || !sent && !o.mayBeGone(-1, p.id, offset)) && !(stored && offset >= p.published()) {
		where := sink
		if sent {
			where = o.sink
		}
		if !table.has(offset) || stored {
			r.found(Unexplained, where, p.id, offset, nil, "nothing else is there of it: it was made up, or what belongs to it was removed, and then the ledger's counts say so (the input is kept from offset %d on)", p.logStart)
		}
		return
	}
	if !stored && !table.has(offset) {
		r.found(Missing, sink, p.id, offset, nil, "neither a row nor a dead letter is there, of what the outbox or Kafka has")
	}
	if c.outbox == 0 && (offset >= p.published() || !dropped) {
		r.found(Missing, Outbox, p.id, offset, nil, "no outbox message")
	}
	r.settleEvent(p, c, offset)
}

// settleLater judges the events that the snapshot had not captured: the stored offset read at the end must cover each, once.
func (r *run) settleLater(p *partition) {
	slices.SortFunc(p.beyond, func(a, b beyond) int {
		return cmp.Or(cmp.Compare(a.source, b.source), cmp.Compare(a.sink, b.sink), cmp.Compare(a.partition, b.partition), cmp.Compare(a.at, b.at))
	})
	for i, b := range p.beyond {
		at := &At{r.opts.Output, b.partition, b.at}
		if b.sink == DLQ {
			at.Topic = r.opts.DLQ
		}
		switch {
		case b.source >= p.storedAgain:
			r.found(Unexplained, b.sink, p.id, b.source, at, "%s: source offset %d is not captured; the stored offset was %d, and is %d after reading", at, b.source, p.stored, p.storedAgain)
		case i > 0 && p.beyond[i-1].source == b.source:
			r.found(Duplicate, b.sink, p.id, b.source, at, "%s: published once more", at)
		default:
			p.stat.Later++
		}
	}
	p.beyond = nil
}

func (r *run) settlePositions(p *partition) {
	if floor := max(p.floor, p.group); p.pending && p.behind() && floor > 0 {
		r.found(Undecided, Group, p.id, p.groupAgain, nil, "the group offset was %d before a transaction that holds it now, and at %d before that: audit again when it is over", p.groupAgain, floor)
	} else if p.behind() && floor > 0 {
		r.found(GroupBehind, Group, p.id, p.groupAgain, nil, "the group offset is %d (-1: none), it was at %d before: somebody reset it, or it expired", p.groupAgain, floor)
	}
	if !r.opts.Settled {
		return
	}
	owed := int64(0)
	for i := range p.stretches {
		if s := &p.stretches[i]; s.owed {
			owed += s.input
		}
	}
	if owed > 0 {
		r.found(Gap, Group, p.id, p.group, nil, "settled, but Kafka is owed what %d records in [%d,%d) became", owed, p.published(), p.stored)
	}
	if p.stat.Waiting > 0 {
		r.found(Gap, Input, p.id, p.stored, nil, "settled, but %d records from offset %d on are not captured", p.stat.Waiting, p.stored)
	}
}
