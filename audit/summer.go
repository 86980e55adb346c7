package audit

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/outbox"
)

// summer is the first pass: it adds records up by stretches. What is wrong with a record of no stretch it says at once; what is wrong with
// one of a stretch makes that stretch suspicious, and the second pass names it.
type summer struct {
	*worker
	spot
	replaying *summer // of the replays' source, once there is an event of it
}

// kept is how much is kept beside the sums, over all partitions.
type kept struct{ beyond, early atomic.Int64 }

func (w *summer) input(ctx context.Context, p *partition, rec *kgo.Record) error {
	if rec.Offset >= p.stored {
		p.stat.Waiting++
		return nil
	}
	if !w.move(w.hasher, p, rec.Offset) {
		return nil
	}
	p.stat.Input++
	w.s.input++
	w.count(ofRecords)
	if p.dead.has(rec.Offset) {
		w.s.inDead.add(w.of(p, rec.Offset, w.keyValue(rec.Offset, rec.Key, rec.Value)).wideSum())
		return nil
	}
	good, err := w.isClick(ctx, rec)
	if err != nil || !good { // whatever is there for it, it is not its row
		w.s.suspect = true
		return err
	}
	w.s.inText.plus(w.of(p, rec.Offset, w.click(rec.Offset, &w.in)).wideSum())
	w.s.inRows.plus(w.of(p, rec.Offset, w.plainRow(rec.Offset, w.asRow(&w.in, "", ""))).wideSum())
	return nil
}

// claim finds the stretch that a Postgres row of the coordinate belongs to. False: it was dealt with.
func (w *summer) claim(sink Sink, source int16, n int32, offset int64) bool {
	if source != w.source {
		if w.sources[source] {
			w.findings.mu.Lock()
			w.totals.OtherSource++
			w.findings.mu.Unlock()
			return false
		}
		w.found(Unexplained, sink, n, offset, nil, "%s: %s/%d@%d is of source %d, which there is not", sink, w.opts.Input, n, offset, source)
		return false
	}
	p := w.parts[n]
	if p == nil {
		w.found(Unexplained, sink, n, offset, nil, "%s: %s has no partition %d", sink, w.opts.Input, n)
		return false
	}
	why, gone := p.reach(offset)
	in := why == "" && w.move(w.hasher, p, offset)
	p.mu.Lock()
	if in || why != "" || gone {
		switch sink {
		case Rows:
			p.stat.Rows++
		case Outbox:
			p.stat.Outbox++
		case DeadLetters:
			p.stat.DeadLetters++
		}
	}
	if gone {
		p.stat.OutOfReach++
	}
	p.mu.Unlock()
	if why != "" {
		w.found(Unexplained, sink, n, offset, nil, "%s: %s", sink, why)
	}
	return in
}

func (w *summer) row(v *rowRow) error {
	if !w.claim(Rows, v.source, v.partition, v.offset) {
		return nil
	}
	plain := w.of(w.p, v.offset, w.plainRow(v.offset, &v.fields)).wideSum()
	full := w.of(w.p, v.offset, w.andGeo(&v.fields)).wideSum()
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	w.s.suspect = w.s.suspect || w.p.erased.has(v.offset) && !v.fields.isBlank()
	w.s.rows.add(plain)
	w.s.rowsFull.plus(full)
	w.count(ofRows)
	w.dropped(v.dropped)
	return nil
}

// dropped counts a row or dead letter whose outbox message went with its time partition.
func (w *summer) dropped(yes bool) {
	if yes {
		w.s.pruned++
		w.count(ofMessages)
	}
}

func (w *summer) deadLetter(v *deadRow) error {
	if !w.claim(DeadLetters, v.source, v.partition, v.offset) {
		return nil
	}
	kv := w.of(w.p, v.offset, w.keyValue(v.offset, v.key, v.value)).wideSum()
	why := w.of(w.p, v.offset, w.letter(v.offset, v.failure)).wideSum()
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	w.s.suspect = w.s.suspect || w.p.erased.has(v.offset) && (v.key != nil || v.value != nil)
	if v.offset >= w.p.from {
		w.p.dead.set(v.offset)
	}
	w.s.dead.add(kv)
	w.s.deadWhy.plus(why)
	w.count(ofDead)
	w.dropped(v.dropped)
	return nil
}

// message adds an outbox message. It comes after the output topics were read: what retention has removed there, and what was owed, is known.
func (w *summer) message(ctx context.Context, v *outboxRow) error {
	m := &v.Message
	if !w.claim(Outbox, v.source, v.partition, m.SourceOffset) {
		return nil
	}
	src, why := sourceOf(w.opts.Input, m.Headers)
	o := w.outputs[m.Topic]
	erased := w.p.erased.has(m.SourceOffset)
	bad := m.Seq != 0 || v.damaged || o == nil || erased != v.isBlank() || !erased && (why != "" || src != (source{v.partition, m.SourceOffset}))
	msg := w.of(w.p, m.SourceOffset, w.scratch.message(m.SourceOffset, m)).wideSum()
	held := !bad && (w.s.owed || o.mayBeGone(m.Partition, w.p.id, m.SourceOffset))
	good := false
	if held && o.sink == Events && !erased {
		var err error
		if good, err = w.isEnriched(ctx, m.Value, func() string {
			return fmt.Sprintf("the outbox message of %s/%d@%d", w.opts.Input, v.partition, m.SourceOffset)
		}); err != nil {
			return err
		}
	}
	p := w.p
	p.mu.Lock()
	defer p.mu.Unlock()
	w.count(ofMessages)
	w.digest(v)
	w.s.suspect = w.s.suspect || bad
	if h, there := p.early[m.SourceOffset]; there && w.s.owed {
		w.s.suspect = w.s.suspect || h != msg.a
		delete(p.early, m.SourceOffset)
	}
	if !held {
		w.s.outbox.add(msg)
		return nil
	}
	w.s.held++
	w.account(o, m, good)
	return nil
}

