package offsets

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Hold keeps workers off partitions until Release: a running owner loses them at its next capture, a new one waits. What was captured
// before is still published by an owner that is at it. It is no ledger entry: no offset moves.
func (d *Desk) Hold(ctx context.Context, ids []int32, reason string) ([]Done, error) {
	var done []Done
	err := pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		rows, err := d.rows(ctx, tx, ids, true)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if r.held {
				return refuse(r.partition, "is held already, by %s since %s: %s", r.heldBy, r.heldSince.UTC().Format(time.RFC3339), r.heldWhy)
			}
			if err := d.seize(ctx, tx, r, "hold", reason); err != nil {
				return err
			}
			done = append(done, Done{Partition: r.partition, Changed: true, Before: &r.next, After: &r.next,
				Says: fmt.Sprintf("held at stored offset %d; it goes on after: exactly offsets release --partition %d", r.next, r.partition)})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("hold: %w", err)
	}
	return done, nil
}

// Release ends holds, whoever placed them: also those of a command that was killed. All that are held if ids is nil.
func (d *Desk) Release(ctx context.Context, ids []int32) ([]Done, error) {
	var done []Done
	err := pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		rows, err := d.rows(ctx, tx, ids, true)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if ids == nil && !r.held {
				continue
			}
			out := Done{Partition: r.partition, Before: &r.next, After: &r.next, Says: "was not held"}
			if r.held {
				if _, err := tx.Exec(ctx, openSQL, d.source.ID, r.partition); err != nil {
					return fmt.Errorf("partition %d: %w", r.partition, err)
				}
				out.Changed = true
				out.Says = fmt.Sprintf("released; it was held by %s since %s: %s", r.heldBy, r.heldSince.UTC().Format(time.RFC3339), r.heldWhy)
				if strings.HasPrefix(r.heldWhy, holding+"restore: ") {
					// It may have committed a group offset and not looked again: see correct.
					out.Says += "; that command did not end: better run it again"
				}
			}
			done = append(done, out)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	return done, nil
}
