package audit

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// inputBounds lists the ends of the input, after the snapshot.
func (r *run) inputBounds(ctx context.Context) error {
	if r.noInput { // as if retention had removed all that was captured
		for _, p := range r.parts {
			p.logStart, p.stableEnd, p.hi, p.from = p.stored, p.stored, p.stored, p.stored
		}
		return nil
	}
	starts, err := r.kafka.offsets(ctx, "start offsets", r.kafka.adm.ListStartOffsets, r.opts.Input)
	if err != nil {
		return err
	}
	ends, err := r.kafka.offsets(ctx, "stable ends", r.kafka.adm.ListCommittedOffsets, r.opts.Input)
	if err != nil {
		return err
	}
	for _, p := range r.parts {
		p.logStart, p.stableEnd = starts[r.opts.Input][p.id], ends[r.opts.Input][p.id]
		// A stored offset is a number somebody wrote: it must not decide how much is read.
		p.hi = min(p.stored, p.stableEnd)
		p.from = p.logStart
		p.stat.Waiting = max(0, p.stableEnd-max(p.stored, p.logStart))
	}
	return nil
}

// sumInput adds up the input topic, up to the stored offsets; with Settled on to the stable end, to count what waits.
func (r *run) sumInput(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.opts.Workers)
	for _, p := range r.sorted() {
		if !p.inTopic {
			continue
		}
		end := p.hi
		if r.opts.Settled {
			end = max(p.stableEnd, p.hi)
			p.stat.Waiting = 0
		}
		w := &summer{worker: r.newWorker()}
		g.Go(func() error { return r.readInput(ctx, p, max(p.lo, p.from), end, w.input) })
	}
	return g.Wait()
}

// readInput passes on the records in [from, to).
func (r *run) readInput(ctx context.Context, p *partition, from, to int64, fn func(context.Context, *partition, *kgo.Record) error) error {
	for from < to {
		next, err := r.kafka.read(ctx, r.opts.Input, p.id, from, to, func(recs []*kgo.Record) error {
			for _, rec := range recs {
				if err := fn(ctx, p, rec); err != nil {
					return err
				}
			}
			r.tell(len(recs))
			return nil
		})
		var gone *errTruncated
		if errors.As(err, &gone) { // what was counted below stays counted; it can't be vouched for any more
			p.from, from = gone.start, gone.start
			continue
		}
		if err != nil {
			return err
		}
		from = next
	}
	return nil
}

// worker is what one goroutine needs of its own.
type worker struct {
	*run
	scratch
	in click
	ev enriched
}

func (r *run) newWorker() *worker {
	return &worker{run: r, scratch: scratch{hasher: r.hash}}
}

// isClick decodes an input's value, if it is a click.
func (w *worker) isClick(ctx context.Context, rec *kgo.Record) (bool, error) {
	err := w.dec.click(ctx, rec.Value, &w.in)
	if err != nil && !errors.Is(err, errUndecodable) {
		return false, fmt.Errorf("decode %s/%d@%d: %w", rec.Topic, rec.Partition, rec.Offset, err)
	}
	return err == nil, nil
}

// isEnriched decodes an event's value, if it is one.
func (w *worker) isEnriched(ctx context.Context, value []byte, what func() string) (bool, error) {
	err := w.dec.enriched(ctx, value, &w.ev)
	if err != nil && !errors.Is(err, errUndecodable) {
		return false, fmt.Errorf("decode %s: %w", what(), err)
	}
	return err == nil, nil
}
