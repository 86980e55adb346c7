package txn

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/outbox"
)

// Claim implements engine.Store: it raises the epoch under the row's lock, which also waits out a capture whose COMMIT is in
// flight. A backend that holds the lock longer than the lock timeout belongs to a frozen worker and is ended.
func (s *Store) Claim(ctx context.Context, partition int32) (engine.Claim, error) {
	for attempt := 1; ; attempt++ {
		c, err := s.claim(ctx, partition)
		if code(err) != "55P03" || attempt > 3 { // lock_not_available
			return c, err
		}
		if held := s.held(ctx, partition); held != nil {
			return c, held
		}
		if err := s.endHolder(ctx, partition); err != nil {
			return c, err
		}
	}
}

// readCommitted whatever the database's default is: who waited for a row's lock has to see what the one before it wrote, where the stricter
// levels give up with a serialization failure.
var readCommitted = pgx.TxOptions{IsoLevel: pgx.ReadCommitted}

func (s *Store) claim(ctx context.Context, partition int32) (c engine.Claim, err error) {
	what := func(err error) error { return fmt.Errorf("claim %s/%d: %w", s.source.Topic, partition, err) }
	tx, err := s.pool.BeginTx(ctx, readCommitted)
	if err != nil {
		return c, what(err)
	}
	defer tx.Rollback(ctx) //nolint:errcheck // after a commit there is nothing to roll back
	if _, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d", s.cfg.LockTimeout.Milliseconds())); err != nil {
		return c, what(err)
	}
	var state, worker, by, why string
	var claimants []string
	var begunFrom, begunTo int64
	var gone bool
	// Everything a claim decides on must stand in the locked row itself. Having waited for the lock, Postgres reads that row anew, but a
	// subquery beside it would still see what was there before the wait, without the very capture that was waited out.
	err = tx.QueryRow(ctx, `SELECT next_offset, leader_epoch, ledger_seq, published_at_least, worker, claimants, state, coalesce(held_by, ''), coalesce(held_why, ''),
		begun_from, begun_to, coalesce(begun_by <> $3, false), careful_to, careful_step, attempts
		FROM partition_offsets WHERE source_id = $1 AND source_partition = $2 FOR UPDATE`, s.source.ID, partition, s.incarnation).
		Scan(&c.Next, &c.LeaderEpoch, &c.LedgerSeq, &c.Floor, &worker, &claimants, &state, &by, &why,
			&begunFrom, &begunTo, &gone, &c.Care.To, &c.Care.Step, &c.Care.Attempts)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return c, engine.ErrNoRow
	case err != nil:
		return c, what(err)
	case state == "held":
		return c, &engine.HeldError{By: by, Why: why}
	}
	if c.Head, err = s.head(ctx, tx, partition, c.LedgerSeq); err != nil {
		return c, what(err)
	}
	if c.LedgerSeq > 1 { // the first entry is the start, and the next ones may be people's deeds
		err = tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM offset_ledger WHERE source_id = $1 AND source_partition = $2
			AND kind IN ('capture', 'heal', 'archive'))`, s.source.ID, partition).Scan(&c.Captured)
		if err != nil {
			return c, what(err)
		}
	}
	c.Predecessors = Predecessors(worker, claimants)
	c.Care = c.Care.Claimed(c.Next, begunFrom, begunTo, gone)
	// The predecessors' names stay until the gap is drained, ours joins them: whoever comes after us knows all who may have left a
	// transaction open.
	err = tx.QueryRow(ctx, `UPDATE partition_offsets SET epoch = epoch + 1, updated_at = now(), begun_by = NULL, careful_to = $4, careful_step = $5, attempts = $6,
		claimants = CASE WHEN $3 = ANY(claimants) THEN claimants ELSE array_append(claimants, $3) END
		WHERE source_id = $1 AND source_partition = $2 RETURNING epoch`, s.source.ID, partition, s.cfg.Worker,
		c.Care.To, c.Care.Step, c.Care.Attempts).Scan(&c.Epoch)
	if err != nil {
		return c, what(err)
	}
	if err := tx.Commit(ctx); err != nil {
		return c, what(err)
	}
	return c, nil
}

// head is that of an entry; nil if there is none.
func (s *Store) head(ctx context.Context, tx pgx.Tx, partition int32, seq int64) (*ledger.Head, error) {
	rows, err := tx.Query(ctx, `SELECT `+ledger.Columns+` FROM offset_ledger WHERE source_id = $1 AND source_partition = $2 AND seq = $3`, s.source.ID, partition, seq)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	if !rows.Next() {
		return nil, rows.Err()
	}
	var e ledger.Entry
	hash, err := e.Scan(rows)
	if err != nil {
		return nil, err
	}
	stream := s.source.Stream()
	h := stream.Head(&e, hash)
	return &h, nil
}

// Predecessors are all who may have left a transaction open: who closed the gap last, and who claimed since.
func Predecessors(worker string, claimants []string) []string {
	var p []string
	for _, w := range append([]string{worker}, claimants...) {
		seen := w == ""
		for _, x := range p {
			seen = seen || x == w
		}
		if !seen {
			p = append(p, w)
		}
	}
	return p
}

// held is not nil if a person holds the partition. A person's command keeps the row's lock for as long as Kafka takes to answer, with the
// hold already committed: it must not be ended in the middle. If it is frozen, the timeout of its own session ends it.
func (s *Store) held(ctx context.Context, partition int32) error {
	var state string
	var h engine.HeldError
	err := s.pool.QueryRow(ctx, `SELECT state, coalesce(held_by, ''), coalesce(held_why, '') FROM partition_offsets
		WHERE source_id = $1 AND source_partition = $2`, s.source.ID, partition).Scan(&state, &h.By, &h.Why)
	if err != nil || state != "held" {
		return nil //nolint:nilerr // whoever asks goes on as if it were not, and meets the same error there
	}
	return &h
}

// endHolder ends the backend that holds the row's lock: the row's xmax names its transaction.
func (s *Store) endHolder(ctx context.Context, partition int32) error {
	rows, err := s.pool.Query(ctx, `SELECT l.pid, coalesce(a.application_name, ''), pg_terminate_backend(l.pid)
		FROM partition_offsets p JOIN pg_locks l ON l.locktype = 'transactionid' AND l.transactionid = p.xmax AND l.granted
		LEFT JOIN pg_stat_activity a ON a.pid = l.pid
		WHERE p.source_id = $1 AND p.source_partition = $2 AND l.pid <> pg_backend_pid()`, s.source.ID, partition)
	if err != nil {
		return fmt.Errorf("end the backend that holds %s/%d: %w", s.source.Topic, partition, err)
	}
	defer rows.Close()
	for rows.Next() {
		var pid int32
		var app string
		var ended bool
		if err := rows.Scan(&pid, &app, &ended); err != nil {
			return fmt.Errorf("end the backend that holds %s/%d: %w", s.source.Topic, partition, err)
		}
		s.cfg.Log.Warn("a frozen session held the offsets row: its backend was ended", zap.Int32("partition", partition), zap.Int32("pid", pid),
			zap.String("application_name", app), zap.Bool("ended", ended), zap.Duration("waited", s.cfg.LockTimeout))
	}
	err = rows.Err()
	if code(err) == "42501" { // insufficient_privilege
		// Only a session of the same user may be ended, or by a member of pg_signal_backend.
		err = fmt.Errorf("a session of another database user holds the lock of %s/%d, and this user may not end it: let all workers log in as the same user, "+
			"or: GRANT pg_signal_backend TO exactly_worker: %w", s.source.Topic, partition, err)
	}
	return err
}

// Drained implements engine.Store.
func (s *Store) Drained(ctx context.Context, partition int32, epoch int64) error {
	_, err := s.pool.Exec(ctx, `UPDATE partition_offsets SET worker = $4, claimants = '{}' WHERE source_id = $1 AND source_partition = $2 AND epoch = $3
		AND (worker <> $4 OR claimants <> '{}')`, s.source.ID, partition, epoch, s.cfg.Worker)
	if err != nil {
		return fmt.Errorf("note %s/%d drained: %w", s.source.Topic, partition, err)
	}
	return nil
}

// Start implements engine.Store. The first start of a source chooses for all its partitions at once, and the choice is a ledger
// entry; a partition added later begins at 0, so that none of its records is missed.
func (s *Store) Start(ctx context.Context, partition int32, from func(context.Context) (map[int32]int64, error)) error {
	return pgx.BeginTxFunc(ctx, s.pool, readCommitted, func(tx pgx.Tx) error {
		var chosen string
		if err := tx.QueryRow(ctx, `SELECT start_from FROM sources WHERE source_id = $1 FOR UPDATE`, s.source.ID).Scan(&chosen); err != nil {
			return fmt.Errorf("start %s: %w", s.source.Topic, err)
		}
		offsets := map[int32]int64{partition: 0}
		why := "partition added after the source was started"
		if chosen == "" {
			var err error
			if offsets, err = from(ctx); err != nil {
				return fmt.Errorf("start %s: %w", s.source.Topic, err)
			}
			why = "first start from " + s.source.Start
			if _, err := tx.Exec(ctx, `UPDATE sources SET start_from = $2, started_at = now() WHERE source_id = $1`, s.source.ID, s.source.Start); err != nil {
				return fmt.Errorf("start %s: %w", s.source.Topic, err)
			}
			s.cfg.Log.Info("first start of the source", zap.String("topic", s.source.Topic), zap.String("from", s.source.Start), zap.Int("partitions", len(offsets)))
		}
		for p, o := range offsets {
			if err := s.begin(ctx, tx, p, o, why); err != nil {
				return fmt.Errorf("start %s/%d: %w", s.source.Topic, p, err)
			}
		}
		return nil
	})
}

func (s *Store) begin(ctx context.Context, tx pgx.Tx, partition int32, offset int64, why string) error {
	tag, err := tx.Exec(ctx, `INSERT INTO partition_offsets (source_id, source_partition, next_offset) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		s.source.ID, partition, offset)
	if err != nil || tag.RowsAffected() == 0 {
		return err // another worker was first
	}
	_, err = ledger.AppendDeed(ctx, tx, ledger.Deed{
		SourceID: s.source.ID, Partition: partition, Kind: ledger.Start, From: offset, To: offset, Worker: s.cfg.Worker, Why: why, Build: s.cfg.Build,
	})
	return err
}

// Gap implements engine.Store.
func (s *Store) Gap(ctx context.Context, partition int32, from, to int64, limit int) ([]outbox.Message, int64, error) {
	return outbox.Gap(ctx, s.pool, s.source.ID, partition, from, to, limit)
}
