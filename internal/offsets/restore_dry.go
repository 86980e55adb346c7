package offsets

import (
	"context"
	"errors"
	"fmt"

	"github.com/exactly-pipeline/exactly/internal/admin"
)

// look is a dry run. What looks wrong is looked at again: it may have been published between two looks.
func (s *restoring) look(ctx context.Context) error {
	var wrong []*row
	var err error
	for range 3 {
		if wrong, err = s.compare(ctx, false); err != nil {
			return err
		}
		if len(wrong) == 0 {
			break
		}
	}
	for _, r := range wrong {
		s.results[r.partition].committed = true
	}
	for _, r := range s.rows {
		res := s.results[r.partition]
		out := Done{Partition: r.partition, DryRun: true, After: &res.at, Says: "dry run: " + s.says(r, res)}
		if res.before.Has {
			out.Before = &res.before.Offset
		}
		if r.held {
			out.Says += fmt.Sprintf("; held by %s: %s", r.heldBy, r.heldWhy)
		}
		s.done = append(s.done, out)
	}
	return errors.Join(s.refused...)
}

func (s *restoring) says(r *row, res *result) string {
	if !res.committed {
		return fmt.Sprintf("nothing to restore: the group offset %d is what the output topics say; stored offset %d", res.at, r.next)
	}
	return fmt.Sprintf("group offset set to %d (it was %s); stored offset %d, so %d records are owed and will be published by the next owner", res.at,
		described(res.before), r.next, r.next-res.at)
}

func described(g admin.GroupOffset) string {
	switch {
	case !g.Has:
		return "none"
	case !g.Ours:
		return fmt.Sprintf("%d, not ours", g.Offset)
	}
	return fmt.Sprint(g.Offset)
}
