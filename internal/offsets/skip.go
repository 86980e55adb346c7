package offsets

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/txn"
)

// skipping is a deed that moves the stored offset up, over records that are not to be read any more.
type skipping struct {
	partition     int32
	to            int64
	reason, why   string // as it was given; with what was seen, for the ledger
	dryRun        bool
	kind          ledger.Kind
	command, verb string
	allowed       func(*row) error // whether it may, by the row: asked again under its lock
	more          func() string    // what else a person should know
}

// skip moves the stored offset up and notes it in the ledger, in one transaction; then the group offset, if it stood at the stored offset.
//
// Where a gap was left, the group offset stays: the next owner's drain publishes the gap and takes the group offset along, in its own
// transaction. It can't be asked for first: a worker refuses the partition for its expired records before it drains.
//
// The stored offset goes first, so that the group offset is never above it. Killed in between: a hold, ended by Release, and a group offset
// that the next owner takes along likewise.
func (d *Desk) skip(ctx context.Context, o skipping) (Done, error) {
	out := Done{Partition: o.partition, DryRun: o.dryRun, Before: new(int64), After: &o.to}
	rows, err := d.rows(ctx, d.db, []int32{o.partition}, false)
	if err != nil {
		return out, err
	}
	r := rows[0]
	*out.Before = r.next
	if err := o.allowed(r); err != nil {
		return out, err
	}
	if !o.dryRun {
		if err := d.fence(ctx, rows); err != nil {
			return out, err
		}
	}
	group, err := d.stable(ctx, rows, !o.dryRun)
	if err != nil {
		return out, err
	}
	g := group[o.partition]
	along := g.Has && g.Ours && g.Offset == r.next
	records := fmt.Sprintf("%d records, offsets [%d,%d), ", o.to-r.next, r.next, o.to)
	if o.dryRun {
		out.Says = "dry run: " + records + "would be " + o.verb + o.aftermath(r, g)
		return out, nil
	}
	if r, err = d.moveUp(ctx, &o, r.next, along); err != nil {
		return out, err
	}
	out.Changed = true
	out.Says = records + o.verb + o.aftermath(rows[0], g)
	if along {
		out.Says += d.takeAlong(ctx, r)
	}
	if r.keep {
		out.Says += "; still held"
	}
	out.Says += d.publishHeads(ctx, r.partition)
	return out, nil
}

// aftermath is what else a person should know of the partition.
func (o *skipping) aftermath(r *row, g admin.GroupOffset) string {
	s := fmt.Sprintf("; stored offset %d", o.to) + o.more()
	switch {
	case g.Has && !g.Ours:
		s += fmt.Sprintf("; the group offset %d is not ours: next, exactly offsets restore --partition %d", g.Offset, r.partition)
	case g.Has && g.Offset < r.next:
		s += fmt.Sprintf("; the gap [%d,%d) is left to the next owner to publish", g.Offset, r.next)
	case !g.Has && r.captured:
		s += "; there is no group offset: the next owner finds it in the output topics"
	}
	return s
}

// moveUp moves the stored offset. Where the group offset is to go along, the partition stays held until it has.
func (d *Desk) moveUp(ctx context.Context, o *skipping, next int64, along bool) (r *row, err error) {
	err = pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		rows, err := d.rows(ctx, tx, []int32{o.partition}, true)
		if err != nil {
			return err
		}
		r = rows[0]
		if r.next != next {
			return refuse(r.partition, "the stored offset moved meanwhile, from %d to %d: look again, or hold the partition first", next, r.next)
		}
		if err := o.allowed(r); err != nil {
			return err
		}
		if err := d.seize(ctx, tx, r, o.command, o.reason); err != nil {
			return err
		}
		if err := d.append(ctx, tx, r, ledger.Deed{Kind: o.kind, From: next, To: o.to, Records: o.to - next, Why: o.why}); err != nil {
			return err
		}
		// The leader epoch belongs to the record before the old offset: kept, it would make the new one look like a diverged log (KIP-320).
		// No rows come of it, so that counts which reach the old offset (counted_to) reach the new one.
		_, err = tx.Exec(ctx, `UPDATE partition_offsets SET next_offset = $3, leader_epoch = -1,
			counted_from = CASE WHEN counted_to = next_offset THEN least(counted_from, $3) ELSE counted_from END, counted_to = CASE WHEN counted_to = next_offset THEN $3 ELSE counted_to END
			WHERE source_id = $1 AND source_partition = $2`, d.source.ID, r.partition, o.to)
		if err != nil || along || r.keep {
			return err
		}
		_, err = tx.Exec(ctx, openSQL, d.source.ID, r.partition)
		return err
	})
	if r != nil {
		r.next = o.to
	}
	return r, err
}

// takeAlong commits the group offset and ends the hold. All that was captured is published, so no worker's publish can come in between; and
// if the commit fails the next owner takes the group offset along, so the hold ends either way.
func (d *Desk) takeAlong(ctx context.Context, r *row) (says string) {
	says = "; so is the group offset"
	err := d.commit(ctx, []*row{r}, map[int32]admin.Outside{r.partition: {Offset: r.next, Metadata: txn.Metadata(r.epoch, r.seq)}})
	if err != nil {
		says = fmt.Sprintf("; the group offset is left to the next owner (%v)", err)
	}
	if r.keep {
		return says
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), kafkaTimeout)
	defer cancel()
	err = d.underHold(ctx, []*row{r}, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, openSQL, d.source.ID, r.partition)
		return err
	})
	if err != nil {
		says += fmt.Sprintf("; still held (%v): exactly offsets release --partition %d", err, r.partition)
	}
	return says
}
