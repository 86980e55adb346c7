package offsets

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/ledger"
)

// Hold keeps workers off partitions until Release: a running owner loses them at its next capture, a new one waits. What was captured
// before is still published by an owner that is at it. No offset moves, but that a partition stood still, and by whom, is in the ledger.
func (d *Desk) Hold(ctx context.Context, ids []int32, reason string) ([]Done, error) {
	return d.hold(ctx, ids, reason, false)
}

// HoldDry says what Hold would do.
func (d *Desk) HoldDry(ctx context.Context, ids []int32, reason string) ([]Done, error) {
	return d.hold(ctx, ids, reason, true)
}

func (d *Desk) hold(ctx context.Context, ids []int32, reason string, dry bool) ([]Done, error) {
	var done []Done
	err := pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		rows, err := d.rows(ctx, tx, ids, !dry)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if r.held {
				return refuse(r.partition, "is held already, by %s since %s: %s", r.heldBy, r.heldSince.UTC().Format(time.RFC3339), r.heldWhy)
			}
			if dry {
				done = append(done, Done{Partition: r.partition, DryRun: true, Before: &r.next, After: &r.next, Says: fmt.Sprintf("would be held at stored offset %d, or where its owner is by then", r.next)})
				continue
			}
			if err := d.seize(ctx, tx, r, "hold", reason); err != nil {
				return err
			}
			if err := d.append(ctx, tx, r, ledger.Deed{Kind: ledger.Hold, Why: reason}); err != nil {
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
	d.headsOf(ctx, done)
	return done, nil
}

// Release ends holds, whoever placed them: also those of a command that was killed. All that are held if ids is nil. The
// reason may be empty.
func (d *Desk) Release(ctx context.Context, ids []int32, reason string) ([]Done, error) {
	return d.release(ctx, ids, reason, false)
}

// ReleaseDry says what Release would do.
func (d *Desk) ReleaseDry(ctx context.Context, ids []int32, reason string) ([]Done, error) {
	return d.release(ctx, ids, reason, true)
}

func (d *Desk) release(ctx context.Context, ids []int32, reason string, dry bool) ([]Done, error) {
	var done []Done
	err := pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		rows, err := d.rows(ctx, tx, ids, !dry)
		if err != nil {
			return err
		}
		for _, r := range rows {
			if ids == nil && !r.held {
				continue
			}
			out := Done{Partition: r.partition, DryRun: dry, Before: &r.next, After: &r.next, Says: "was not held"}
			if r.held && dry {
				out.Says = fmt.Sprintf("would be released; it is held by %s since %s: %s", r.heldBy, r.heldSince.UTC().Format(time.RFC3339), r.heldWhy)
			} else if r.held {
				if _, err := tx.Exec(ctx, openSQL, d.source.ID, r.partition); err != nil {
					return fmt.Errorf("partition %d: %w", r.partition, err)
				}
				why := fmt.Sprintf("held by %s since %s: %s", r.heldBy, r.heldSince.UTC().Format(time.RFC3339), r.heldWhy)
				if reason != "" {
					why = fmt.Sprintf("%s (%s)", reason, why)
				}
				if err := d.append(ctx, tx, r, ledger.Deed{Kind: ledger.Release, Why: why}); err != nil {
					return err
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
	d.headsOf(ctx, done)
	return done, nil
}

// headsOf publishes the heads of what was done.
func (d *Desk) headsOf(ctx context.Context, done []Done) {
	var ids []int32
	for i := range done {
		if done[i].Changed {
			ids = append(ids, done[i].Partition)
		}
	}
	if says := d.publishHeads(ctx, ids...); says != "" {
		for i := range done {
			done[i].Says += says
		}
	}
}
