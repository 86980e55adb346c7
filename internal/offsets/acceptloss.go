package offsets

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/txn"
)

// AcceptLoss says which partition is to go on without records that expired before they were read.
type AcceptLoss struct {
	Partition int32
	To        int64 // the new stored offset; not above the start of the input's log: nothing that is still there is given up
	Reason    string
	DryRun    bool
}

// AcceptLoss moves the stored offset over records that are no longer in the input, and notes it in the ledger, in one transaction; then
// the group offset, if it stood at the stored offset.
//
// Where a gap was left, the group offset stays: the next owner's drain publishes the gap and takes the group offset along, in its own
// transaction. It can't be asked for first: a worker refuses the partition for its expired records before it drains.
//
// The stored offset goes first, so that the group offset is never above it. Killed in between: a hold, ended by Release, and a group offset
// that the next owner takes along likewise.
func (d *Desk) AcceptLoss(ctx context.Context, o AcceptLoss) (Done, error) {
	out := Done{Partition: o.Partition, DryRun: o.DryRun, Before: new(int64), After: &o.To}
	what := func(err error) error { return fmt.Errorf("accept loss: %w", err) }
	if err := d.meet(ctx); err != nil {
		return out, what(err)
	}
	start, err := d.logStart(ctx, o.Partition)
	if err != nil {
		return out, what(err)
	}
	rows, err := d.rows(ctx, d.db, []int32{o.Partition}, false)
	if err != nil {
		return out, what(err)
	}
	r := rows[0]
	*out.Before = r.next
	if err := lossAllowed(r, start, o.To); err != nil {
		return out, what(err)
	}
	if !o.DryRun {
		if err := d.fence(ctx, rows); err != nil {
			return out, what(err)
		}
	}
	group, err := d.stable(ctx, rows, !o.DryRun)
	if err != nil {
		return out, what(err)
	}
	g := group[o.Partition]
	along := g.Has && g.Ours && g.Offset == r.next
	lost := fmt.Sprintf("%d records, offsets [%d,%d), ", o.To-r.next, r.next, o.To)
	if o.DryRun {
		out.Says = "dry run: " + lost + "would be accepted as lost" + aftermath(r, g, o.To, start)
		return out, nil
	}
	if r, err = d.skip(ctx, o, start, r.next, along); err != nil {
		return out, what(err)
	}
	out.Changed = true
	out.Says = lost + "accepted as lost" + aftermath(rows[0], g, o.To, start)
	if along {
		out.Says += d.takeAlong(ctx, r)
	}
	if r.keep {
		out.Says += "; still held"
	}
	return out, nil
}

func lossAllowed(r *row, start, to int64) error {
	switch {
	case r.next >= start && r.held:
		return refuse(r.partition, "no record expired unread: the stored offset is %d, the input's log starts at %d; it is held by %s: %s; to end that: "+
			"exactly offsets release --partition %d", r.next, start, r.heldBy, r.heldWhy, r.partition)
	case r.next >= start:
		return refuse(r.partition, "no record expired unread: the stored offset is %d, the input's log starts at %d", r.next, start)
	case to <= r.next:
		return refuse(r.partition, "--to %d is not above the stored offset %d", to, r.next)
	case to > start:
		return refuse(r.partition, "--to %d is above %d, where the input's log starts: the records in [%d,%d) are still there and can be read", to, start, start, to)
	}
	return nil
}

// aftermath is what else a person should know of the partition.
func aftermath(r *row, g admin.GroupOffset, to, start int64) string {
	s := fmt.Sprintf("; stored offset %d", to)
	if to < start {
		s += fmt.Sprintf("; %d more expired unread, up to %d", start-to, start)
	}
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

// skip moves the stored offset. Where the group offset is to go along, the partition stays held until it has.
func (d *Desk) skip(ctx context.Context, o AcceptLoss, start, next int64, along bool) (r *row, err error) {
	err = pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		rows, err := d.rows(ctx, tx, []int32{o.Partition}, true)
		if err != nil {
			return err
		}
		r = rows[0]
		if r.next != next {
			return refuse(r.partition, "the stored offset moved meanwhile, from %d to %d: look again", next, r.next)
		}
		if err := lossAllowed(r, start, o.To); err != nil {
			return err
		}
		if err := d.seize(ctx, tx, r, "accept-loss", o.Reason); err != nil {
			return err
		}
		why := fmt.Sprintf("%s (the input's log started at %d)", o.Reason, start)
		if err := d.append(ctx, tx, r, ledger.Deed{Kind: ledger.AcceptLoss, From: next, To: o.To, Records: o.To - next, Why: why}); err != nil {
			return err
		}
		// The leader epoch belongs to the record before the old offset: kept, it would make the new one look like a diverged log (KIP-320).
		_, err = tx.Exec(ctx, `UPDATE partition_offsets SET next_offset = $3, leader_epoch = -1 WHERE source_id = $1 AND source_partition = $2`, d.source.ID, r.partition, o.To)
		if err != nil || along || r.keep {
			return err
		}
		_, err = tx.Exec(ctx, openSQL, d.source.ID, r.partition)
		return err
	})
	if r != nil {
		r.next = o.To
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

func (d *Desk) logStart(ctx context.Context, partition int32) (int64, error) {
	topic := d.cfg.Topics.Input
	starts, err := d.adm.Kadm().ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return 0, fmt.Errorf("ask kafka for the start of %s: %w", topic, err)
	}
	s, ok := starts.Lookup(topic, partition)
	if !ok {
		return 0, refuse(partition, "topic %s has no such partition", topic)
	}
	return s.Offset, nil
}
