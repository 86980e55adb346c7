package audit

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/outbox"
)

// looker is the second pass: it looks at the records of the windows one by one. What is of no window the first pass has dealt with.
type looker struct{ *worker }

func (w *looker) input(ctx context.Context, p *partition, rec *kgo.Record) error {
	for i := range p.wins {
		win := &p.wins[i]
		if rec.Offset < win.from || rec.Offset >= win.to() {
			continue
		}
		c := &win.cells[rec.Offset-win.from]
		c.flags |= inInput
		c.kv = w.of(p, rec.Offset, w.keyValue(rec.Offset, rec.Key, rec.Value)).sum()
		good, err := w.isClick(ctx, rec)
		if err != nil || !good {
			return err
		}
		c.flags |= decodes
		c.text = w.of(p, rec.Offset, w.click(rec.Offset, &w.in)).sum()
		c.plain = w.of(p, rec.Offset, w.plainRow(rec.Offset, w.asRow(&w.in, "", ""))).sum()
	}
	return nil
}

// claim finds the cell that a Postgres row of the coordinate belongs to and locks its partition; the caller unlocks it. nil: it
// was dealt with.
func (w *looker) claim(sink Sink, source int16, n int32, offset int64) (*partition, *cell) {
	p := w.parts[n]
	if source != w.source || p == nil {
		return nil, nil
	}
	p.mu.Lock()
	c, why := p.at(offset)
	if c == nil {
		p.mu.Unlock()
		if why != "" {
			w.found(Unexplained, sink, n, offset, nil, "%s: %s", sink, why)
		}
		return nil, nil
	}
	return p, c
}

// row holds a row against its input, and keeps its hash for the event.
func (w *looker) row(v *rowRow) error {
	p, c := w.claim(Rows, v.source, v.partition, v.offset)
	if c == nil {
		return nil
	}
	defer p.mu.Unlock()
	if v.dropped {
		c.flags |= pruned
	}
	if inc(&c.rows) > 1 {
		w.found(Duplicate, Rows, v.partition, v.offset, nil, "more than one row in enriched_clicks")
	}
	plain := w.of(p, v.offset, w.plainRow(v.offset, &v.fields)).sum()
	c.row = w.of(p, v.offset, w.andGeo(&v.fields)).sum()
	switch {
	case p.erased.has(v.offset) && !v.fields.isBlank():
		w.found(Different, Rows, v.partition, v.offset, nil, "erased by the ledger, but the row is not blank")
	case v.offset < p.from: // no input to hold it against
	case c.has(decodes) && c.plain != plain:
		c.flags |= rowDiffers
		w.found(Different, Rows, v.partition, v.offset, nil, "the row is not the click of the input")
	case !c.has(decodes):
		c.flags |= rowDiffers
		w.found(Different, Rows, v.partition, v.offset, nil, "a row, but the input is no click that can be decoded")
	}
	return nil
}

// deadLetter holds a dead letter against its input.
func (w *looker) deadLetter(v *deadRow) error {
	p, c := w.claim(DeadLetters, v.source, v.partition, v.offset)
	if c == nil {
		return nil
	}
	defer p.mu.Unlock()
	if v.dropped {
		c.flags |= pruned
	}
	if inc(&c.dead) > 1 {
		w.found(Duplicate, DeadLetters, v.partition, v.offset, nil, "more than one row in dead_letters")
	}
	if c.rows > 0 {
		w.found(Duplicate, DeadLetters, v.partition, v.offset, nil, "both a row and a dead letter")
	}
	if p.erased.has(v.offset) && (v.key != nil || v.value != nil) {
		w.found(Different, DeadLetters, v.partition, v.offset, nil, "erased by the ledger, but the dead letter is not blank")
	}
	kv := w.of(p, v.offset, w.keyValue(v.offset, v.key, v.value)).sum()
	if v.offset < p.from {
		c.kv = kv
	}
	if c.rows == 0 {
		c.row = w.of(p, v.offset, w.letter(v.offset, v.failure)).sum()
	}
	if kv != c.kv {
		w.found(Different, DeadLetters, v.partition, v.offset, nil, "the dead letter's key and value are not the input's")
	}
	return nil
}

