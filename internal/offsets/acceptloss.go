package offsets

import (
	"context"
	"fmt"

	"github.com/exactly-pipeline/exactly/ledger"
)

// AcceptLoss says which partition is to go on without records that expired before they were read.
type AcceptLoss struct {
	Partition int32
	To        int64 // the new stored offset; not above the start of the input's log: nothing that is still there is given up
	Reason    string
	DryRun    bool
}

// AcceptLoss moves the stored offset over records that are no longer in the input, and notes it in the ledger: see skip.
func (d *Desk) AcceptLoss(ctx context.Context, o AcceptLoss) (Done, error) {
	out := Done{Partition: o.Partition, DryRun: o.DryRun}
	what := func(err error) error { return fmt.Errorf("accept loss: %w", err) }
	if err := d.meet(ctx); err != nil {
		return out, what(err)
	}
	start, err := d.logStart(ctx, o.Partition)
	if err != nil {
		return out, what(err)
	}
	out, err = d.skip(ctx, skipping{
		partition: o.Partition, to: o.To, reason: o.Reason, dryRun: o.DryRun, kind: ledger.AcceptLoss, command: "accept-loss", verb: "accepted as lost",
		why:     fmt.Sprintf("%s (the input's log started at %d)", o.Reason, start),
		allowed: func(r *row) error { return lossAllowed(r, start, o.To) },
		more: func() string {
			if o.To < start {
				return fmt.Sprintf("; %d more expired unread, up to %d", start-o.To, start)
			}
			return ""
		},
	})
	if err != nil {
		return out, what(err)
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
