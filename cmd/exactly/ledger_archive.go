package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/internal/progress"
	"github.com/exactly-pipeline/exactly/internal/retention"
	"github.com/exactly-pipeline/exactly/internal/telemetry"
	"github.com/exactly-pipeline/exactly/ledger"
)

func newLedgerArchive(g *globals) *cobra.Command {
	o := retention.Archive{Build: version}
	var before string
	cmd := &cobra.Command{
		Use: "archive", Short: "Move closed months of the ledger to files",
		Long: `Moves each chain's entries of before this month (or an earlier time) to a file, as far as the outbox has none of their messages any more: heals need the
others. The file has a JSON document a line, as ledger show --json prints them. An entry of kind archive vouches for it, and the chain goes on from there:
exactly audit --archive reads the files, doc/verify_ledger.py too. Keep them: nothing else has these entries then. Needs a member of exactly_setup.`,
		Example: "  exactly ledger archive --out /srv/ledger --reason 'end of the month' --dry-run\n  cat /srv/ledger/*.jsonl <(exactly ledger show --json) | python3 doc/verify_ledger.py",
		RunE: func(cmd *cobra.Command, _ []string) error {
			now := time.Now().UTC()
			month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
			o.Before = month
			if before != "" {
				t, err := timeOrAgo("before", before, now)
				if err != nil {
					return err
				}
				if t.After(month) {
					return usageError(fmt.Errorf("--before %s: this month is not closed: %s is the latest", before, month.Format(time.RFC3339)))
				}
				o.Before = t
			}
			if strings.TrimSpace(o.Reason) == "" && !o.DryRun {
				return usageError(errors.New("--reason: must say why, for the ledger"))
			}
			if i, err := os.Stat(o.Dir); err != nil || !i.IsDir() {
				return usageError(fmt.Errorf("--out %q: must be a folder that is there", o.Dir))
			}
			c, err := g.load()
			if err != nil {
				return err
			}
			if o.Log, err = telemetry.NewLogger(c.Log); err != nil {
				return usageError(err)
			}
			defer o.Log.Sync() //nolint:errcheck // a terminal cannot be synced
			done, err := retention.ArchiveLedger(cmd.Context(), &c, o)
			progress.Of(cmd.Context()).Clear()
			return errors.Join(err, g.toldArchive(cmd.OutOrStdout(), done, o.DryRun))
		},
	}
	cmd.Flags().StringVar(&o.Dir, "out", "", "`FOLDER` for the files")
	cmd.Flags().StringVar(&before, "before", "", "only entries of before this `TIME`: RFC 3339, or how long ago; default: the beginning of this month, UTC")
	cmd.Flags().StringVar(&o.Reason, "reason", "", "why, for the ledger")
	cmd.Flags().BoolVar(&o.DryRun, "dry-run", false, "only say what would be moved")
	cmd.Flags().StringVar(&o.By, "by", ledger.Whoami(), "who does it, for the ledger")
	return cmd
}

func (g *globals) toldArchive(out io.Writer, done []ledger.Archival, dryRun bool) error {
	if g.json {
		return printJSON(out, done)
	}
	verb := "moved to"
	if dryRun {
		verb = "would be moved to"
	}
	if len(done) == 0 {
		_, err := fmt.Fprintln(out, "nothing to archive")
		return err
	}
	var err error
	for i := range done {
		a := &done[i]
		_, err = fmt.Fprintf(out, "partition %d: entries [%d,%d], offsets below %d, %s %s\n", a.Partition, a.FromSeq, a.ToSeq, a.ToOffset, verb, a.File)
	}
	return err
}
