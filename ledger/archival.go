package ledger

import (
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Archival is what of one partition's chain was moved to a file: a row of ledger_archives.
type Archival struct {
	SourceID  int16  `json:"source_id"`
	Partition int32  `json:"source_partition"`
	FromSeq   int64  `json:"from_seq"` // entries [FromSeq, ToSeq]
	ToSeq     int64  `json:"to_seq"`
	BegunAt   int64  `json:"begun_at"`   // source offset that the partition was started at
	ToOffset  int64  `json:"to_offset"`  // source offset that the entries end at
	LastHash  Hex    `json:"last_hash"`  // of entry ToSeq
	File      string `json:"file"`       // its name, without a folder
	FileHash  Hex    `json:"file_hash"`  // SHA-256 of its bytes
	LedgerSeq int64  `json:"ledger_seq"` // the entry that vouches for this
}

// Digest is what the entry of kind archive has as its digest.
func (a *Archival) Digest() []byte {
	d := sha256.Sum256(fmt.Appendf(nil, "%d %d %d %d %d %d %s %s", a.SourceID, a.Partition, a.FromSeq, a.ToSeq, a.BegunAt, a.ToOffset, a.LastHash, a.FileHash))
	return d[:]
}

// Archived is the newest archival of each of a source's partitions that has one.
func Archived(ctx context.Context, db interface {
	Query(context.Context, string, ...any) (pgx.Rows, error)
}, source int16) (map[int32]Archival, error) {
	rows, err := db.Query(ctx, `SELECT DISTINCT ON (source_partition) source_id, source_partition, from_seq, to_seq, begun_at, to_offset, last_hash, file, file_hash, ledger_seq
		FROM ledger_archives WHERE source_id = $1 ORDER BY source_partition, to_seq DESC`, source)
	if err != nil {
		return nil, fmt.Errorf("read what of the ledger was archived: %w", err)
	}
	out := map[int32]Archival{}
	var a Archival
	var last, file []byte
	_, err = pgx.ForEachRow(rows, []any{&a.SourceID, &a.Partition, &a.FromSeq, &a.ToSeq, &a.BegunAt, &a.ToOffset, &last, &a.File, &file, &a.LedgerSeq}, func() error {
		a.LastHash, a.FileHash = append(Hex{}, last...), append(Hex{}, file...)
		out[a.Partition] = a
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read what of the ledger was archived: %w", err)
	}
	return out, nil
}
