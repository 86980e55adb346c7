package txn

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/engine"
)

// CopyBatch writes a batch's rows, outbox and dead letters as a capture does, in the caller's transaction. The tables are the handler's. The
// stored offset and the ledger entry, which belong to it, are the caller's.
func CopyBatch(ctx context.Context, tx pgx.Tx, tables []engine.Table, b *engine.Batch) error {
	s := &Store{cfg: StoreConfig{Tables: tables}}
	for _, t := range tables {
		s.copySQL = append(s.copySQL, copySQL(t))
	}
	return s.copyAll(ctx, tx.Conn(), []*engine.Batch{b})
}
