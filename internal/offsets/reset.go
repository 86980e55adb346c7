package offsets

import (
	"context"
	"fmt"

	"github.com/exactly-pipeline/exactly/ledger"
)

// Reset says from where a partition is to go on, by a person's choice.
type Reset struct {
	Partition int32
	To        int64 // the new stored offset: above the one there is, at most the input's stable end
	Reason    string
	DryRun    bool
}

// Reset moves the stored offset up over records that nobody wants read, and notes it in the ledger: see skip. Never back: what was captured
// would be captured a second time, and be in both sinks twice.
func (d *Desk) Reset(ctx context.Context, o Reset) (Done, error) {
	out := Done{Partition: o.Partition, DryRun: o.DryRun}
	what := func(err error) error { return fmt.Errorf("reset: %w", err) }
	if err := d.meet(ctx); err != nil {
		return out, what(err)
	}
	ends, err := d.listed(ctx, "stable end", d.adm.Kadm().ListCommittedOffsets)
	if err != nil {
		return out, what(err)
	}
	end, there := ends[o.Partition]
	if !there {
		return out, what(refuse(o.Partition, "topic %s has no such partition", d.cfg.Topics.Input))
	}
	out, err = d.skip(ctx, skipping{
		partition: o.Partition, to: o.To, reason: o.Reason, dryRun: o.DryRun, kind: ledger.Reset, command: "reset", verb: "skipped",
		why:     fmt.Sprintf("%s (the input's stable end was %d)", o.Reason, end),
		allowed: func(r *row) error { return resetAllowed(r, end, o.To) },
		more:    func() string { return "" },
	})
	if err != nil {
		return out, what(err)
	}
	return out, nil
}

func resetAllowed(r *row, end, to int64) error {
	switch {
	case to == r.next:
		return refuse(r.partition, "the stored offset is %d already", to)
	case to < r.next:
		return refuse(r.partition, "--to %d is below the stored offset %d: the records in [%d,%d) were captured, and read again they would be in both sinks twice", to, r.next, to, r.next)
	case to > end:
		return refuse(r.partition, "--to %d is above %d, the input's stable end: what is not written yet can't be skipped", to, end)
	}
	return nil
}
