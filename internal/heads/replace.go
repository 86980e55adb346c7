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
		chain, begun, err := readChain(ctx, db, s, p)
		if err != nil {
			return err
		}
		by, err := replacement(p, all[p], chain, begun)
		if err != nil {
			return err
		}
		if by != nil {
			out = append(out, *by)
		}
	}
	return Post(ctx, c, out)
}

// begun is an entry that a rebuilt chain may go on with, as a head.
type begun struct {
	ledger.Head
	captured int64 // seq of the last capture before it
}

// replacement is the head that replaces those of hs which the chain has no more; nil: there are none.
func replacement(p int32, hs []ledger.Head, chain *ledger.Chain, entries []begun) (*ledger.Head, error) {
	first, last := -1, -1 // of those lost, by seq
	replacing, left := ledger.Replacing(hs)
	for i := range hs {
		for len(left) > 0 && left[0] <= i {
			replacing, left = replacing[1:], left[1:]
		}
		if chain.Explains(&hs[i], replacing) {
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
		return nil, nil
	}
	begins := hs[first].Seq
	var by *ledger.Head // the latest entry of a heal at or below the first that is lost
	for i := range entries {
		// A start that stands where the first was lost is one that a heal made. Any other has been there all the time: all behind it would be blessed.
		if e := &entries[i]; e.Seq <= begins && (e.Kind != ledger.Start || e.Seq == begins) {
			by = &e.Head
		}
	}
	replaced := &ledger.Replaced{Seq: hs[last].Seq, Hash: hs[last].Hash}
	for i := range entries { // deeds came between the restore and the heal, a hold perhaps; captures would be another chain's
		if e := &entries[i]; by == nil && e.Kind == ledger.Heal && e.captured < begins {
			by, replaced.From = &e.Head, begins
		}
	}
	if by == nil {
		return nil, fmt.Errorf("partition %d: the ledger has no entry of a heal for the heads in Kafka from seq %d on: exactly ledger verify", p, begins)
	}
	by.Replaces = replaced
	return by, nil
}

// readChain reads a partition's chain, and the heads of those entries that a rebuilt chain may go on with.
func readChain(ctx context.Context, db Querier, s ledger.Stream, partition int32) (*ledger.Chain, []begun, error) {
	var entries []begun
	captured := int64(0)
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
				entries = append(entries, begun{s.Head(&e, hash), captured})
			}
			if e.Kind == ledger.Capture {
				captured = e.Seq
			}
		}
		return struct{}{}, err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the ledger: %w", err)
	}
	return chain, entries, nil
}
