package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/internal/offsets"
	"github.com/exactly-pipeline/exactly/internal/progress"
	"github.com/exactly-pipeline/exactly/internal/telemetry"
)

func newOffsets(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "offsets", Short: "Look at the offsets of each source partition, and mend them",
		Long: `Shows where each source partition is, in Postgres and in Kafka, and does what a worker leaves to a person. Workers may run meanwhile.
Every deed names who did it and why.`,
		Example: "  exactly offsets show\n  exactly offsets restore --partition 3 --reason 'reset by mistake'",
	}
	cmd.AddCommand(newOffsetsShow(g), newOffsetsRestore(g), newOffsetsAcceptLoss(g), newOffsetsReset(g), newOffsetsHold(g), newOffsetsRelease(g))
	return cmd
}

// which are the flags that say which partitions a deed is for, and why.
type which struct {
	partitions []int32
	all        bool
	reason     string
	dryRun     bool
}

func (w *which) flags(cmd *cobra.Command, all, reason string) {
	cmd.Flags().Int32SliceVar(&w.partitions, "partition", nil, "source partition `P` (repeatable)")
	if all != "" {
		cmd.Flags().BoolVar(&w.all, "all", false, all)
	}
	cmd.Flags().StringVar(&w.reason, "reason", "", reason)
	cmd.Flags().BoolVar(&w.dryRun, "dry-run", false, "only say what would be done")
	byFlag(cmd)
}

func (w *which) check(needsReason bool) error {
	switch {
	case w.all && len(w.partitions) > 0:
		return usageError(errors.New("--all and --partition exclude each other"))
	case !w.all && len(w.partitions) == 0:
		return usageError(errors.New("--partition: must say which source partition"))
	case needsReason && strings.TrimSpace(w.reason) == "":
		return usageError(errors.New("--reason: must say why; it is kept"))
	}
	slices.Sort(w.partitions)
	w.partitions = slices.Compact(w.partitions)
	if len(w.partitions) > 0 && w.partitions[0] < 0 {
		return usageError(fmt.Errorf("--partition %d: must be 0 or more", w.partitions[0]))
	}
	return nil
}

// byFlag says whom the ledger is to name.
func byFlag(cmd *cobra.Command) {
	cmd.Flags().String("by", "", "who does this, for the ledger; default: the user and the host")
}

// atDesk opens the desk for f.
func atDesk(cmd *cobra.Command, g *globals, f func(context.Context, *offsets.Desk) error) error {
	c, err := g.load()
	if err != nil {
		return err
	}
	log, err := telemetry.NewLogger(c.Log)
	if err != nil {
		return usageError(err)
	}
	defer log.Sync() //nolint:errcheck // a terminal cannot be synced
	d, err := offsets.Open(cmd.Context(), &c, log)
	if err != nil {
		return err
	}
	defer d.Close()
	d.Build = version
	if by := cmd.Flags().Lookup("by"); by != nil && strings.TrimSpace(by.Value.String()) != "" {
		d.By = by.Value.String()
	}
	return f(cmd.Context(), d)
}

func newOffsetsRestore(g *globals) *cobra.Command {
	var w which
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "restore", Short: "Set a group offset that was reset or lost to what the output topics say",
		Long: `For a group offset that was set by somebody else, or went back, or is gone. Holds the partition, reads the output topics to their end for the
last event of it, commits the group offset behind that event, notes it in the ledger, and lets the partition go: a running worker takes it up
by itself within seconds. Reads both output topics whole. Killed half way, the partition stays held (offsets show): run it again.`,
		Example: "  exactly offsets restore --partition 3 --reason 'reset by mistake' --dry-run\n  exactly offsets restore --all --reason 'group was deleted'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := w.check(true); err != nil {
				return err
			}
			return atDesk(cmd, g, func(ctx context.Context, d *offsets.Desk) error {
				done, err := d.Restore(ctx, offsets.Restore{Partitions: w.partitions, Reason: w.reason, DryRun: w.dryRun, Timeout: timeout})
				return g.told(cmd, done, err)
			})
		},
	}
	w.flags(cmd, "every partition whose group offset a worker refuses, or that has none", "why, for the ledger")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up reading the output topics after this; 0: never")
	return cmd
}

func newOffsetsAcceptLoss(g *globals) *cobra.Command {
	return newSkip(g, &cobra.Command{
		Use: "accept-loss", Short: "Go on without records that expired before they were read",
		Long: `Only where the input's log starts above the stored offset: moves the stored offset up to --to, at most to where the log starts, and notes the
loss in the ledger. What was captured before is still published.`,
		Example: "  exactly offsets accept-loss --partition 3 --to 120000 --reason 'down for nine days'",
	}, func(ctx context.Context, d *offsets.Desk, o offsets.AcceptLoss) (offsets.Done, error) {
		return d.AcceptLoss(ctx, o)
	})
}

func newOffsetsReset(g *globals) *cobra.Command {
	return newSkip(g, &cobra.Command{
		Use: "reset", Short: "Go on further up, without records that are still there",
		Long: `Moves the stored offset up to --to, at most to the input's stable end, and notes in the ledger which records were skipped, by whom and why:
they will be in neither sink, and the audit says so for ever. What was captured before is still published. Never back: what was captured
would be in both sinks twice.`,
		Example: "  exactly offsets reset --partition 3 --to 120000 --reason 'a test run of the shop'",
	}, func(ctx context.Context, d *offsets.Desk, o offsets.AcceptLoss) (offsets.Done, error) {
		return d.Reset(ctx, offsets.Reset(o))
	})
}

