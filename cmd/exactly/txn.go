package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/telemetry"
	"github.com/exactly-pipeline/exactly/internal/transactions"
)

func newTxn(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use: "txn", Short: "List open Kafka transactions and what they hold back, and end one by hand",
		Long: `Looks at Kafka transactions from outside. An open one keeps read_committed readers from everything behind its first record in a partition.
A worker's is over in milliseconds, and the broker ends what a dead one left; what lingers all the same can be ended here.`,
		Example: "  exactly txn list\n  exactly txn abort exactly-worker-1",
	}
	cmd.AddCommand(newTxnList(g), newTxnAbort(g))
	return cmd
}

// atTransactions opens the desk for f.
func atTransactions(cmd *cobra.Command, g *globals, f func(context.Context, *transactions.Desk) error) error {
	c, err := g.load()
	if err != nil {
		return err
	}
	log, err := telemetry.NewLogger(c.Log)
	if err != nil {
		return usageError(err)
	}
	defer log.Sync() //nolint:errcheck // a terminal cannot be synced
	a, err := admin.New(&c, log)
	if err != nil {
		return err
	}
	defer a.Close()
	return f(cmd.Context(), transactions.New(&c, a))
}

func newTxnList(g *globals) *cobra.Command {
	var o transactions.Options
	cmd := &cobra.Command{
		Use: "list", Short: "List open transactions, oldest first",
		Long: `Lists the open transactions of this group (those whose transactional id begins with its name) and any other that is open in its topics;
with --all those of the whole cluster. A line a partition. first: the transaction's first offset there. stable: how far read_committed readers get.
held: records from first to the end, which they don't get while it is open; an asterisk where it is this one that holds the stable end.

Hanging is what a partition has open and no coordinator knows of: no timeout ends it. It changes nothing; while workers run, young ones are normal.`,
		Example: "  exactly txn list --older-than 30s\n  exactly txn list --all --json | jq '.transactions[] | select(.overdue or .state == \"Hanging\")'",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return atTransactions(cmd, g, func(ctx context.Context, d *transactions.Desk) error {
				r, err := d.List(ctx, o)
				if err != nil {
					return err
				}
				if g.json {
					return printJSON(cmd.OutOrStdout(), r)
				}
				return printTransactions(cmd.OutOrStdout(), r)
			})
		},
	}
	cmd.Flags().BoolVar(&o.All, "all", false, "of the whole cluster, not only this group's")
	cmd.Flags().DurationVar(&o.OlderThan, "older-than", 0, "leave out what is younger")
	return cmd
}

func printTransactions(out io.Writer, r *transactions.Report) error {
	for _, n := range r.Notes {
		fmt.Fprintln(out, "note:", n)
	}
	if len(r.Transactions) == 0 {
		_, err := fmt.Fprintln(out, "no open transactions")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "transactional id\tstate\tproducer/epoch\tage\ttimeout\tpartition\tfirst\tstable\tend\theld")
	for i := range r.Transactions {
		t := &r.Transactions[i]
		state := t.State
		if t.Overdue {
			state += " (overdue)"
		}
		if t.AheadMs != nil { // of no age, however long it has been open
			state += " (begun " + milliseconds(t.AheadMs) + " in the future: its coordinator's clock was ahead, its timeout comes that much later)"
		}
		head := fmt.Sprintf("%s\t%s\t%d/%d\t%s\t%s", textOrDash(t.ID), state, t.ProducerID, t.ProducerEpoch, milliseconds(t.AgeMs), milliseconds(t.TimeoutMs))
		if len(t.Partitions) == 0 {
			fmt.Fprintf(w, "%s\t-\t-\t-\t-\t-\n", head)
		}
		for _, p := range t.Partitions {
			held := orDash(p.Held)
			if p.Holds {
				held += "*"
			}
			fmt.Fprintf(w, "%s\t%s/%d\t%s\t%s\t%s\t%s\n", head, p.Topic, p.Partition, orDash(p.First), orDash(p.StableEnd), orDash(p.End), held)
			head = "\t\t\t\t"
		}
	}
	return w.Flush()
}

func milliseconds(ms *int64) string {
	if ms == nil {
		return "-"
	}
	return (time.Duration(*ms) * time.Millisecond).String()
}

func newTxnAbort(g *globals) *cobra.Command {
	t := transactions.Target{ProducerID: -1}
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use: "abort [TRANSACTIONAL-ID]", Short: "End an open transaction: it is aborted, never committed",
		Long: `Says what it would do, asks, and aborts one open transaction: by its transactional id, or, where it hangs, by topic and partition (and producer, if
several hang there). A worker whose transaction is aborted publishes the same again from what Postgres holds: nothing is lost, nothing comes twice.`,
		Example: "  exactly txn abort exactly-worker-1\n  exactly txn abort --topic enriched_clicks --partition 3 --yes",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				t.ID = args[0]
			}
			if (t.ID == "") == (t.Topic == "") || t.Topic != "" && !cmd.Flags().Changed("partition") || t.ID != "" && (cmd.Flags().Changed("partition") || cmd.Flags().Changed("producer")) {
				return usageError(errors.New("txn abort: name a transactional id, or --topic and --partition of a hanging transaction"))
			}
			return atTransactions(cmd, g, func(ctx context.Context, d *transactions.Desk) error {
				p, err := d.Plan(ctx, t)
				if err != nil {
					return err
				}
				for _, line := range p.Says {
					fmt.Fprintln(cmd.ErrOrStderr(), "-", line)
				}
				if dryRun {
					if g.json {
						return printJSON(cmd.OutOrStdout(), map[string]any{"dry_run": true, "would": p.Says})
					}
					_, err = fmt.Fprintln(cmd.OutOrStdout(), "nothing was done")
					return err
				}
				if !yes && !confirmed(cmd, "Abort it? [y/N] ") {
					return errors.New("not confirmed: nothing was done")
				}
				done, err := d.Abort(ctx, p)
				if err != nil {
					return err
				}
				if g.json {
					return printJSON(cmd.OutOrStdout(), done)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", p.Target, done.Says)
				return err
			})
		},
	}
	cmd.Flags().StringVar(&t.Topic, "topic", "", "`TOPIC` that the hanging transaction is in")
	cmd.Flags().Int32Var(&t.Partition, "partition", 0, "partition `P` of it")
	cmd.Flags().Int64Var(&t.ProducerID, "producer", -1, "`ID` of its producer, if several hang there")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be done, and don't ask")
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask")
	return cmd
}

// confirmed asks on standard error and reads one line of standard input; its end is a no.
func confirmed(cmd *cobra.Command, question string) bool {
	fmt.Fprint(cmd.ErrOrStderr(), question)
	line, _ := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	line = strings.ToLower(strings.TrimSpace(line))
	return line == "y" || line == "yes"
}
