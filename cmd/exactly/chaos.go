package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/internal/chaos"
	"github.com/exactly-pipeline/exactly/internal/failpoint"
)

func newChaos(g *globals) *cobra.Command {
	var o struct {
		understand              bool
		kills, zombies          int
		clicks                  int64
		pace, between, takeover time.Duration
		seed                    uint64
		out                     string
		mix, dryRun             bool
	}
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "Kills workers of its own on a staging deployment, at random, and proves that nothing came of it",
		Long: `chaos starts three workers of its own (chaos-a, chaos-b, chaos-z) with the settings given, kills two of them with SIGKILL again and again,
freezes the third for longer than its session and wakes it up, waits until all is processed, and audits. It writes chaos-report.html and
chaos-report.json. It strikes no process but those it has started; but they join the group and process its topics, and the clicks it
generates stay: it is for staging, never for production. Run setup first. Other producers must be silent at the end, or it never comes to one.

In a build with failpoints (go build -tags failpoints) workers die at every point of the protocol as well.
Exit codes: 0 all held, 3 something was found or a bar was missed, 1 it could not be done.`,
		Example: "  exactly chaos --i-understand --clicks 100000\n  exactly chaos --i-understand --kills 100 --zombies 20 --out ./report",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !o.understand && !o.dryRun {
				return usageError(errors.New("chaos: it starts workers in the group configured and kills them: for staging only. Say --i-understand if this is staging"))
			}
			if o.kills < 0 || o.zombies < 0 || o.kills+o.zombies == 0 || o.clicks < 0 {
				return usageError(fmt.Errorf("chaos: --kills %d --zombies %d --clicks %d: none may be below 0, and one of the first two above it", o.kills, o.zombies, o.clicks))
			}
			c, err := g.load()
			if err != nil {
				return err
			}
			exe, err := os.Executable()
			if err != nil {
				return fmt.Errorf("chaos: find this program to run it as a worker: %w", err)
			}
			if o.seed == 0 {
				o.seed = uint64(time.Now().UnixNano())
			}
			size := chaos.Size{Kills: o.kills, Zombies: o.zombies, Session: c.Kafka.SessionTimeout, Between: o.between, Anywhere: !failpoint.Enabled}
			if failpoint.Enabled && o.kills >= 2*len(failpoint.OfWorkers()) {
				size.Rounds = 1
			}
			if o.mix {
				size.Clients = []string{"confluent", "franz"}
			}
			schedule := chaos.Plan(chaos.NewRand(o.seed), size)
			if o.dryRun {
				return g.plannedFaults(cmd, o.seed, schedule)
			}
			if err := os.MkdirAll(filepath.Join(o.out, "logs"), 0o755); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if g.json {
				out = cmd.ErrOrStderr()
			}
			rep, err := chaos.Run(cmd.Context(), chaos.Options{
				Exe: exe, Env: c.Environ(), Dir: filepath.Join(o.out, "logs"), Seed: o.seed, Clicks: o.clicks, Pace: o.pace, Takeover: o.takeover,
				Schedule: schedule, What: "staging: " + c.Kafka.Brokers, Out: out,
				Versions: []chaos.Version{{Name: "exactly", Version: version}},
			})
			if rep != nil {
				files, werr := rep.Write(o.out)
				if err = errors.Join(err, werr); werr == nil {
					fmt.Fprintf(out, "\nreport: %s\n", files)
				}
			}
			if err != nil {
				return err
			}
			if g.json {
				if err := printJSON(cmd.OutOrStdout(), rep); err != nil {
					return err
				}
			}
			fmt.Fprintln(out, "verdict:", rep.Verdict)
			for _, w := range rep.Why {
				fmt.Fprintln(out, " ", w)
			}
			if rep.Verdict != chaos.Held {
				return found()
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.understand, "i-understand", false, "this is staging, and its workers may be killed")
	f.BoolVar(&o.dryRun, "dry-run", false, "only print the schedule")
	f.IntVar(&o.kills, "kills", 20, "workers killed")
	f.IntVar(&o.zombies, "zombies", 4, "workers frozen and woken up")
	f.Int64Var(&o.clicks, "clicks", 0, "clicks to generate meanwhile, more if the schedule takes longer than --pace; 0: somebody else sends them")
	f.DurationVar(&o.pace, "pace", 2*time.Minute, "time that so many clicks take; they go on at that rate while the schedule lasts")
	f.DurationVar(&o.between, "between", 2*time.Second, "mean time between two faults of a worker")
	f.DurationVar(&o.takeover, "takeover", 3*time.Second, "bar for takeovers at the 99th percentile, beside the session timeout")
	f.Uint64Var(&o.seed, "seed", 0, "of the schedule and the clicks; 0: by the clock")
	f.StringVar(&o.out, "out", "chaos", "folder for the report and the workers' logs")
	f.BoolVar(&o.mix, "both-clients", false, "mix both Kafka clients, by the seed")
	return cmd
}

// plannedFaults prints a schedule, and the seed that repeats it.
func (g *globals) plannedFaults(cmd *cobra.Command, seed uint64, schedule []chaos.Fault) error {
	if g.json {
		return printJSON(cmd.OutOrStdout(), map[string]any{"dry_run": true, "seed": seed, "schedule": schedule})
	}
	fmt.Fprintln(cmd.OutOrStdout(), "seed", seed)
	for i := range schedule {
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%3d  %s\n", i+1, schedule[i].Planned()); err != nil {
			return err
		}
	}
	return nil
}
