package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/console"
	"github.com/exactly-pipeline/exactly/internal/pipeline"
	"github.com/exactly-pipeline/exactly/internal/telemetry"
)

func newRun(g *globals) *cobra.Command {
	var autoHeal bool
	cmd := &cobra.Command{
		Use: "run", Short: "Run one worker of the consumer group",
		Long: `Runs one worker until SIGTERM: it then finishes what is captured, leaves the group for good (unless leave_on_stop is false)
and exits with 0. A second signal exits at once; so may anything else, at any time: the next owner goes on where it stopped.`,
		Example: "  EXACTLY_WORKER_ID=worker-1 exactly run",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load()
			if err != nil {
				return err
			}
			m := telemetry.NewMetrics(telemetry.Identity{
				Build: version, Worker: c.Worker.ID, Topic: c.Topics.Input, Group: c.Group, StuckAfter: c.Health.StuckAfter,
			})
			log, level, err := telemetry.NewLeveled(c.Log, m.Dropped)
			if err != nil {
				return usageError(err)
			}
			defer log.Sync() //nolint:errcheck // a terminal cannot be synced
			log = log.With(zap.String("worker", c.Worker.ID))
			for _, n := range config.UnknownEnv(os.Environ()) {
				log.Warn("this EXACTLY_ variable is no setting: misspelt?", zap.String("name", n))
			}
			c.AutoHeal = c.AutoHeal || autoHeal
			boundHeap(c.Kafka.Client)
			ctx := cmd.Context()
			if c.Console.Enabled && c.HTTP.Addr != "" {
				s, err := console.New(&c, console.Options{Build: version, Worker: true, Addr: c.HTTP.Addr, Log: log})
				if err != nil {
					return err
				}
				defer s.Close()
				m.Console(s)
			}
			if c.HTTP.Addr != "" {
				if err := m.Serve(ctx, c.HTTP.Addr); err != nil {
					return err
				}
			}
			if c.Debug.Addr != "" {
				if err := telemetry.ServeDebug(ctx, c.Debug.Addr, level, version, c.Redacted()); err != nil {
					return err
				}
			}
			go func() { // a stop must end, even if a broker does not answer: what is left is the next owner's
				<-ctx.Done()
				time.Sleep(c.StopTimeout + 1500*time.Millisecond)
				fmt.Fprintln(os.Stderr, "exactly: stop timeout: what is captured and not yet published is left to the next owner")
				os.Exit(0)
			}()
			return pipeline.Run(ctx, &c, version, m, log)
		},
	}
	cmd.Flags().BoolVar(&autoHeal, "auto-heal", false, "heal by itself what a store has lost (the setting auto_heal; see exactly heal)")
	return cmd
}

// boundHeap bounds garbage, within a limit: what a worker holds is bounded by batch.max_in_flight. librdkafka has tens of MiB beside Go's heap, and what it
// reads leaves a few hundred bytes a click that need no looking at; of franz-go's records there are more, with pointers in them, and half as many
// collections are worth the memory that librdkafka would have. GOGC and GOMEMLIMIT, where set, decide.
func boundHeap(client string) {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		percent := 100
		if client == "franz" {
			percent = 200
		}
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(160 << 20)
	}
}
