package txn

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/engine"
)

// Counts that are added to in the captures themselves are exact only where no capture was left out. So the offsets row says which offsets are counted,
// [counted_from, counted_to), in windows of which length: a capture that begins at counted_to goes on, any other begins anew, with all that was counted of
// that partition set to 0. It may have been captured by a worker that does not count, or counts in windows of another length.

// countedRow is what an offsets row says of it.
type countedRow struct {
	to     int64 // -1: nothing is counted
	window int64 // seconds
}

// continues says whether a batch goes on with what is counted.
func (r countedRow) continues(c *engine.Counts, b *engine.Batch) bool {
	return r.to == b.From && r.window == windowSeconds(c)
}

func windowSeconds(c *engine.Counts) int64 { return int64(c.Window / time.Second) }

// advanceSQL moves the stored offset; advanceCountedSQL what is counted as well, from the batch on where it begins anew ($11).
const (
	advanceSQL = `UPDATE partition_offsets SET next_offset = $3, leader_epoch = $4, ledger_seq = $5, ledger_head = $6,
			published_at_least = greatest(published_at_least, $7), begun_by = NULL, careful_to = $8, careful_step = $9, attempts = 0, updated_at = now()`
	advanceCountedSQL = advanceSQL + `, counted_from = CASE WHEN $11 THEN $10 ELSE counted_from END, counted_to = $3, counted_window_s = $12`
	whereRow          = ` WHERE source_id = $1 AND source_partition = $2`
)

// queueCounts queues what the batches add to the counts: one statement, in the order of the key, and before it one that sets the counts of partitions
// to 0 that begin anew. The offsets rows are the caller's to lock, and to set.
func queueCounts(q *pgx.Batch, c *engine.Counts, source int16, batches []*engine.Batch, anew []int32) {
	table, label, amount := pgx.Identifier{c.Table}.Sanitize(), pgx.Identifier{c.Label}.Sanitize(), pgx.Identifier{c.Amount}.Sanitize()
	if len(anew) > 0 {
		q.Queue(fmt.Sprintf(`UPDATE %s SET %s = 0 WHERE source_id = $1 AND source_partition = ANY($2) AND %[2]s <> 0`, table, amount), source, anew)
	}
	var starts []time.Time
	var labels []string
	var partitions []int32
	var amounts []int64
	for _, b := range batches {
		for _, cell := range b.Cells() {
			starts, labels = append(starts, time.UnixMilli(cell.StartMs)), append(labels, cell.Label)
			partitions, amounts = append(partitions, b.Partition), append(amounts, b.Counts[cell])
		}
	}
	if len(starts) == 0 {
		return
	}
	q.Queue(fmt.Sprintf(`INSERT INTO %s AS t (window_start, %s, source_id, source_partition, %s)
		SELECT w, l, $1, p, n FROM unnest($2::timestamptz[], $3::text[], $4::int[], $5::bigint[]) AS u (w, l, p, n) ORDER BY w, l, p
		ON CONFLICT (window_start, %[2]s, source_id, source_partition) DO UPDATE SET %[3]s = t.%[3]s + excluded.%[3]s`, table, label, amount),
		source, starts, labels, partitions, amounts)
}

// countable refuses counts for which there is no table: they would be lost without a word.
func (s *Store) countable(batches []*engine.Batch) error {
	for _, b := range batches {
		if s.cfg.Counts == nil && len(b.Counts) > 0 {
			return errors.New("capture: the handler counts, and the store was not told into which table (StoreConfig.Counts)")
		}
	}
	return nil
}

// CountBatch adds a batch to the counts, as its capture does, in the caller's transaction, which holds the offsets row's lock. It sets what is counted;
// the stored offset is the caller's.
func CountBatch(ctx context.Context, tx pgx.Tx, c *engine.Counts, source int16, b *engine.Batch) error {
	var r countedRow
	err := tx.QueryRow(ctx, `SELECT coalesce(counted_to, -1), coalesce(counted_window_s, 0) FROM partition_offsets`+whereRow, source, b.Partition).Scan(&r.to, &r.window)
	if err != nil {
		return fmt.Errorf("read what is counted: %w", err)
	}
	var anew []int32
	if !r.continues(c, b) {
		anew = append(anew, b.Partition)
	}
	var q pgx.Batch
	queueCounts(&q, c, source, []*engine.Batch{b}, anew)
	q.Queue(`UPDATE partition_offsets SET counted_from = CASE WHEN $3 THEN $4 ELSE counted_from END, counted_to = $5, counted_window_s = $6`+whereRow,
		source, b.Partition, len(anew) > 0, b.From, b.To, windowSeconds(c))
	if err := tx.SendBatch(ctx, &q).Close(); err != nil {
		return fmt.Errorf("count into %s: %w", c.Table, err)
	}
	return nil
}