// message keeps an outbox message's hash for its record. What is still owed has no record yet: its bytes are held against the input
// and the row, for they are what Kafka will be given.
func (w *looker) message(ctx context.Context, v *outboxRow) error {
	n, m := v.partition, &v.Message
	p, c := w.claim(Outbox, v.source, n, m.SourceOffset)
	if c == nil {
		return nil
	}
	defer p.mu.Unlock()
	if inc(&c.outbox) > 1 || m.Seq != 0 { // a click makes one message
		w.found(Duplicate, Outbox, n, m.SourceOffset, nil, "more than one outbox message (seq %d)", m.Seq)
	}
	if c.outbox > 1 {
		return nil
	}
	c.msg = w.of(p, m.SourceOffset, w.scratch.message(m.SourceOffset, m)).sum()
	if m.Partition >= 0 && m.Partition < 1<<15 {
		c.target = int16(m.Partition)
	}
	if erased := p.erased.has(m.SourceOffset); erased || v.erased {
		switch {
		case !erased:
			w.found(Different, Outbox, n, m.SourceOffset, nil, "the outbox message is blank, but no entry of the ledger erased it")
		case !v.isBlank():
			w.found(Different, Outbox, n, m.SourceOffset, nil, "erased by the ledger, but the outbox message is not blank")
		}
		if m.Topic == w.opts.DLQ {
			c.flags |= toDLQ
		}
		return nil
	}
	if v.damaged {
		w.found(Different, Outbox, n, m.SourceOffset, nil, "the outbox message's headers can't be read")
		return nil
	}
	if src, why := sourceOf(w.opts.Input, m.Headers); why != "" || src != (source{n, m.SourceOffset}) {
		w.found(Different, Outbox, n, m.SourceOffset, nil, "the outbox message's exactly-source is not its coordinate")
		return nil
	}
	switch m.Topic {
	case w.opts.DLQ:
		c.flags |= toDLQ
		alone := m.SourceOffset >= p.published() || w.outputs[m.Topic].mayBeGone(m.Partition, n, m.SourceOffset)
		letter := c.dead > 0 && c.rows == 0
		if letter && (alone || m.SourceOffset >= p.from) && w.keyValue(m.SourceOffset, m.Key, m.Value).sum() != c.kv {
			w.found(Different, Outbox, n, m.SourceOffset, nil, "the outbox message's key and value are not the %s", w.original(p, m.SourceOffset))
		} else if letter && alone && w.letter(m.SourceOffset, failureOf(m.Headers)).sum() != c.row {
			w.found(Different, Outbox, n, m.SourceOffset, nil, "the outbox message's headers do not say what the dead letter does")
		}
		if c.rows > 0 {
			w.found(Different, Outbox, n, m.SourceOffset, nil, "a row, but its outbox message goes to %s", m.Topic)
		}
	case w.opts.Output:
		if c.dead > 0 && c.rows == 0 {
			w.found(Different, Outbox, n, m.SourceOffset, nil, "a dead letter, but its outbox message goes to %s", m.Topic)
		} else if m.SourceOffset >= p.published() || w.outputs[m.Topic].mayBeGone(m.Partition, n, m.SourceOffset) {
			return w.owed(ctx, c, n, m)
		}
	default:
		w.found(Unexplained, Outbox, n, m.SourceOffset, nil, "an outbox message for topic %s, which is no output of this source", m.Topic)
	}
	return nil
}

// original names what a dead letter is held against.
func (w *looker) original(p *partition, offset int64) string {
	if offset < p.from {
		return "dead letter's"
	}
	return "input's"
}

// owed judges an event that Kafka has not been given yet, or has no more.
func (w *looker) owed(ctx context.Context, c *cell, n int32, m *outbox.Message) error {
	good, err := w.isEnriched(ctx, m.Value, func() string { return fmt.Sprintf("the outbox message of %s/%d@%d", w.opts.Input, n, m.SourceOffset) })
	if err != nil {
		return err
	}
	if !good {
		w.found(Undecodable, Outbox, n, m.SourceOffset, nil, "the outbox message is no enriched click that can be decoded")
		return nil
	}
	w.plainRow(m.SourceOffset, w.asRow(&w.ev.Click, w.ev.Country, header(m.Headers, geoHeader)))
	full := w.andGeo(&w.fields).sum()
	if c.rows > 0 && !c.has(rowDiffers) && full != c.row {
		w.found(Different, Outbox, n, m.SourceOffset, nil, "the outbox message is not the row")
	} else if c.has(decodes) && w.click(m.SourceOffset, &w.ev.Click).sum() != c.text {
		w.found(Different, Outbox, n, m.SourceOffset, nil, "the outbox message is not the click of the input")
	}
	return nil
}