// account adds what a message says. The partition is locked.
func (w *summer) account(o *output, m *outbox.Message, good bool) {
	switch {
	case o.sink == DLQ:
		w.s.dlq.add(w.of(w.p, m.SourceOffset, w.keyValue(m.SourceOffset, m.Key, m.Value)).wideSum())
		w.s.dlqWhy.plus(w.of(w.p, m.SourceOffset, w.letter(m.SourceOffset, failureOf(m.Headers))).wideSum())
	case w.p.erased.has(m.SourceOffset):
		w.s.clicks++
		w.s.text.plus(w.blank(m.SourceOffset).wideSum())
		w.s.full.plus(w.wideSum())
	case good:
		w.s.clicks++
		w.s.text.plus(w.click(m.SourceOffset, &w.ev.Click).wideSum())
		w.plainRow(m.SourceOffset, w.asRow(&w.ev.Click, w.ev.Country, header(m.Headers, geoHeader)))
		w.s.full.plus(w.andGeo(&w.fields).wideSum())
	default:
		w.s.suspect = true
	}
}

// event adds one committed record of an output topic.
func (w *summer) event(ctx context.Context, o *output, op *outputPart, rec *kgo.Record) error {
	m := w.asMessage(rec)
	at := &At{rec.Topic, rec.Partition, rec.Offset}
	src, why := sourceOf(w.opts.Input, m.Headers)
	if why != "" {
		if taken, err := w.take(ctx, o, op, rec, &m, at); taken || err != nil {
			return err
		}
		w.found(Unexplained, o.sink, -1, -1, at, "%s: %s", at, why)
		return nil
	}
	if !w.wants(src.partition) {
		return nil
	}
	p := w.parts[src.partition]
	if p == nil {
		w.found(Unexplained, o.sink, src.partition, src.offset, at, "%s: %s has no partition %d", at, w.opts.Input, src.partition)
		return nil
	}
	m.SourceOffset = src.offset
	why, gone := p.reach(src.offset)
	later := src.offset >= p.stored
	in := why == "" && w.move(w.hasher, p, src.offset)
	good := true
	if o.sink == Events && (later || gone || in && !w.s.owed) {
		var err error
		if good, err = w.isEnriched(ctx, m.Value, at.String); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !later && (in || gone || why != "") { // what is later is counted at the end, if it is: beside the rows of the snapshot it would only confuse
		if o.sink == DLQ {
			p.stat.DLQ++
		} else {
			p.stat.Events++
		}
	}
	if why != "" && !later {
		w.found(Unexplained, o.sink, p.id, src.offset, at, "%s: %s", at, why)
		return nil
	}
	before, again := op.order(p.id, src.offset, !later)
	if op.waypoints != nil && before < 0 && !again {
		op.remember(p.id, src.offset, rec.Offset)
	}
	switch {
	case in:
		if gone {
			p.stat.OutOfReach++
		}
		w.s.suspect = w.s.suspect || before >= 0 || again
		w.inStretch(o, &m, good)
		return nil
	case later:
		if w.kept.beyond.Add(1) <= mostBeyond {
			p.beyond = append(p.beyond, beyond{src.offset, rec.Offset, rec.Partition, o.sink})
		}
	case gone:
		p.stat.OutOfReach++
		if before >= 0 {
			w.found(OutOfOrder, o.sink, p.id, src.offset, at, "%s: source offset %d comes after %d", at, src.offset, before)
		}
	default: // not asked for, or proven before: then it was there before, too
		if w.earlier != nil && (before >= 0 || again) {
			w.found(Duplicate, o.sink, p.id, src.offset, at, "%s: published once more, after it had been proven", at)
		}
		return nil
	}
	if !good {
		w.found(Undecodable, o.sink, p.id, src.offset, at, "%s is no enriched click that can be decoded", at)
	}
	return nil
}

// inStretch adds an event of a stretch. The partition is locked.
func (w *summer) inStretch(o *output, m *outbox.Message, good bool) {
	msg := w.of(w.p, m.SourceOffset, w.scratch.message(m.SourceOffset, m)).wideSum()
	if !w.s.owed {
		w.s.events.add(msg)
		w.account(o, m, good)
		return
	}
	if _, twice := w.p.early[m.SourceOffset]; twice || w.kept.early.Add(1) > mostEarly {
		w.s.suspect = true
		return
	}
	w.s.early++
	w.p.early[m.SourceOffset] = msg.a
}
