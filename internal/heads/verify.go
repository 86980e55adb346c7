package heads

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/progress"
	"github.com/exactly-pipeline/exactly/ledger"
)

// Report is what a verification found.
type Report struct {
	Partitions []Verified `json:"partitions"`
	Wrong      []string   `json:"wrong"`
}

// Verified is one partition's chain, and its heads in Kafka.
type Verified struct {
	Partition  int32      `json:"partition"`
	Entries    int64      `json:"entries"`
	FirstSeq   int64      `json:"first_seq"`
	Seq        int64      `json:"seq"`
	Hash       ledger.Hex `json:"hash"`
	Heads      int        `json:"heads"`
	Signed     int        `json:"signed_heads"`
	InKafka    int64      `json:"seq_in_kafka"`             // newest seq that a head vouches for; 0: none
	NotInKafka int64      `json:"entries_not_yet_in_kafka"` // behind it: no error, a head goes out with the next publish
}

// entries counts them, so that it can be told how far a verification is.
func entries(ctx context.Context, db Querier, s ledger.Stream, partitions []int32) (int64, error) {
	rows, err := db.Query(ctx, `SELECT count(*) FROM offset_ledger WHERE source_id = $1 AND ($2::int[] IS NULL OR source_partition = ANY($2))`, s.SourceID, partitions)
	var n int64
	if err == nil {
		n, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[int64])
	}
	if err != nil {
		return 0, fmt.Errorf("count the ledger's entries: %w", err)
	}
	return n, nil
}

// Verify recomputes the chains of a source, all or those of the partitions given, and holds them against the offsets rows and the heads in Kafka,
// with keys also against their signatures. An error means that it could not be done; what is wrong is in the report.
func Verify(ctx context.Context, c *config.Config, db Querier, s ledger.Stream, partitions []int32, keys []ed25519.PublicKey) (*Report, error) {
	// The heads first: an entry is committed before its head is published, so the ledger read later has all of them.
	var inKafka map[int32][]ledger.Head
	rep := &Report{Partitions: []Verified{}, Wrong: []string{}}
	if c.Ledger.HeadsTopic != "" {
		var damaged []Damaged
		var err error
		if inKafka, damaged, err = Read(ctx, c, s); err != nil {
			return nil, err
		}
		for _, d := range damaged {
			rep.Wrong = append(rep.Wrong, fmt.Sprintf("%s/%d@%d: %s", c.Ledger.HeadsTopic, d.Partition, d.Offset, d.Why))
		}
	}
	chains := map[int32]*ledger.Chain{}
	count := map[int32]int64{}
	vouched := map[int32]bool{}
	archived, err := ledger.Archived(ctx, db, s.SourceID)
	if err != nil {
		return nil, err
	}
	var n int64
	total, err := entries(ctx, db, s, partitions)
	if err != nil {
		return nil, err
	}
	rows, err := db.Query(ctx, `SELECT `+ledger.Columns+` FROM offset_ledger WHERE source_id = $1 AND ($2::int[] IS NULL OR source_partition = ANY($2))
		ORDER BY source_partition, seq`, s.SourceID, partitions)
	if err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	for rows.Next() {
		var e ledger.Entry
		hash, err := e.Scan(rows)
		if err != nil {
			rows.Close()
			return nil, fmt.Errorf("read the ledger: %w", err)
		}
		if chains[e.Partition] == nil {
			chains[e.Partition] = begin(archived, e.Partition)
		}
		if a, ok := archived[e.Partition]; ok && a.LedgerSeq == e.Seq {
			vouched[e.Partition] = e.Kind == ledger.Archive && bytes.Equal(e.Digest, a.Digest())
		}
		rep.Wrong = append(rep.Wrong, chains[e.Partition].Add(&e, hash)...)
		count[e.Partition]++
		n++
		progress.Of(ctx).At("recomputing the chains", n, total)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the ledger: %w", err)
	}
	for p, a := range archived {
		if !vouched[p] && (partitions == nil || slices.Contains(partitions, p)) {
			rep.Wrong = append(rep.Wrong, fmt.Sprintf("partition %d: ledger_archives says that the entries up to seq %d were archived, entry %d does not", p, a.ToSeq, a.LedgerSeq))
		}
	}
	for p := range inKafka {
		if chains[p] == nil && (partitions == nil || slices.Contains(partitions, p)) {
			chains[p] = &ledger.Chain{First: 1}
		}
	}
	for _, p := range slices.Sorted(maps.Keys(chains)) {
		ch := chains[p]
		rep.Wrong = append(rep.Wrong, ch.Heads(inKafka[p], keys)...)
		v := Verified{Partition: p, Entries: count[p], FirstSeq: ch.First, Seq: ch.Seq, Hash: ch.Hash, Heads: len(inKafka[p])}
		for i := range inKafka[p] {
			h := &inKafka[p][i]
			if len(h.Sig) > 0 {
				v.Signed++
			}
			if ch.Vouched(h) {
				v.InKafka = max(v.InKafka, h.Seq)
			}
		}
		v.NotInKafka = ch.Seq - v.InKafka
		rep.Partitions = append(rep.Partitions, v)
	}
	wrong, err := rowsAgree(ctx, db, s, partitions, chains)
	rep.Wrong = append(rep.Wrong, wrong...)
	return rep, err
}

// begin is a partition's chain before its first entry that is in the table.
func begin(archived map[int32]ledger.Archival, partition int32) *ledger.Chain {
	c := &ledger.Chain{}
	if a, ok := archived[partition]; ok {
		c.GoOn(a.ToSeq, a.LastHash)
	}
	return c
}

// rowsAgree holds the offsets rows' heads against the chains. Captures go on meanwhile: a row may be ahead of what was read, never behind.
func rowsAgree(ctx context.Context, db Querier, s ledger.Stream, partitions []int32, chains map[int32]*ledger.Chain) (wrong []string, err error) {
	rows, err := db.Query(ctx, `SELECT p.source_partition, p.ledger_seq, p.ledger_head, coalesce(l.hash, '') FROM partition_offsets p LEFT JOIN offset_ledger l
		ON l.source_id = p.source_id AND l.source_partition = p.source_partition AND l.seq = p.ledger_seq
		WHERE p.source_id = $1 AND ($2::int[] IS NULL OR p.source_partition = ANY($2)) ORDER BY 1`, s.SourceID, partitions)
	if err != nil {
		return nil, fmt.Errorf("read partition_offsets: %w", err)
	}
	var p int32
	var seq int64
	var head, hash []byte
	_, err = pgx.ForEachRow(rows, []any{&p, &seq, &head, &hash}, func() error {
		ch := chains[p]
		if ch == nil {
			ch = &ledger.Chain{}
		}
		if string(head) != string(hash) {
			wrong = append(wrong, fmt.Sprintf("partition %d: partition_offsets.ledger_head is not the hash of entry %d", p, seq))
		}
		if seq < ch.Seq {
			wrong = append(wrong, fmt.Sprintf("partition %d: partition_offsets.ledger_seq is %d, the ledger goes on to seq %d", p, seq, ch.Seq))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read partition_offsets: %w", err)
	}
	return wrong, nil
}
