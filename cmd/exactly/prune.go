package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/internal/progress"
	"github.com/exactly-pipeline/exactly/internal/retention"
	"github.com/exactly-pipeline/exactly/internal/telemetry"
	"github.com/exactly-pipeline/exactly/ledger"
)

func newPrune(g *globals) *cobra.Command {
	o := retention.Options{By: ledger.Whoami(), Why: "exactly prune", Build: version}
	cmd := &cobra.Command{
		Use: "prune", Short: "Drop whole days of outbox, rows and dead letters that are published and past their retention",
		Long: `Drops the time partitions whose retention is over (retention.outbox, retention.rows, retention.dead_letters; 0s: never) if everything in them is
below the group offset, as Kafka says at that moment. What has to stay is said with the reason, as are rows in a default partition. Workers go on
meanwhile; a capture waits a tenth of a second at most. Needs a member of exactly_setup. What was dropped is noted in the table pruned.`,
		Example: "  exactly prune --dry-run\n  exactly prune --set retention.outbox=168h",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Wait < 0 {
				return usageError(errors.New("--wait must be 0 or more"))
			}
			c, err := g.load()
			if err != nil {
				return err
			}
			if o.Log, err = telemetry.NewLogger(c.Log); err != nil {
				return usageError(err)
			}
			defer o.Log.Sync() //nolint:errcheck // a terminal cannot be synced
			r, err := retention.Prune(cmd.Context(), &c, o)
			progress.Of(cmd.Context()).Clear()
			if r != nil {
				err = errors.Join(err, g.toldPrune(cmd.OutOrStdout(), r))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only say what would be dropped")
	cmd.Flags().DurationVar(&o.Wait, "wait", time.Minute, "how long to try for the locks, a tenth of a second each time, before giving up")
	cmd.Flags().StringVar(&o.By, "by", o.By, "who does it, for the record")
	return cmd
}

func (g *globals) toldPrune(out io.Writer, r *retention.Report) error {
	if g.json {
		return printJSON(out, r)
	}
	if len(r.Partitions) == 0 {
		_, err := fmt.Fprintln(out, "nothing to prune: no time partition's retention is over")
		return err
	}
	for i := range r.Partitions {
		if _, err := fmt.Fprintln(out, &r.Partitions[i]); err != nil {
			return err
		}
	}
	return nil
}