// event judges one committed record of an output topic.
func (w *looker) event(ctx context.Context, o *output, op *outputPart, rec *kgo.Record) error {
	m := w.asMessage(rec)
	at := &At{rec.Topic, rec.Partition, rec.Offset}
	src, why := sourceOf(w.opts.Input, m.Headers)
	p := w.parts[src.partition]
	if why != "" || p == nil || src.offset < p.begin || src.offset >= max(p.stableEnd, p.from) && src.offset < p.stored {
		return nil // these have no place in the order either
	}
	before, again := op.order(p.id, src.offset, src.offset < p.stored)
	p.mu.Lock()
	defer p.mu.Unlock()
	c, why := p.at(src.offset)
	if c == nil {
		if why != "" {
			w.found(Unexplained, o.sink, p.id, src.offset, at, "%s: %s", at, why)
		}
		return nil
	}
	m.SourceOffset = src.offset
	good := true
	if o.sink == Events {
		var err error
		if good, err = w.isEnriched(ctx, m.Value, at.String); err != nil {
			return err
		}
	}
	count := &c.events
	if o.sink == DLQ {
		count = &c.dlq
	}
	first := inc(count) == 1
	if first && before >= 0 && !again && !p.excused(o.topic, src.offset, true) { // a second copy is a duplicate, not disorder
		w.found(OutOfOrder, o.sink, p.id, src.offset, at, "%s: source offset %d comes after %d", at, src.offset, before)
	}
	if !good {
		w.found(Undecodable, o.sink, p.id, src.offset, at, "%s is no enriched click that can be decoded", at)
	}
	if !first {
		w.found(Duplicate, o.sink, p.id, src.offset, at, "%s: published once more", at)
	}
	w.compare(o, p, c, at, &m, good)
	return nil
}

// compare holds a record against the outbox message, then what it says against the input and the row. p is locked.
func (w *looker) compare(o *output, p *partition, c *cell, at *At, m *outbox.Message, good bool) {
	offset := m.SourceOffset
	if p.erased.has(offset) {
		return // its bytes can't be checked any more; that they are there once, they are
	}
	if c.outbox > 0 && w.scratch.message(offset, m).sum() != c.msg {
		w.found(Different, o.sink, p.id, offset, at, "%s is not the outbox message", at)
		return
	}
	if o.sink == DLQ {
		sink := o.sink
		if c.outbox > 0 { // two against one
			sink = DeadLetters
		}
		switch blind := offset < p.from; {
		case blind && c.dead == 0:
		case w.keyValue(offset, m.Key, m.Value).sum() == c.kv:
			if c.dead > 0 && c.rows == 0 && w.letter(offset, failureOf(m.Headers)).sum() != c.row {
				w.found(Different, sink, p.id, offset, at, "what the dead letter says of its failure, or its headers, is not what %s says", at)
			}
		case blind:
			w.found(Different, sink, p.id, offset, at, "the dead letter's key and value are not those of %s", at)
		default:
			w.found(Different, o.sink, p.id, offset, at, "%s: key and value are not the %s", at, w.original(p, offset))
		}
		return
	}
	if !good {
		return
	}
	if c.has(decodes) && w.click(offset, &w.ev.Click).sum() != c.text {
		w.found(Different, o.sink, p.id, offset, at, "%s is not the click of the input", at)
		return
	}
	if c.rows > 0 && !c.has(rowDiffers) {
		w.plainRow(offset, w.asRow(&w.ev.Click, w.ev.Country, header(m.Headers, geoHeader)))
		if w.andGeo(&w.fields).sum() != c.row {
			sink := o.sink
			if c.outbox > 0 { // two against one
				sink = Rows
			}
			w.found(Different, sink, p.id, offset, at, "the row is not the event %s", at)
		}
	}
}
