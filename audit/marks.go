package audit

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// writeMarks notes up to where each partition is proven. A mark is never moved back or past what was found: it says what was proven once,
// of the ledger that had this entry. Only an audit from the beginning, or from within the stretch that was proven before, moves one.
func (r *run) writeMarks(ctx context.Context, rep *Report) error {
	conn, err := pgx.Connect(ctx, r.opts.DSN) // the snapshot's connection is read-only
	if err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	b := &pgx.Batch{}
	for i := range rep.Partitions {
		p := &rep.Partitions[i]
		from := r.parts[p.Partition].vouched()
		if p.Verified <= from || p.LedgerSeq == 0 {
			continue
		}
		b.Queue(`INSERT INTO exactly_verified_through AS m (source_id, source_partition, verified_from, verified_through, ledger_seq, ledger_hash, program)
			VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (source_id, source_partition) DO UPDATE SET verified_from = least(m.verified_from, excluded.verified_from),
			verified_through = excluded.verified_through, ledger_seq = excluded.ledger_seq, ledger_hash = excluded.ledger_hash, program = excluded.program, audited_by = session_user, audited_at = now()
			WHERE excluded.verified_from <= m.verified_through AND excluded.verified_through >= m.verified_through`,
			r.source, p.Partition, from, p.Verified, p.LedgerSeq, r.parts[p.Partition].head, r.opts.Program)
	}
	if b.Len() == 0 {
		return nil
	}
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("write exactly_verified_through (a member of exactly_auditor may): %w", err)
	}
	return nil
}
