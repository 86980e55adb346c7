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

func newErase(g *globals) *cobra.Command {
	o := retention.Erase{Build: version}
	var keys []string
	cmd := &cobra.Command{
		Use: "erase", Short: "Blank one user's data in Postgres, and note it in the ledger",
		Long: `Blanks what was captured of a user by now: of rows user, session, url, address and country, of outbox messages and dead letters key, value and
headers. Coordinates, times and salted hashes stay, so that the ledger still verifies; which coordinates is in the table erasures. What Kafka is
still owed is waited for. Workers go on meanwhile. What Kafka's topics hold of it stays until their retention is over. Needs a member of
exactly_setup. Reads every day there is: nothing is indexed by user.`,
		Example: "  exactly erase --user 42 --reason 'request 2026-117' --dry-run\n  exactly erase --again --reason 'restored from the backup of Monday'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Check(); err != nil {
				return usageError(err)
			}
			c, err := g.load()
			if err != nil {
				return err
			}
			if o.PublicKeys, err = publicKeys(&c, keys); err != nil {
				return usageError(err)
			}
			if o.Log, err = telemetry.NewLogger(c.Log); err != nil {
				return usageError(err)
			}
			defer o.Log.Sync() //nolint:errcheck // a terminal cannot be synced
			erase := retention.EraseUser
			if o.Again {
				erase = retention.EraseAgain
			}
			r, err := erase(cmd.Context(), &c, o)
			progress.Of(cmd.Context()).Clear()
			if r != nil {
				err = errors.Join(err, g.toldErasure(cmd.OutOrStdout(), r))
			}
			return err
		},
	}
	cmd.Flags().Int64Var(&o.User, "user", 0, "whose: the `ID` that clicks have")
	cmd.Flags().BoolVar(&o.Again, "again", false, "instead: blank what was erased before and is there again, after a restored backup")
	cmd.Flags().StringArrayVar(&keys, "public-key", nil, "with --again: `FILE` of a public key that erasures in Kafka are to be signed with (repeatable); default: that of the signing key in the settings")
	cmd.Flags().StringVar(&o.Reason, "reason", "", "why, for the ledger; it stays, so no name, please")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only say what would be blanked")
	cmd.Flags().DurationVar(&o.Wait, "wait", time.Minute, "how long to wait for what Kafka is still owed")
	cmd.Flags().StringVar(&o.By, "by", ledger.Whoami(), "who does it, for the ledger")
	return cmd
}

func (g *globals) toldErasure(out io.Writer, r *retention.ErasureReport) error {
	if g.json {
		return printJSON(out, r)
	}
	verb := "erased: "
	if r.DryRun {
		verb = "would be erased: "
	}
	for i := range r.Partitions {
		fmt.Fprintln(out, verb+r.Partitions[i].String()) //nolint:errcheck // the last one tells
	}
	if len(r.Partitions) == 0 {
		fmt.Fprintln(out, "nothing to erase") //nolint:errcheck // likewise
	}
	var err error
	for _, n := range r.Notes {
		_, err = fmt.Fprintln(out, "note:", n)
	}
	return err
}
