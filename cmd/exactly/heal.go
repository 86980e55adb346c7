package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/heal"
	"github.com/exactly-pipeline/exactly/internal/pipeline"
	"github.com/exactly-pipeline/exactly/internal/progress"
	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/internal/telemetry"
)

func newHeal(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "heal", Short: "Rebuild what a store has lost from the other one",
		Long: `For a store that went back in time or lost what it had: Postgres is rebuilt from the output topics, the output topics from the outbox. The same
bytes, each once; partitions are held meanwhile, workers may run. Every heal is in the ledger, with who and why. Killed half way, the
partitions stay held (offsets show): run it again, and it goes on where it stopped. What replays of dead letters made (dlq replay) is healed after the
input's, as far as that could be.`,
		Example: "  exactly heal postgres --dry-run\n  exactly heal postgres --reason 'restored the backup of Monday'",
	}
	cmd.AddCommand(newHealPostgres(g), newHealKafka(g))
	return cmd
}

func newHealKafka(g *globals) *cobra.Command {
	var f healFlags
	cmd := &cobra.Command{
		Use: "kafka", Short: "Publish again what the output topics have lost, from the outbox",
		Long: `For output topics that were deleted, recreated, or have lost a part: makes those that are gone, reads what is there, and publishes again what is in the
outbox, was published once, and is not found: the same bytes, in the same order. Notes the topics' new ids, so that workers go on. What the
outbox no longer keeps is said. What Kafka was still owed is left to the next owner, and so are group offsets that are gone.`,
		Example: "  exactly heal kafka --dry-run\n  exactly heal kafka --reason 'enriched_clicks was deleted by mistake'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd, g, func(ctx context.Context, c *config.Config, log *zap.Logger) ([]heal.Done, error) {
				return heal.Kafka(ctx, c, f.Options, log)
			})
		},
	}
	f.flags(cmd)
	cmd.Flags().BoolVar(&f.OutOfOrder, "out-of-order", false, "publish also events that come behind later ones of the same source partition")
	return cmd
}

// healFlags are those that every heal has.
type healFlags struct{ heal.Options }

func (f *healFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.Reason, "reason", "", "why, for the ledger")
	cmd.Flags().BoolVar(&f.DryRun, "dry-run", false, "only say what would be done")
}

func (f *healFlags) check() error {
	if !f.DryRun && strings.TrimSpace(f.Reason) == "" {
		return usageError(errors.New("--reason: must say why; it is kept"))
	}
	for _, p := range f.Partitions {
		if p < 0 {
			return usageError(fmt.Errorf("--partition %d: must be 0 or more", p))
		}
	}
	slices.Sort(f.Partitions)
	f.Partitions = slices.Compact(f.Partitions)
	f.Build = version
	return nil
}

// run does a heal and prints what was done, a line a partition, also when it failed half way.
func (f *healFlags) run(cmd *cobra.Command, g *globals, do func(context.Context, *config.Config, *zap.Logger) ([]heal.Done, error)) error {
	if err := f.check(); err != nil {
		return err
	}
	c, err := g.load()
	if err != nil {
		return err
	}
	log, err := telemetry.NewLogger(c.Log)
	if err != nil {
		return usageError(err)
	}
	defer log.Sync() //nolint:errcheck // a terminal cannot be synced
	done, err := do(cmd.Context(), &c, log)
	progress.Of(cmd.Context()).Clear()
	if g.json {
		return errors.Join(err, printJSON(cmd.OutOrStdout(), map[string]any{"partitions": append([]heal.Done{}, done...)}))
	}
	for _, d := range done {
		fmt.Fprintln(cmd.OutOrStdout(), d)
	}
	if len(done) == 0 && err == nil {
		fmt.Fprintln(cmd.OutOrStdout(), "nothing to heal")
	}
	return err
}

func newHealPostgres(g *globals) *cobra.Command {
	var f healFlags
	cmd := &cobra.Command{
		Use: "postgres", Short: "Rebuild in Postgres what it has lost, from the output topics",
		Long: `For a database restored from a backup, or a replica promoted without the last commits: the group offset is above the stored offset, and workers refuse
the partition. Rows, outbox, dead letters and ledger are rebuilt from the events of what is missing, the same bytes, the country and the geo
database's build as they were; the stored offset is moved to where Kafka is. Reads both output topics whole.`,
		Example: "  exactly heal postgres --dry-run\n  exactly heal postgres --reason 'restored the backup of Monday'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd, g, func(ctx context.Context, c *config.Config, log *zap.Logger) ([]heal.Done, error) {
				reg, err := provision.Registry(c)
				if err != nil {
					return nil, err
				}
				defer reg.Close()
				return heal.Postgres(ctx, c, pipeline.Rebuilder(c, reg), f.Options, log)
			})
		},
	}
	f.flags(cmd)
	cmd.Flags().Int32SliceVar(&f.Partitions, "partition", nil, "source partition `P` (repeatable); without it, all that need it")
	return cmd
}
