package heal

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/heads"
	"github.com/exactly-pipeline/exactly/ledger"
)

// readTold reads once what the topic of heads tells of the chains.
func (h *postgres) readTold(ctx context.Context) error {
	if h.told != nil {
		return nil
	}
	var keys []ed25519.PublicKey
	signer, err := ledger.LoadSigner(h.cfg.Ledger.SigningKeyFile)
	if err != nil {
		return fmt.Errorf("ledger.signing_key_file: %w", err)
	}
	if h.cfg.Ledger.SigningKeyFile != "" {
		keys = append(keys, signer.Public())
	}
	src := h.desk.Source()
	h.told, err = heads.ReadTold(ctx, &h.cfg, src.Stream(), keys)
	return err
}

// newestSeqs are the newest ledger entries of the partitions.
func (h *postgres) newestSeqs(ctx context.Context) (map[int32]int64, error) {
	rows, err := h.desk.DB().Query(ctx, `SELECT source_partition, ledger_seq FROM partition_offsets WHERE source_id = $1`, h.desk.Source().ID)
	if err != nil {
		return nil, fmt.Errorf("read stored offsets: %w", err)
	}
	out := map[int32]int64{}
	var id int32
	var seq int64
	_, err = pgx.ForEachRow(rows, []any{&id, &seq}, func() error { out[id] = seq; return nil })
	return out, err
}

// skipped are the deeds that the backup lacks and Kafka knows whole: each skips records of which there is no event. What contradicts that, or another
// deed, is left out: then the events are missing, and the partition is refused.
func (h *postgres) skipped(p *part) (out []ledger.Entry) {
	t := h.told[p.id]
	if t == nil {
		return nil
	}
	all := slices.Clone(t.Skips)
	slices.SortStableFunc(all, func(a, b ledger.Entry) int { return cmp.Compare(a.From, b.From) })
	end := p.next
	for i := range all {
		e := &all[i]
		if e.From < end || e.To <= e.From || e.To > p.to || p.anyEvent(e.From, e.To) {
			continue
		}
		out, end = append(out, *e), e.To
	}
	return out
}

func (p *part) anyEvent(from, to int64) bool {
	for o := from; o < to; o++ {
		if p.index.get(o) != 0 {
			return true
		}
	}
	return false
}

// skip says whether a deed skipped the record.
func (p *part) skip(offset int64) bool {
	i, found := slices.BinarySearchFunc(p.skips, offset, func(e ledger.Entry, at int64) int { return cmp.Compare(e.From, at) })
	return found || i > 0 && offset < p.skips[i-1].To
}

// upToSkip is to, or where the next deed begins.
func (p *part) upToSkip(from, to int64) int64 {
	for i := range p.skips {
		if at := p.skips[i].From; at >= from {
			return min(to, at)
		}
	}
	return to
}

// skipAhead does the deeds again that begin at the stored offset, and returns the stored offset.
func (h *postgres) skipAhead(ctx context.Context, p *part) (int64, error) {
	for i := range p.skips {
		e := &p.skips[i]
		if e.From != p.held.Next() {
			continue
		}
		err := p.held.Advance(ctx, e.To, func(tx pgx.Tx) error {
			// No rows come of it: counts that reach the old offset reach the new one.
			_, err := tx.Exec(ctx, `UPDATE partition_offsets SET
				counted_from = CASE WHEN counted_to = next_offset THEN least(counted_from, $3) ELSE counted_from END, counted_to = CASE WHEN counted_to = next_offset THEN $3 ELSE counted_to END
				WHERE source_id = $1 AND source_partition = $2`, h.desk.Source().ID, p.id, e.To)
			if err != nil {
				return err
			}
			return p.held.Append(ctx, tx, ledger.Deed{Kind: e.Kind, From: e.From, To: e.To, Records: e.Records,
				Why: fmt.Sprintf("%s (heal: done again as by %s before, seq %d: %s)", h.o.Reason, e.Who, e.Seq, e.Why)})
		})
		if err != nil {
			return 0, fmt.Errorf("%s [%d,%d) of partition %d again: %w", e.Kind, e.From, e.To, p.id, err)
		}
		p.redone++
		h.log.Info("done again", zap.String("deed", string(e.Kind)), zap.Int32("partition", p.id), zap.Int64("from", e.From), zap.Int64("to", e.To))
	}
	return p.held.Next(), nil
}

// noteDeeds appends an entry to the chains that had lost deeds alone: it is what their heads in Kafka are replaced by.
func (h *postgres) noteDeeds(ctx context.Context) error {
	for _, p := range h.sorted() {
		if p.held == nil || !p.deeds || p.held.Next() != p.before {
			continue
		}
		err := p.held.Do(ctx, func(tx pgx.Tx) error {
			return p.held.Append(ctx, tx, ledger.Deed{Kind: ledger.Heal,
				Why: fmt.Sprintf("%s (the ledger ended at seq %d, Kafka has heads up to seq %d: deeds are lost, nothing that was captured)", h.o.Reason, p.seq, h.told[p.id].Seq)})
		})
		if err != nil {
			return fmt.Errorf("note that partition %d had lost deeds: %w", p.id, err)
		}
	}
	return nil
}
