package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/exactly-pipeline/exactly/outbox"
)

// output is an output topic.
type output struct {
	topic string
	sink  Sink
	parts map[int32]*outputPart
}

// outputPart is one of its partitions. One goroutine at a time reads it.
type outputPart struct {
	id        int32
	start     int64 // of its log
	next      int64 // read up to here
	decidedAt int64 // its end when the group offset was read: all that offset tells of is below
	seen      map[int32]seen
}

// seen are the first and the highest source offset of one source partition in one output partition.
type seen struct{ first, last int64 }

// readOutputs reads both output topics up to their stable ends as they are now: after the snapshot.
func (r *run) readOutputs(ctx context.Context) error {
	starts, err := r.kafka.offsets(ctx, "start offsets", r.kafka.adm.ListStartOffsets, r.opts.Output, r.opts.DLQ)
	if err != nil {
		return err
	}
	for topic, o := range r.outputs {
		for n, p := range o.parts {
			p.start, p.next = starts[topic][n], starts[topic][n]
		}
	}
	return r.readOn(ctx)
}

// readOn reads every output partition on to its stable end.
func (r *run) readOn(ctx context.Context) error {
	ends, err := r.kafka.offsets(ctx, "stable ends", r.kafka.adm.ListCommittedOffsets, r.opts.Output, r.opts.DLQ)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.opts.Workers)
	for topic, o := range r.outputs {
		for n, p := range o.parts {
			if p.next >= ends[topic][n] {
				continue
			}
			g.Go(func() error {
				w := r.newWorker()
				for p.next < ends[topic][n] {
					next, err := r.kafka.read(ctx, topic, n, p.next, ends[topic][n], func(recs []*kgo.Record) error {
						for _, rec := range recs {
							if err := w.event(ctx, o, p, rec); err != nil {
								return err
							}
						}
						r.tell(len(recs))
						return nil
					})
					var gone *errTruncated
					if errors.As(err, &gone) {
						p.start, p.next = gone.start, gone.start
						continue
					}
					if err != nil {
						return err
					}
					p.next = next
				}
				return nil
			})
		}
	}
	return g.Wait()
}

// asMessage is the record in the outbox's terms; its headers are in the worker's scratch.
func (s *scratch) asMessage(rec *kgo.Record) outbox.Message {
	s.headers = s.headers[:0]
	for _, h := range rec.Headers {
		s.headers = append(s.headers, outbox.Header{Key: h.Key, Value: h.Value})
	}
	return outbox.Message{Topic: rec.Topic, Partition: rec.Partition, TimestampMs: rec.Timestamp.UnixMilli(), Key: rec.Key, Value: rec.Value, Headers: s.headers}
}

