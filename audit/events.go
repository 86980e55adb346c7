package audit

import (
	"context"
	"errors"
	"maps"
	"slices"
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
	start     int64 // of its log, if retention may have taken something of what is to be read; else 0
	first     int64 // reading begins here
	next      int64 // read up to here
	decidedAt int64 // its end when the group offset was read: all that offset tells of is below
	seen      map[int32]seen
	twin      *outputPart          // the same of the replays' source, which is read along; nil: there is none
	known     map[int32]seen       // what an earlier round has seen before first
	waypoints map[int32][]waypoint // for a later round; nil: there will be none
}

// rewind goes back to where reading began.
func (op *outputPart) rewind() {
	op.next, op.seen = op.first, map[int32]seen{}
	maps.Copy(op.seen, op.known)
}

// truncated goes on where the log begins by now. What was seen before tells nothing any more of what is gone.
func (op *outputPart) truncated(start int64) {
	op.start, op.first, op.next, op.seen, op.known = start, start, start, map[int32]seen{}, nil
	if op.waypoints != nil {
		op.waypoints = map[int32][]waypoint{}
	}
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
			p.begin(starts[topic][n], r.earlier, topic)
			if p.twin != nil {
				p.twin.start, p.twin.first, p.twin.next = p.first, p.first, p.next // what an earlier round has read is as gone
			}
			if !r.follows {
				p.waypoints = nil
			}
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
	return r.readEvents(ctx, func(o *output, p *outputPart) int64 { return ends[o.topic][p.id] },
		func() eventReader { return (&summer{worker: r.newWorker()}).event })
}

type eventReader func(context.Context, *output, *outputPart, *kgo.Record) error

// readEvents reads every output partition from where it is on to an end.
func (r *run) readEvents(ctx context.Context, end func(*output, *outputPart) int64, newFn func() eventReader) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.opts.Workers)
	for _, o := range r.outputs {
		for _, p := range o.parts {
			if p.next < end(o, p) {
				g.Go(func() error { return r.readOutput(ctx, o, p, end(o, p), newFn()) })
			}
		}
	}
	return g.Wait()
}

func (r *run) readOutput(ctx context.Context, o *output, p *outputPart, end int64, fn eventReader) error {
	for p.next < end {
		next, err := r.kafka.read(ctx, o.topic, p.id, p.next, end, func(recs []*kgo.Record) error {
			for _, rec := range recs {
				if err := fn(ctx, o, p, rec); err != nil {
					return err
				}
			}
			r.tell(len(recs))
			return nil
		})
		var gone *errTruncated
		if errors.As(err, &gone) {
			p.truncated(gone.start)
			if p.twin != nil {
				p.twin.truncated(gone.start)
			}
			continue
		}
		if err != nil {
			return err
		}
		p.next = next
		if p.twin != nil {
			p.twin.next = next
		}
	}
	return nil
}

// asMessage is the record in the outbox's terms; its headers are in the worker's scratch.
func (s *scratch) asMessage(rec *kgo.Record) outbox.Message {
	s.headers = s.headers[:0]
	for _, h := range rec.Headers {
		s.headers = append(s.headers, outbox.Header{Key: h.Key, Value: h.Value})
	}
	return outbox.Message{Topic: rec.Topic, Partition: rec.Partition, TimestampMs: rec.Timestamp.UnixMilli(), Key: rec.Key, Value: rec.Value, Headers: s.headers}
}

// order says whether a source partition's offsets only grow within an output partition: what the offset comes after though it is above
// (-1: nothing), and whether it is the last one again. Records that the snapshot does not cover only move it on.
func (op *outputPart) order(partition int32, offset int64, covered bool) (before int64, again bool) {
	s, ok := op.seen[partition]
	if !ok {
		s = seen{offset, offset}
		op.seen[partition] = s
		return -1, false
	}
	if offset > s.last {
		s.last = offset
		op.seen[partition] = s
		return -1, false
	}
	if !covered {
		return -1, false
	}
	if offset == s.last {
		return -1, true
	}
	return s.last, false
}

// missing says whether the offset's record should be in Kafka and is not, and in which topic.
func (r *run) missing(p *partition, c *cell, offset int64) (*output, bool) {
	o, there := r.expected(c)
	return o, !there && offset < p.published()
}

// expected is the topic that the cell's record belongs into, and whether it is there.
func (r *run) expected(c *cell) (o *output, there bool) {
	if c.clickExpected() {
		return r.outputs[r.opts.Output], c.events > 0
	}
	return r.outputs[r.opts.DLQ], c.dlq > 0
}

// candidates are the partitions in which a record may be.
func (o *output) candidates(target int32) []*outputPart {
	if p := o.parts[target]; p != nil {
		return []*outputPart{p}
	}
	all := make([]*outputPart, 0, len(o.parts))
	for _, p := range o.parts {
		all = append(all, p)
	}
	return all
}

// gone says whether retention may have taken the partition's record of an offset: it takes a log's beginning, and the log is in source order.
func (op *outputPart) gone(source int32, offset int64) bool {
	s, ok := op.seen[source]
	return op.start > 0 && (!ok || offset < s.first)
}

// mayBeGone says whether retention may have taken the record.
func (o *output) mayBeGone(target, source int32, offset int64) bool {
	if p := o.parts[target]; p != nil {
		return p.gone(source, offset)
	}
	return slices.ContainsFunc(o.candidates(target), func(op *outputPart) bool { return op.gone(source, offset) })
}

// allGone says whether retention has taken every record below an offset.
func (o *output) allGone(source int32, below int64) bool {
	for _, op := range o.parts {
		if !op.gone(source, below-1) {
			return false
		}
	}
	return true
}

// hidden says whether an open transaction may hide the record.
func (o *output) hidden(target int32) bool {
	return slices.ContainsFunc(o.candidates(target), func(op *outputPart) bool { return op.next < op.decidedAt })
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

func (r *run) anyHidden() bool { return r.hides() || r.replays.run != nil && r.replays.hides() }

func (r *run) hides() bool {
	hidden := false
	for _, o := range r.outputs {
		hidden = hidden || o.hidden(-1)
	}
	if !hidden {
		return false
	}
	for _, p := range r.parts {
		for i := range p.stretches {
			s, records := &p.stretches[i], p.stretches[i].input
			if r.noInput {
				records = s.rows.n + s.dead.n
			}
			if !s.owed && !s.lost && (r.noInput || s.from >= p.from) && s.events.n < records {
				return true
			}
		}
	}
	return false
}
