package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/internal/connect"
	"github.com/exactly-pipeline/exactly/internal/progress"
)

// auditFlags are what may be asked of an audit.
type auditFlags struct {
	settled, mark, quiet       bool
	follow                     bool
	every, whole               time.Duration
	partition                  int32
	since, until, html, anchor string
	publicKey, offset, archive string
}

func newAudit(g *globals) *cobra.Command {
	var f auditFlags
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Prove that every click is in Postgres once and in Kafka once, and that both say the same",
		Long: `audit reads the input topic, the tables, the ledger and the output topics, and holds them against each other by source partition
and offset. It can run while workers run: what is captured and not yet published is owed, which is no error.

With --settled nothing may be owed or waiting: for when all the work is done. --since and --until look at what was captured in a time
(RFC 3339, or how long ago: 36h). --follow goes on until SIGTERM: each round looks at what was not proven before, and metrics tell of it
on http.addr. --html writes a page fit to be filed, --anchor keeps the ledger's heads in a file and checks those that
are there, --mark notes in Postgres up to where everything is proven, --offset says where one record is.
Exit codes: 0 nothing found, 3 something found, 1 it could not be done.`,
		Example: "  exactly audit\n  exactly audit --settled --json\n  exactly audit --since 24h --html audit.html\n  exactly audit --offset user_clicks/3/1042\n  EXACTLY_HTTP_ADDR=127.0.0.1:8001 exactly audit --follow --mark",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load()
			if err != nil {
				return err
			}
			o, err := connect.Audit(&c)
			if err != nil {
				return err
			}
			if err := f.apply(cmd, &o); err != nil {
				return err
			}
			debug.SetMemoryLimit(audit.MemoryLimit)
			if f.offset != "" {
				return f.locate(cmd.Context(), cmd.OutOrStdout(), g.json, o)
			}
			if f.follow {
				return f.goOn(cmd, g.json, &c, o)
			}
			rep, err := audit.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			progress.Of(cmd.Context()).Clear()
			return f.tell(cmd.OutOrStdout(), g.json, rep)
		},
	}
	cmd.Flags().BoolVar(&f.settled, "settled", false, "nothing may be owed or waiting")
	cmd.Flags().Int32Var(&f.partition, "partition", 0, "audit source partition `P` only")
	cmd.Flags().StringVar(&f.since, "since", "", "only what was captured from this `TIME` on: RFC 3339, or how long ago (36h)")
	cmd.Flags().StringVar(&f.until, "until", "", "only what was captured before this `TIME`")
	cmd.Flags().StringVar(&f.html, "html", "", "write the report as a page into `FILE`, too")
	cmd.Flags().StringVar(&f.anchor, "anchor", "", "check the ledger's heads in `FILE`, and add those of now if the ledger is sound")
	cmd.Flags().StringVar(&f.archive, "archive", "", "read the ledger's archives in this `FOLDER`, too (exactly ledger archive)")
	cmd.Flags().StringVar(&f.publicKey, "public-key", "", "heads in Kafka must be signed: Ed25519 public key, PEM `FILE`")
	cmd.Flags().BoolVar(&f.mark, "mark", false, "note in Postgres up to where everything is proven, if it is")
	cmd.Flags().StringVar(&f.offset, "offset", "", "say where one record is, `TOPIC/PARTITION/OFFSET`")
	cmd.Flags().BoolVar(&f.follow, "follow", false, "audit again and again, each time what was not proven before, until SIGTERM")
	cmd.Flags().DurationVar(&f.every, "every", 30*time.Second, "with --follow: how long `D` from one round's end to the next; at least nine times what the last one took")
	cmd.Flags().DurationVar(&f.whole, "whole", 24*time.Hour, "with --follow: how often `D` everything is looked at again (0: only at first)")
	cmd.Flags().BoolVar(&f.quiet, "quiet", false, "no progress")
	return cmd
}

// apply makes the audit's options of what was asked.
func (f *auditFlags) apply(cmd *cobra.Command, o *audit.Options) (err error) {
	o.Settled, o.Mark, o.Anchor, o.Archive, o.Program = f.settled, f.mark, f.anchor, f.archive, version
	if cmd.Flags().Changed("partition") {
		if f.partition < 0 {
			return usageError(fmt.Errorf("--partition %d: must be 0 or more", f.partition))
		}
		o.Partition = &f.partition
	}
	if f.every <= 0 || f.whole < 0 {
		return usageError(fmt.Errorf("--every must be above 0, --whole not below"))
	}
	if f.follow && (f.settled || f.since != "" || f.until != "" || f.offset != "") {
		return usageError(fmt.Errorf("--follow goes with neither --settled, --since, --until nor --offset"))
	}
	now := time.Now()
	if o.Since, err = timeOrAgo("since", f.since, now); err != nil {
		return err
	}
	if o.Until, err = timeOrAgo("until", f.until, now); err != nil {
		return err
	}
	if !o.Since.IsZero() && !o.Until.IsZero() && !o.Since.Before(o.Until) {
		return usageError(fmt.Errorf("--since %s is not before --until %s", f.since, f.until))
	}
	if f.publicKey != "" {
		if o.PublicKey, err = audit.LoadPublicKey(f.publicKey); err != nil {
			return usageError(err)
		}
	}
	if !f.quiet {
		line := progress.Of(cmd.Context())
		o.Watch = func(p audit.Progress) { line.Share(p.Stage, p.Share, p.Left) }
	}
	return nil
}

// timeOrAgo reads RFC 3339, or a duration as so long ago.
func timeOrAgo(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(s); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, usageError(fmt.Errorf("--%s %q: must be a time like 2026-01-31T00:00:00Z, or how long ago, like 36h", flag, s))
	}
	return t, nil
}

// tell writes the report in the forms asked for.
func (f *auditFlags) tell(out io.Writer, asJSON bool, rep *audit.Report) (err error) {
	if asJSON {
		err = printJSON(out, rep)
	} else {
		err = printAudit(out, rep)
	}
	if err == nil && f.html != "" {
		err = writeHTML(f.html, rep)
	}
	if err != nil {
		return err
	}
	if !rep.Clean() {
		return found()
	}
	return nil
}

// writeHTML replaces the file as a whole or not at all.
func writeHTML(path string, rep *audit.Report) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".audit-*.html")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone, if all went well
	err = rep.WriteHTML(tmp)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Chmod(tmp.Name(), 0o644) //nolint:gosec // a report is to be read
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// locate says where one record is.
func (f *auditFlags) locate(ctx context.Context, out io.Writer, asJSON bool, o audit.Options) error {
	bad := usageError(fmt.Errorf("--offset %q: must be TOPIC/PARTITION/OFFSET, and the topic %s", f.offset, o.Input))
	rest, ok := strings.CutPrefix(f.offset, o.Input+"/")
	part, off, ok2 := strings.Cut(rest, "/")
	n, err := strconv.ParseInt(part, 10, 32)
	at, err2 := strconv.ParseInt(off, 10, 64)
	if !ok || !ok2 || err != nil || err2 != nil || n < 0 || at < 0 {
		return bad
	}
	l, err := audit.Locate(ctx, o, int32(n), at)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(out, l)
	}
	return printPlace(out, l)
}