// event judges one committed record of an output topic.
func (w *worker) event(ctx context.Context, o *output, op *outputPart, rec *kgo.Record) error {
	m := w.asMessage(rec)
	at := &At{rec.Topic, rec.Partition, rec.Offset}
	src, why := sourceOf(w.opts.Input, m.Headers)
	if why != "" {
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
	msg, kv := w.message(&m), w.keyValue(m.Key, m.Value)
	undecodable := false
	if o.sink == Events {
		err := w.dec.enriched(ctx, m.Value, &w.ev)
		if undecodable = errors.Is(err, errUndecodable); err != nil && !undecodable {
			return fmt.Errorf("decode %s: %w", at, err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	first := true
	c, why := p.at(src.offset)
	switch {
	case src.offset >= p.stored: // counted as later, if it is one: beside the rows of the snapshot they would only confuse
	case o.sink == DLQ:
		p.stat.DLQ++
	default:
		p.stat.Events++
	}
	switch {
	case c != nil && o.sink == Events:
		first = inc(&c.events) == 1
	case c != nil:
		first = inc(&c.dlq) == 1
	case src.offset >= p.stored:
		p.beyond = append(p.beyond, beyond{src.offset, *at})
		first = false // not known: nothing counts them until the end
	case why == "":
		p.stat.OutOfReach++
	default:
		w.found(Unexplained, o.sink, p.id, src.offset, at, "%s: %s", at, why)
		return nil
	}
	w.order(o, op, p, src.offset, first, at)
	if undecodable {
		w.found(Undecodable, o.sink, p.id, src.offset, at, "%s is no enriched click that can be decoded", at)
	}
	if c == nil {
		return nil
	}
	if !first {
		w.found(Duplicate, o.sink, p.id, src.offset, at, "%s: published once more", at)
	}
	w.compare(o, p, c, src.offset, at, msg, kv, &m, undecodable)
	return nil
}

// order checks that a source partition's offsets only grow within an output partition. A second copy is a duplicate, not disorder.
func (w *worker) order(o *output, op *outputPart, p *partition, offset int64, first bool, at *At) {
	s, ok := op.seen[p.id]
	switch {
	case !ok:
		s = seen{offset, offset}
	case offset > s.last:
		s.last = offset
	case first && offset < s.last:
		w.found(OutOfOrder, o.sink, p.id, offset, at, "%s: source offset %d comes after %d", at, offset, s.last)
	}
	op.seen[p.id] = s
}

// compare holds a record against the outbox message, then what it says against the input and the row. p is locked.
func (w *worker) compare(o *output, p *partition, c *cell, offset int64, at *At, msg, kv uint64, m *outbox.Message, undecodable bool) {
	if c.outbox > 0 && msg != c.msg {
		w.found(Different, o.sink, p.id, offset, at, "%s is not the outbox message", at)
		return
	}
	if o.sink == DLQ {
		if kv != c.kv {
			w.found(Different, o.sink, p.id, offset, at, "%s: key and value are not the input's", at)
		}
		return
	}
	if undecodable {
		return
	}
	if c.has(decodes) && w.click(&w.ev.Click) != c.text {
		w.found(Different, o.sink, p.id, offset, at, "%s is not the click of the input", at)
		return
	}
	if c.rows > 0 && !c.has(rowDiffers) {
		f := asRow(&w.ev.Click, w.ev.Country, header(m.Headers, geoHeader), w.ip[:0])
		if _, full := w.row(&f); full != c.row {
			sink := o.sink
			if c.outbox > 0 { // two against one
				sink = Rows
			}
			w.found(Different, sink, p.id, offset, at, "the row is not the event %s", at)
		}
	}
}

// missing says whether the offset's record should be in Kafka and is not, and in which topic.
func (r *run) missing(p *partition, c *cell, offset int64) (*output, bool) {
	if !c.has(inInput) || offset >= p.published() {
		return nil, false
	}
	if c.clickExpected() {
		return r.outputs[r.opts.Output], c.events == 0
	}
	return r.outputs[r.opts.DLQ], c.dlq == 0
}

// candidates are the partitions in which the record may be.
func (o *output) candidates(c *cell) []*outputPart {
	if p := o.parts[int32(c.target)]; p != nil {
		return []*outputPart{p}
	}
	all := make([]*outputPart, 0, len(o.parts))
	for _, p := range o.parts {
		all = append(all, p)
	}
	return all
}

// expired says whether retention may have taken the record: it takes a log's beginning, and the log is in source order.
func (o *output) expired(p *partition, c *cell, offset int64) bool {
	for _, op := range o.candidates(c) {
		if s, ok := op.seen[p.id]; op.start > 0 && (!ok || offset < s.first) {
			return true
		}
	}
	return false
}

// hidden says whether an open transaction may hide the record.
func (o *output) hidden(c *cell) bool {
	for _, op := range o.candidates(c) {
		if op.next < op.decidedAt {
			return true
		}
	}
	return false
}

// waitForHidden reads on for as long as an event that must be there may be behind an open transaction (see Run), and no longer.
func (r *run) waitForHidden(ctx context.Context) error {
	errHidden := errors.New("hidden")
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 10*time.Millisecond, 500*time.Millisecond
	_, err := backoff.Retry(ctx, func() (bool, error) {
		if !r.anyHidden() {
			return true, nil
		}
		if err := r.readOn(ctx); err != nil {
			return false, backoff.Permanent(err)
		}
		if r.anyHidden() {
			return false, errHidden
		}
		return true, nil
	}, backoff.WithBackOff(b), backoff.WithMaxElapsedTime(r.opts.UndecidedIn))
	if errors.Is(err, errHidden) {
		return nil // settle calls them undecided
	}
	return err
}

func (r *run) anyHidden() bool {
	for _, p := range r.parts {
		for i := range p.cells {
			offset := p.base + int64(i)
			if offset < p.from {
				continue
			}
			if o, gone := r.missing(p, &p.cells[i], offset); gone && o.hidden(&p.cells[i]) {
				return true
			}
		}
	}
	return false
}