// newSkip is a command that moves a stored offset up.
func newSkip(g *globals, cmd *cobra.Command, do func(context.Context, *offsets.Desk, offsets.AcceptLoss) (offsets.Done, error)) *cobra.Command {
	var o offsets.AcceptLoss
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for _, n := range []string{"partition", "to"} {
			if !cmd.Flags().Changed(n) {
				return usageError(fmt.Errorf("--%s is missing", n))
			}
		}
		if o.Partition < 0 || o.To < 0 {
			return usageError(errors.New("--partition and --to must be 0 or more"))
		}
		if strings.TrimSpace(o.Reason) == "" {
			return usageError(errors.New("--reason: must say why; it is kept"))
		}
		return atDesk(cmd, g, func(ctx context.Context, d *offsets.Desk) error {
			done, err := do(ctx, d, o)
			if err != nil {
				return g.told(cmd, nil, err)
			}
			return g.told(cmd, []offsets.Done{done}, nil)
		})
	}
	cmd.Flags().Int32Var(&o.Partition, "partition", 0, "source partition `P`")
	cmd.Flags().Int64Var(&o.To, "to", 0, "the offset to go on at")
	cmd.Flags().StringVar(&o.Reason, "reason", "", "why, for the ledger")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only say what would be done")
	byFlag(cmd)
	return cmd
}

func newOffsetsHold(g *globals) *cobra.Command {
	var w which
	cmd := &cobra.Command{
		Use: "hold", Short: "Keep workers off a partition until it is released",
		Long:    "A running owner loses the partition at its next capture, a new one waits. What was captured before may still be published.",
		Example: "  exactly offsets hold --partition 3 --reason 'looking into it'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := w.check(true); err != nil {
				return err
			}
			return atDesk(cmd, g, func(ctx context.Context, d *offsets.Desk) error {
				hold := d.Hold
				if w.dryRun {
					hold = d.HoldDry
				}
				done, err := hold(ctx, w.partitions, w.reason)
				return g.told(cmd, done, err)
			})
		},
	}
	w.flags(cmd, "", "why, for the ledger and whoever wonders")
	return cmd
}

func newOffsetsRelease(g *globals) *cobra.Command {
	var w which
	cmd := &cobra.Command{
		Use: "release", Short: "End a hold, whoever placed it", Example: "  exactly offsets release --partition 3\n  exactly offsets release --all",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := w.check(false); err != nil {
				return err
			}
			return atDesk(cmd, g, func(ctx context.Context, d *offsets.Desk) error {
				release := d.Release
				if w.dryRun {
					release = d.ReleaseDry
				}
				done, err := release(ctx, w.partitions, w.reason)
				return g.told(cmd, done, err)
			})
		},
	}
	w.flags(cmd, "every partition that is held", "why, for the ledger")
	return cmd
}

// told prints what was done, a line a partition, also when it failed half way.
func (g *globals) told(cmd *cobra.Command, done []offsets.Done, err error) error {
	progress.Of(cmd.Context()).Clear()
	var perr error
	switch {
	case g.json:
		if done == nil {
			done = []offsets.Done{}
		}
		perr = printJSON(cmd.OutOrStdout(), map[string]any{"partitions": done})
	case len(done) == 0 && err == nil:
		_, perr = fmt.Fprintln(cmd.OutOrStdout(), "nothing to do")
	}
	if !g.json {
		for _, d := range done {
			if _, e := fmt.Fprintln(cmd.OutOrStdout(), d); e != nil {
				perr = e
			}
		}
	}
	if err != nil {
		return err
	}
	return perr
}

func newOffsetsShow(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show where each source partition is, in Postgres and in Kafka",
		Long: `Shows a line a source partition. stored: the next offset to capture (Postgres). group: the group's committed offset, how far Kafka has it. gap: stored -
group, what Kafka is still owed. end: the last stable offset of the input. lag: end - stored. owner: the worker that last closed the gap;
assigned: the member that the group has assigned the partition now.`,
		Example: "  exactly offsets show\n  exactly offsets show --json | jq '.partitions[] | select(.lag_records > 0)'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return atDesk(cmd, g, func(ctx context.Context, d *offsets.Desk) error {
				rep, err := d.Show(ctx)
				if err != nil {
					return err
				}
				if g.json {
					return printJSON(cmd.OutOrStdout(), rep)
				}
				return printOffsets(cmd.OutOrStdout(), rep)
			})
		},
	}
}

func printOffsets(out io.Writer, r *offsets.Report) error {
	fmt.Fprintf(out, "cluster %s, group %s, source %d: topic %s, id %s\n", r.ClusterID, r.Group, r.SourceID, r.Topic, r.TopicID)
	for _, n := range r.Notes {
		fmt.Fprintln(out, "note:", n)
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "partition\tstored\tgroup\tgap\tend\tlag\towner\tassigned\tepoch\tleader epoch\tstate\tnotes")
	for i := range r.Partitions {
		p := &r.Partitions[i]
		group := orDash(p.Group)
		switch {
		case p.Pending:
			group = "pending"
		case p.Group != nil && !p.Ours:
			group += "*"
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Partition, orDash(p.Stored), group, orDash(p.Gap), orDash(p.StableEnd), orDash(p.Lag),
			textOrDash(p.Owner), textOrDash(p.Assigned), orDash(p.Epoch), orDash(p.LeaderEpoch), textOrDash(p.State), strings.Join(p.Notes, "; "))
	}
	return w.Flush()
}

func orDash[N int32 | int64](n *N) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprint(*n)
}

func textOrDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
