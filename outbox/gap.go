package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Querier is a pgx pool, connection or transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// window is a stretch of captures: source offsets up to to, written between first and last by the server's clock.
type window struct {
	to          int64
	first, last time.Time
}

// windowEntries bounds how many ledger entries one part of a gap takes.
const windowEntries = 1000

// find asks the ledger when the messages owed from an offset on were written, as many captures as it takes for limit messages.
func find(ctx context.Context, db Querier, sourceID int16, partition int32, from, to int64, limit int) (window, error) {
	w := window{to: to}
	rows, err := db.Query(ctx, `SELECT to_offset, events, captured_at FROM offset_ledger WHERE source_id = $1 AND source_partition = $2
		AND to_offset > $3 AND from_offset < $4 ORDER BY to_offset LIMIT $5`, sourceID, partition, from, to, windowEntries)
	if err != nil {
		return w, err
	}
	defer rows.Close()
	var events int64
	n := 0
	for rows.Next() {
		var end, e int64
		var at time.Time
		if err := rows.Scan(&end, &e, &at); err != nil {
			return w, err
		}
		if n++; n == 1 || at.Before(w.first) {
			w.first = at
		}
		if at.After(w.last) {
			w.last = at
		}
		if events += e; events > int64(limit) || n == windowEntries {
			w.to = min(end, to)
			break
		}
	}
	rows.Close()
	return w, rows.Err()
}

// Gap reads the messages owed for source offsets [from, to) in the order they were captured, about limit of them but always whole
// source records, and returns up to which offset they reach: to, or less if there is more.
func Gap(ctx context.Context, db Querier, sourceID int16, partition int32, from, to int64, limit int) ([]Message, int64, error) {
	what := func(err error) error {
		return fmt.Errorf("read outbox of source %d partition %d [%d,%d): %w", sourceID, partition, from, to, err)
	}
	w, err := find(ctx, db, sourceID, partition, from, to, limit)
	if err != nil {
		return nil, 0, what(fmt.Errorf("ledger: %w", err))
	}
	rows, err := db.Query(ctx, `SELECT source_offset, seq, topic, partition, "timestamp", key, value, headers FROM outbox
		WHERE created_at BETWEEN $6 AND $7 AND source_id = $1 AND source_partition = $2 AND source_offset >= $3 AND source_offset < $4
		ORDER BY source_offset, seq LIMIT $5`,
		sourceID, partition, from, w.to, limit+1, w.first, w.last)
	if err != nil {
		return nil, 0, what(err)
	}
	defer rows.Close()
	var msgs []Message
	for rows.Next() {
		var m Message
		var headers []byte
		if err := rows.Scan(&m.SourceOffset, &m.Seq, &m.Topic, &m.Partition, &m.TimestampMs, &m.Key, &m.Value, &headers); err != nil {
			return nil, 0, what(err)
		}
		if m.Headers, err = ParseHeaders(headers); err != nil {
			return nil, 0, what(fmt.Errorf("offset %d: %w", m.SourceOffset, err))
		}
		msgs = append(msgs, m)
	}
	if err := rows.Err(); err != nil {
		return nil, 0, what(err)
	}
	if len(msgs) <= limit {
		return msgs, w.to, nil
	}
	// There is more: stop before the record that may be cut in two. One record with more messages than the limit is read whole.
	last := msgs[len(msgs)-1].SourceOffset
	if msgs[0].SourceOffset == last {
		return Gap(ctx, db, sourceID, partition, from, to, limit*2)
	}
	n := len(msgs)
	for n > 0 && msgs[n-1].SourceOffset == last {
		n--
	}
	return msgs[:n], last, nil
}
