package heal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// end lets go of what is held and tells what was done.
func (h *kafka) end(ctx context.Context, err error) ([]Done, error) {
	if h.p != nil {
		h.p.Close()
	}
	var done []Done
	for _, p := range h.parts {
		if p.held != nil {
			if lerr := p.held.LetGo(ctx); lerr != nil {
				err = errors.Join(err, fmt.Errorf("partition %d stays held: %w", p.ID, lerr))
			}
		}
		d := Done{Partition: p.ID, DryRun: h.o.DryRun, Before: p.Next, After: p.Next, Published: p.sent, Changed: p.sent > 0 || p.held != nil && err == nil && (h.recreated() || h.headless())}
		if d.Says = h.says(p, &d, err); d.Says != "" {
			done = append(done, d)
		}
	}
	if err == nil && !h.o.DryRun {
		h.publishHeads(ctx, partitionsOf(done), done, false)
	}
	return done, err
}

func partitionsOf(done []Done) (ids []int32) {
	for i := range done {
		ids = append(ids, done[i].Partition)
	}
	return ids
}

func (h *kafka) says(p *owed, d *Done, err error) string {
	var missing int64
	for _, n := range p.missing {
		missing += n
	}
	var s string
	switch {
	case err != nil && p.sent == 0:
		return ""
	case err != nil:
		s = fmt.Sprintf("published %d events again; left to do: %d", p.sent, missing-p.sent)
	case h.o.DryRun && missing > 0:
		s = fmt.Sprintf("dry run: %d events of the records [%d,%d) would be published again", missing, p.low, p.upTo)
	case d.Published > 0:
		s = fmt.Sprintf("published %d events of the records [%d,%d) again", p.sent, p.low, p.upTo)
	case p.beyond+p.erased+p.expired == 0 && !h.recreated() && !h.headless() && p.rests == "":
		return ""
	default:
		s = fmt.Sprintf("no event of the records [%d,%d) is missing", p.low, p.upTo)
	}
	if p.beyond > 0 && h.recreated() {
		s += fmt.Sprintf("; %d events from before offset %d are beyond what the outbox keeps, and are gone", p.beyond, p.low)
	}
	if p.erased > 0 {
		s += fmt.Sprintf("; %d were erased", p.erased)
	}
	if p.expired > 0 {
		s += fmt.Sprintf("; %d have expired from the topics", p.expired)
	}
	if p.disorder > 0 {
		s += fmt.Sprintf("; %d of them behind later ones", p.disorder)
	}
	if p.group.Has && !p.group.Ours {
		s += fmt.Sprintf("; the group offset %d is not ours: next, exactly offsets restore --partition %d", p.group.Offset, p.ID)
	}
	if p.rests != "" {
		s += "; a heal that was killed had begun it"
	}
	if p.held != nil && p.held.Kept() {
		s += "; still held"
	}
	return s
}

// replaced names the topics that are others now.
func (h *kafka) replaced() string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(h.topics)) {
		if t := h.topics[name]; t.was != t.is {
			out = append(out, fmt.Sprintf("topic %s was %s and is %s", name, t.was, t.is))
		}
	}
	if h.headless() {
		out = append(out, fmt.Sprintf("topic %s was %s and is %s: what it vouched for is gone", h.heads.name, h.heads.was, h.heads.is))
	}
	return strings.Join(out, ", ")
}
