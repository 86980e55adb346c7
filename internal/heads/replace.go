package heads

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/ledger"
)

// Replace is for chains that a heal has rebuilt: their heads in Kafka from the first that the ledger has no more are replaced by the entry of the
// heal that the chain goes on with, which says so. Partitions of which no head is lost it leaves alone.
func Replace(ctx context.Context, c *config.Config, db Querier, s ledger.Stream, partitions []int32) error {
	if c.Ledger.HeadsTopic == "" {
		return nil
	}
	all, _, err := Read(ctx, c, s)
	if err != nil {
		return err
	}
	var out []ledger.Head
	for _, p := range partitions {
		hs := all[p]
		chain, begun, err := readChain(ctx, db, s, p)
		if err != nil {
			return err
		}
		first, last := -1, -1 // of those lost, by seq
		for i := range hs {
			if chain.Explains(&hs[i], hs[i+1:]) {
				continue
			}
			if first < 0 || hs[i].Seq < hs[first].Seq {
				first = i
			}
			if last < 0 || hs[i].Seq >= hs[last].Seq {
				last = i
			}
		}
		if first < 0 {
			continue
		}
		var by *ledger.Head // the latest entry of a heal at or below the first that is lost
		for i := range begun {
			if begun[i].Seq <= hs[first].Seq {
				by = &begun[i]
			}
		}
		if by == nil {
			return fmt.Errorf("partition %d: the ledger has no entry of a heal for the heads in Kafka from seq %d on: exactly ledger verify", p, hs[first].Seq)
		}
		by.Replaces = &ledger.Replaced{Seq: hs[last].Seq, Hash: hs[last].Hash}
		out = append(out, *by)
	}
	return Post(ctx, c, out)
}

// readChain reads a partition's chain, and the heads of those entries that a rebuilt chain may go on with.
func readChain(ctx context.Context, db Querier, s ledger.Stream, partition int32) (*ledger.Chain, []ledger.Head, error) {
	var begun []ledger.Head
	archived, err := ledger.Archived(ctx, db, s.SourceID)
	if err != nil {
		return nil, nil, err
	}
	chain := begin(archived, partition)
	rows, err := db.Query(ctx, `SELECT `+ledger.Columns+` FROM offset_ledger WHERE source_id = $1 AND source_partition = $2 ORDER BY seq`, s.SourceID, partition)
	if err != nil {
		return nil, nil, fmt.Errorf("read the ledger: %w", err)
	}
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (struct{}, error) {
		var e ledger.Entry
		hash, err := e.Scan(row)
		if err == nil {
			chain.Add(&e, hash)
			if ledger.MayReplace(e.Kind) {
				begun = append(begun, s.Head(&e, hash))
			}
		}
		return struct{}{}, err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the ledger: %w", err)
	}
	return chain, begun, nil
}
