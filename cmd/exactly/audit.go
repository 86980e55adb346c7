package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/internal/connect"
)

func newAudit(g *globals) *cobra.Command {
	var settled bool
	var partition int32
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Prove that every click is in Postgres once and in Kafka once, and that both say the same",
		Long: `audit reads the input topic, the tables, the ledger and the output topics, and holds them against each other by source partition
and offset. It can run while workers run: what is captured and not yet published is owed, which is no error.

With --settled nothing may be owed or waiting: for when all the work is done.
Exit codes: 0 nothing found, 3 something found, 1 it could not be done.`,
		Example: "  exactly audit\n  exactly audit --settled --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.load()
			if err != nil {
				return err
			}
			o, err := connect.Audit(&c)
			if err != nil {
				return err
			}
			o.Settled = settled
			if cmd.Flags().Changed("partition") {
				if partition < 0 {
					return usageError(fmt.Errorf("--partition %d: must be 0 or more", partition))
				}
				o.Partition = &partition
			}
			rep, err := audit.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			if g.json {
				err = printJSON(cmd.OutOrStdout(), rep)
			} else {
				err = printAudit(cmd.OutOrStdout(), rep)
			}
			if err != nil {
				return err
			}
			if !rep.Clean() {
				return found()
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&settled, "settled", false, "nothing may be owed or waiting")
	cmd.Flags().Int32Var(&partition, "partition", 0, "audit source partition `P` only")
	return cmd
}

// printAudit writes the report for people: what was read, partition by partition; what was found; the verdict last.
func printAudit(out io.Writer, r *audit.Report) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "partition\tfrom\tstored\tgroup\tclicks in\trows\tevents\tdead letters\tdlq\toutbox\towed\twaiting\tfindings\t")
	for _, p := range r.Partitions {
		fmt.Fprintf(w, "%d\t%d\t%d\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\n", p.Partition, p.VouchedFrom, p.Stored, groupOffset(p.Group), p.Input, p.Rows, p.Events,
			p.DeadLetters, p.DLQ, p.Outbox, p.Owed, p.Waiting, p.Findings)
	}
	t := r.Totals
	fmt.Fprintf(w, "all\t\t\t\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t\t\n", t.Input, t.Rows, t.Events, t.DeadLetters, t.DLQ, t.Outbox, t.Owed, t.Waiting)
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, c := range audit.Classes {
		var where []string
		for _, s := range audit.Sinks {
			if n := r.BySink[c][s]; n > 0 {
				where = append(where, fmt.Sprintf("%s %d", s, n))
			}
		}
		if c == audit.Gap && !r.Settled {
			continue
		}
		fmt.Fprintf(w, "%s\t%d\t%s\n", strings.ReplaceAll(string(c), "_", " "), r.Found[c], strings.Join(where, ", "))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, n := range r.Notes {
		fmt.Fprintln(out, "note:", n)
	}
	if len(r.Findings) > 0 {
		fmt.Fprintln(out)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(out, "%s %s %s: %s\n", f.Class, f.Sink, f.Coordinate(), f.Says)
	}
	var all int64
	for _, n := range r.Found {
		all += n
	}
	if more := all - int64(len(r.Findings)); more > 0 {
		fmt.Fprintf(out, "and %d more\n", more)
	}
	_, err := fmt.Fprintf(out, "\nverdict: %s\n", r.Verdict)
	return err
}

func groupOffset(at int64) string {
	if at < 0 {
		return "none"
	}
	return fmt.Sprint(at)
}
