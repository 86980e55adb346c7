package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/internal/demo"
)

func newDemo(g *globals) *cobra.Command {
	var o demo.Options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See it all in a minute: two workers, one killed in mid-transaction, and the audit's verdict",
		Long: `Starts a Kafka broker, a schema registry and Postgres of its own, sends clicks through two workers, kills one of them in the middle
of a transaction, starts it again, and has the audit prove that nothing was lost, doubled or altered. Nothing else has to be installed
or running, nothing is left behind. It takes about a minute and uses no settings: those of other stacks do not matter to it.

Exit codes: 0 the audit found nothing, 3 it found something, 1 the demo could not be run.`,
		Example: "  exactly demo\n  exactly demo --keep ./demo        keep the data and the workers' logs\n  exactly demo --damage             delete a row before the audit, and see it found",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if g.configFile != "" || len(g.set) > 0 {
				return usageError(errors.New("demo: it runs on a stack of its own, with settings of its own: --config and --set do not apply"))
			}
			if o.Clicks < demo.MinClicks {
				return usageError(fmt.Errorf("demo: --clicks %d: must be %d or more", o.Clicks, demo.MinClicks))
			}
			o.Out = cmd.OutOrStdout()
			if g.json {
				o.Out = cmd.ErrOrStderr()
			}
			res, err := demo.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			if g.json {
				if err := printJSON(cmd.OutOrStdout(), res); err != nil {
					return err
				}
			}
			if !res.Clean {
				return found()
			}
			return nil
		},
	}
	cmd.Flags().Int64Var(&o.Clicks, "clicks", demo.DefaultClicks, "how many clicks to generate")
	cmd.Flags().StringVar(&o.Keep, "keep", "", "keep everything in `DIR`, which must be new or empty")
	cmd.Flags().BoolVar(&o.Damage, "damage", false, "delete one row just before the audit, to see it found")
	return cmd
}
