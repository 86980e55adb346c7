package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/ledger"
)

func newLedgerShow(g *globals) *cobra.Command {
	var partitions []int32
	var last int64
	var deeds bool
	cmd := &cobra.Command{
		Use: "show", Short: "Print the ledger's entries",
		Long: `Prints the entries in the order of their chains: all of them with --json, one JSON document a line, which doc/verify_ledger.py verifies; without, the last
ones of each partition.`,
		Example: "  exactly ledger show --partition 3 --last 20\n  exactly ledger show --deeds\n  exactly ledger show --json | python3 doc/verify_ledger.py",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return atLedger(cmd, g, func(ctx context.Context, _ *config.Config, conn *pgx.Conn, s ledger.Stream) error {
				if !cmd.Flags().Changed("last") && (g.json || deeds) {
					last = 0
				}
				rows, err := conn.Query(ctx, `SELECT `+ledger.Columns+` FROM offset_ledger l WHERE source_id = $1 AND ($2::int[] IS NULL OR source_partition = ANY($2))
					AND ($3 = 0 OR seq > (SELECT ledger_seq FROM partition_offsets p WHERE p.source_id = l.source_id AND p.source_partition = l.source_partition) - $3)
					AND (NOT $4 OR kind <> 'capture') ORDER BY source_partition, seq`, s.SourceID, partitions, last, deeds)
				if err != nil {
					return fmt.Errorf("read the ledger: %w", err)
				}
				return g.printLedger(cmd.OutOrStdout(), rows)
			})
		},
	}
	cmd.Flags().Int32SliceVar(&partitions, "partition", nil, "source partition `P` (repeatable); default: all")
	cmd.Flags().Int64Var(&last, "last", 10, "the last `N` entries of each partition; 0: all, the default with --json and --deeds")
	cmd.Flags().BoolVar(&deeds, "deeds", false, "only what people and first starts did, no captures")
	return cmd
}

func (g *globals) printLedger(out io.Writer, rows pgx.Rows) error {
	enc := json.NewEncoder(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if !g.json {
		fmt.Fprintln(w, "partition\tseq\tkind\toffsets\trecords\tevents\tdead\tworker\twho\tat\thash\twhy")
	}
	defer rows.Close()
	for rows.Next() { // a ledger is longer than memory
		var e ledger.Entry
		hash, err := e.Scan(rows)
		if err != nil {
			return fmt.Errorf("read the ledger: %w", err)
		}
		if g.json {
			err = enc.Encode(e.Line(hash, time.Time{}))
		} else {
			_, err = fmt.Fprintf(w, "%d\t%d\t%s\t[%d,%d)\t%d\t%d\t%d\t%s\t%s\t%s\t%.12s…\t%s\n", e.Partition, e.Seq, e.Kind, e.From, e.To, e.Records, e.Events,
				e.DeadLetters, textOrDash(e.Worker), textOrDash(e.Who), ledger.HeadTime(e.CommittedAt), ledger.Hex(hash).String(), e.Why)
		}
		if err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read the ledger: %w", err)
	}
	return w.Flush()
}
