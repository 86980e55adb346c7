package heal

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/engine"
)

// holes says why a partition can't be healed: an offset that has no event must be one that the input has no record at, or the event has
// expired, or was never there. nil: every record that was published has its event.
func (h *postgres) holes(ctx context.Context, p *part) (refused, err error) {
	first, last, end, n := int64(-1), int64(0), int64(0), 0
	for o := p.next; o < p.to; o++ {
		if p.index.get(o) == 0 && !p.skip(o) {
			if first < 0 {
				first = o
			}
			last = o
			n++
		}
	}
	if n == 0 {
		return nil, nil
	}
	starts, _, err := h.desk.Admin().LogRange(ctx, h.cfg.Topics.Input)
	if err != nil {
		return nil, err
	}
	start, _ := starts.Lookup(h.cfg.Topics.Input, p.id)
	const remedy = "what was published of them is nowhere any more, and Postgres can't be rebuilt without it: restore a newer backup"
	if first < start.Offset {
		return refuse(p.id, "the output topics have no event of %d of the offsets [%d,%d), and the input, which begins at %d, can't tell any more whether these were records: %s",
			n, first, last+1, start.Offset, remedy), nil
	}
	noting, repeats := h.rb.(engine.NotingRebuilder)
	all := spans{}
	if repeats { // what it repeats may stand anywhere
		all.add(h.cfg.Topics.Input, p.id, start.Offset, p.to)
	} else {
		all.add(h.cfg.Topics.Input, p.id, first, last+1)
	}
	like := map[string]bool{} // has an event, or was captured before
	without := map[int64]string{}
	err = h.read(ctx, all, func(r *kgo.Record) error {
		name := ""
		if repeats {
			if n, may := noting.MadeNothing(r.Value); may {
				name = n
			}
		}
		if r.Offset < p.next || p.index.get(r.Offset) != 0 {
			like[name] = true
		} else {
			without[r.Offset] = name
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the input: %w", err)
	}
	missing, lowest := 0, int64(-1)
	for o := first; o <= last; o++ {
		if p.skip(o) {
			continue
		}
		if name, there := without[o]; there && (name == "" || !like[name]) {
			if missing++; lowest < 0 {
				lowest = o
			}
			end = o + 1
		}
	}
	if missing > 0 {
		return refuse(p.id, "the output topics have no event of %d of the records [%d,%d), which the group says were published: expired there, or the topic was emptied: %s",
			missing, lowest, end, remedy), nil
	}
	return nil, nil
}
