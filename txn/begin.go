package txn

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/failpoint"
)

// Begin implements engine.Store: guard 1's comparison, and the marks, in a transaction of their own. It does not wait for the disk: a mark that a crash of
// Postgres loses was not needed for what ended the worker.
func (s *Store) Begin(ctx context.Context, marks []engine.Mark) (map[int32]bool, error) {
	ids, epochs, from, to := make([]int32, len(marks)), make([]int64, len(marks)), make([]int64, len(marks)), make([]int64, len(marks))
	for i, m := range marks {
		ids[i], epochs[i], from[i], to[i] = m.Partition, m.Epoch, m.From, m.To
	}
	var q pgx.Batch
	q.Queue("SET LOCAL synchronous_commit = off")
	// First the locks, in order: the second statement then sees what those before us have written.
	q.Queue(`SELECT FROM partition_offsets WHERE source_id = $1 AND source_partition = ANY($2) ORDER BY source_id, source_partition FOR UPDATE`, s.source.ID, ids)
	ours := map[int32]bool{}
	q.Queue(`UPDATE partition_offsets p SET begun_by = $6, begun_from = m.at, begun_to = m.upto, updated_at = now()
		FROM unnest($2::int[], $3::bigint[], $4::bigint[], $5::bigint[]) AS m (partition, epoch, at, upto)
		WHERE p.source_id = $1 AND p.source_partition = m.partition AND p.epoch = m.epoch AND p.next_offset = m.at AND p.state = 'open'
		RETURNING p.source_partition`, s.source.ID, ids, epochs, from, to, s.incarnation).Query(func(rows pgx.Rows) error {
		for rows.Next() {
			var id int32
			if err := rows.Scan(&id); err != nil {
				return err
			}
			ours[id] = true
		}
		return rows.Err()
	})
	err := pgx.BeginTxFunc(ctx, s.pool, readCommitted, func(tx pgx.Tx) error { return tx.SendBatch(ctx, &q).Close() })
	if err != nil {
		return nil, fmt.Errorf("mark %d partitions of %s as begun: %w", len(marks), s.source.Topic, err)
	}
	failpoint.Hit(failpoint.BeginMarked)
	return ours, nil
}

// Leave implements engine.Store. Locks and the disk: as in Begin.
func (s *Store) Leave(ctx context.Context, marks []engine.Mark) error {
	ids, epochs := make([]int32, len(marks)), make([]int64, len(marks))
	for i, m := range marks {
		ids[i], epochs[i] = m.Partition, m.Epoch
	}
	var q pgx.Batch
	q.Queue("SET LOCAL synchronous_commit = off")
	q.Queue(`SELECT FROM partition_offsets WHERE source_id = $1 AND source_partition = ANY($2) ORDER BY source_id, source_partition FOR UPDATE`, s.source.ID, ids)
	q.Queue(`UPDATE partition_offsets p SET begun_by = NULL FROM unnest($2::int[], $3::bigint[]) AS m (partition, epoch)
		WHERE p.source_id = $1 AND p.source_partition = m.partition AND p.epoch = m.epoch AND p.begun_by = $4`, s.source.ID, ids, epochs, s.incarnation)
	err := pgx.BeginTxFunc(ctx, s.pool, readCommitted, func(tx pgx.Tx) error { return tx.SendBatch(ctx, &q).Close() })
	if err != nil {
		return fmt.Errorf("take back the marks of %d partitions of %s: %w", len(marks), s.source.Topic, err)
	}
	return nil
}
