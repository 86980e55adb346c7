package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// factKey names the ledger entry that vouches for a fact.
type factKey struct {
	partition int32
	seq       int64
}

// vouched keeps what an entry of a prune or an erasure says of the table that lists what was taken.
func (r *run) vouched(e *entry) {
	if e.kind == "erase" || e.kind == "prune" || e.kind == "archive" {
		r.facts[factKey{e.partition, e.seq}] = bytes.Clone(e.digest)
	}
}

// fact says whether the ledger vouches for what a table lists, and says so if not: such a list would excuse what is missing.
func (r *run) fact(table string, partition int32, seq int64, digest [sha256.Size]byte) bool {
	k := factKey{partition, seq}
	said, ok := r.facts[k]
	delete(r.facts, k)
	if !ok || !bytes.Equal(said, digest[:]) {
		r.ledgerFound(LedgerDigest, partition, seq, "table %s lists something for seq %d that this entry does not vouch for", table, seq)
		return false
	}
	return true
}

// readFacts reads what was taken out of the tables on purpose: by prune and by erase.
func (r *run) readFacts(ctx context.Context) error {
	if err := r.readErasures(ctx); err != nil {
		return err
	}
	if err := r.readPruned(ctx); err != nil {
		return err
	}
	r.checkArchives()
	for k := range r.facts {
		r.ledgerFound(LedgerDigest, k.partition, k.seq, "seq %d is about what was taken out of the tables, but what is not listed any more", k.seq)
	}
	return nil
}

// readCoarse reads up to where the outbox is said to be pruned, before the ledger can vouch for it. It decides in how much detail entries are laid out, and
// no more: what the ledger does not vouch for is a finding when it is read.
func (r *run) readCoarse(ctx context.Context) error {
	rows, _ := r.pg.main.Query(ctx, `SELECT source_partition, max(to_offset) FROM pruned WHERE source_id = $1 AND table_name = 'outbox' AND ledger_seq IS NOT NULL GROUP BY 1`, r.source)
	var n int32
	var to int64
	_, err := pgx.ForEachRow(rows, []any{&n, &to}, func() error {
		if r.wants(n) {
			r.part(n).coarseTo = to
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("pruned: %w", err)
	}
	return nil
}

// checked says whether an earlier round has checked the entry, or it is in an archive that is not read. What it took is below what is looked at.
func (r *run) checked(partition int32, seq int64) bool {
	at, _ := r.earlier.part(partition)
	a, _ := r.base(partition)
	return seq <= max(at.seq, a.toSeq)
}

func (r *run) readErasures(ctx context.Context) error {
	rows, _ := r.pg.main.Query(ctx, `SELECT source_partition, ledger_seq, offsets FROM erasures WHERE source_id = $1`, r.source)
	var n int32
	var seq int64
	var offsets []int64
	_, err := pgx.ForEachRow(rows, []any{&n, &seq, &offsets}, func() error {
		if !r.wants(n) || r.checked(n, seq) {
			return nil
		}
		b := make([]byte, 0, 24+8*len(offsets))
		for _, v := range append([]int64{int64(r.source), int64(n), int64(len(offsets))}, offsets...) {
			b = binary.BigEndian.AppendUint64(b, uint64(v))
		}
		if !r.fact("erasures", n, seq, sha256.Sum256(b)) {
			return nil
		}
		p := r.part(n)
		for _, o := range offsets {
			if !p.erased.has(o) {
				p.erased.set(o)
				p.stat.Erased++
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("erasures: %w", err)
	}
	return nil
}

func (r *run) readPruned(ctx context.Context) error {
	rows, _ := r.pg.main.Query(ctx, `SELECT table_name, time_partition, source_partition, from_offset, to_offset, records, coalesce(published::text, ''), ledger_seq
		FROM pruned WHERE source_id = $1 AND ledger_seq IS NOT NULL`, r.source)
	var table, child, published string
	var n int32
	var from, to, records, seq int64
	_, err := pgx.ForEachRow(rows, []any{&table, &child, &n, &from, &to, &records, &published, &seq}, func() error {
		if !r.wants(n) || r.checked(n, seq) || !r.fact("pruned", n, seq, sha256.Sum256(fmt.Appendf(nil, "%s %d %d %d %d %d %s", child, r.source, n, from, to, records, published))) {
			return nil
		}
		p := r.part(n)
		if e := p.pruned.of(table); e != nil && from < to {
			e.add(from, to)
		}
		p.from = max(p.from, p.prunedRows())
		return nil
	})
	if err != nil {
		return fmt.Errorf("pruned: %w", err)
	}
	return nil
}

// blank encodes a record that was erased: of its sides no more is asked than that each is there once.
func (s *scratch) blank(offset int64) *scratch {
	s.begin()
	s.int(offset)
	s.str("erased")
	return s
}

// of is the encoding just made, unless the record was erased. Kafka's topics and the input may still have the bytes, until retention
// removes them; Postgres must not.
func (s *scratch) of(p *partition, offset int64, made *scratch) *scratch {
	if p.erased.has(offset) {
		return s.blank(offset)
	}
	return made
}

// isBlank says whether nothing of a person is left in the row.
func (f *rowFields) isBlank() bool {
	return f.user == 0 && len(f.session) == 0 && len(f.url) == 0 && string(f.country) == "ZZ"
}

// isBlank says whether nothing of a person is left in the message.
func (v *outboxRow) isBlank() bool {
	return v.erased && v.Key == nil && v.Value == nil && v.salt == nil && len(v.Headers) == 0
}
