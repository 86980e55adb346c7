package audit

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// readInput fills the cells from the input topic, up to the stored offsets; with Settled on to the stable end, to count what waits.
func (r *run) readInput(ctx context.Context) error {
	starts, err := r.kafka.offsets(ctx, "start offsets", r.kafka.adm.ListStartOffsets, r.opts.Input)
	if err != nil {
		return err
	}
	ends, err := r.kafka.offsets(ctx, "stable ends", r.kafka.adm.ListCommittedOffsets, r.opts.Input)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(r.opts.Workers)
	for _, p := range r.sorted() {
		p.logStart, p.stableEnd = starts[r.opts.Input][p.id], ends[r.opts.Input][p.id]
		// A stored offset is a number somebody wrote: it must not decide how much memory is taken.
		p.makeCells(min(p.stored, p.stableEnd))
		p.stat.Waiting = max(0, p.stableEnd-max(p.stored, p.logStart))
		if !p.inTopic {
			continue
		}
		g.Go(func() error { return r.readInputPartition(ctx, p) })
	}
	return g.Wait()
}

func (r *run) readInputPartition(ctx context.Context, p *partition) error {
	end := min(p.stored, p.stableEnd)
	if r.opts.Settled {
		end = p.stableEnd
		p.stat.Waiting = 0
	}
	w := r.newWorker()
	from := p.base
	for from < end {
		next, err := r.kafka.read(ctx, r.opts.Input, p.id, from, end, func(recs []*kgo.Record) error {
			for _, rec := range recs {
				if err := w.input(ctx, p, rec); err != nil {
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
	ip [32]byte
}

func (r *run) newWorker() *worker {
	return &worker{run: r, scratch: scratch{hasher: r.hash}}
}

func (w *worker) input(ctx context.Context, p *partition, rec *kgo.Record) error {
	if rec.Offset >= p.stored {
		p.stat.Waiting++
		return nil
	}
	p.stat.Input++
	c := &p.cells[rec.Offset-p.base]
	c.flags |= inInput
	c.kv = w.keyValue(rec.Key, rec.Value)
	switch err := w.dec.click(ctx, rec.Value, &w.in); {
	case err == nil:
		c.flags |= decodes
		c.text = w.scratch.click(&w.in)
		f := asRow(&w.in, "", "", w.ip[:0])
		c.plain, _ = w.row(&f)
	case !errors.Is(err, errUndecodable):
		return fmt.Errorf("decode %s/%d@%d: %w", rec.Topic, rec.Partition, rec.Offset, err)
	}
	return nil
}
