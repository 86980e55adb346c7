package heal

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// end finishes and lets go of what is held, whatever came of it: a partition that still lacks something is refused by every worker, held or not.
func (h *postgres) end(ctx context.Context, err error) ([]Done, error) {
	var done []Done
	for _, p := range h.sorted() {
		d := p.done
		d.Partition, d.DryRun, d.Before, d.After = p.id, h.o.DryRun, p.before, p.before
		if p.held != nil {
			d.After = p.held.Next()
		}
		d.Changed = d.After != d.Before || p.absent && p.held != nil
		if d.Says = h.says(p, &d, err); d.Says != "" {
			done = append(done, d)
		}
	}
	if h.o.DryRun {
		return done, err
	}
	err = errors.Join(err, h.noteDeeds(ctx))
	erased := h.finish(ctx, done, err)
	for _, p := range h.sorted() {
		if p.held == nil {
			continue
		}
		if lerr := p.held.LetGo(ctx); lerr != nil {
			err = errors.Join(err, fmt.Errorf("partition %d stays held: %w", p.id, lerr))
		}
	}
	if !erased {
		err = errors.Join(err, h.eraseAgain(ctx, time.Minute))
	}
	return done, err
}

func (h *postgres) says(p *part, d *Done, err error) string {
	var s string
	switch {
	case p.refused && !d.Changed:
		return ""
	case h.o.DryRun && err == nil && p.to > p.next:
		s = fmt.Sprintf("dry run: the records [%d,%d) would be rebuilt from their %d events", p.next, p.to, h.events(p))
	case d.Changed && p.absent:
		s = fmt.Sprintf("Postgres knew nothing of it: rebuilt the records [%d,%d), %d rows and %d dead letters; the output topics have nothing from before %d",
			d.Before, d.After, d.Rows, d.DeadLetters, d.Before)
	case d.Changed:
		s = fmt.Sprintf("rebuilt the records [%d,%d): %d rows, %d dead letters", d.Before, d.After, d.Rows, d.DeadLetters)
		if p.redone > 0 {
			s += fmt.Sprintf(", %d deeds done again that had skipped records", p.redone)
		}
		if p.to > d.After {
			s += fmt.Sprintf("; left to do: [%d,%d)", d.After, p.to)
		}
	case p.deeds && h.o.DryRun && err == nil:
		s = "dry run: its ledger lacks deeds, and nothing that was captured: that would be noted"
	case p.deeds && p.held != nil:
		s = "its ledger had lost deeds, and nothing that was captured: that is noted, and their heads in Kafka are replaced"
	case p.rested && err == nil:
		s = fmt.Sprintf("rebuilt already, up to %d; let go", d.After)
	case p.asked && err == nil:
		return fmt.Sprintf("nothing to heal: the stored offset is %d, and Kafka has nothing from there on", p.next)
	default:
		return ""
	}
	switch {
	case !p.seen.Has:
		s += "; there is no group offset: the next owner finds it in the output topics"
	case !p.seen.Ours:
		s += fmt.Sprintf("; the group offset %d is not ours: next, exactly offsets restore --partition %d", p.seen.Offset, p.id)
	}
	if p.held != nil && p.held.Kept() {
		s += "; still held"
	}
	return s
}

// events is how many there are of what is to be rebuilt.
func (h *postgres) events(p *part) (n int64) {
	for o := p.next; o < p.to; o++ {
		if p.index.get(o) != 0 {
			n++
		}
	}
	return n
}
