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

// Incomplete says that the outbox does not hold what the ledger says was captured: a time partition was dropped too early, rows were
// deleted, or the ledger was. Draining on would leave events out, so nothing is drained.
type Incomplete struct{ What string }

func (e *Incomplete) Error() string { return e.What }

// Broken makes the engine stop the partition until a person has decided.
func (e *Incomplete) Broken() string { return e.What }

// window is a stretch of captures: source offsets up to to, written between first and last by the server's clock.
type window struct {
	to          int64
	first, last time.Time
	events      int64 // the ledger's count for them; -1 if a capture reaches in only in part
}

// windowEntries bounds how many ledger entries one part of a gap takes.
const windowEntries = 1000

// find asks the ledger when the messages owed from an offset on were written, as many captures as it takes for limit messages.
func find(ctx context.Context, db Querier, sourceID int16, partition int32, from, to int64, limit int) (window, error) {
	w := window{to: to}
	// Entries about a range, but for those that say nothing of what is owed. What was skipped and then gone back to is covered twice, and what
	// was healed may have been captured before: captures come first, and nothing is counted twice.
	rows, err := db.Query(ctx, `SELECT kind = 'capture', from_offset, to_offset, events, captured_at FROM offset_ledger
		WHERE source_id = $1 AND source_partition = $2 AND to_offset > $3 AND from_offset < $4 AND from_offset < to_offset
		AND kind IN ('capture', 'accept_loss', 'reset', 'heal') ORDER BY to_offset, kind <> 'capture', seq LIMIT $5`,
		sourceID, partition, from, to, windowEntries)
	if err != nil {
		return w, err
	}
	defer rows.Close()
	covered := from // up to here the ledger explains the gap
	for n := 1; rows.Next(); n++ {
		var capture bool
		var begin, end, events int64
		var at time.Time
		if err := rows.Scan(&capture, &begin, &end, &events, &at); err != nil {
			return w, err
		}
		if !capture && end <= covered {
			if n == windowEntries {
				w.to = min(covered, to)
			}
			continue
		}
		if begin > covered {
			break
		}
		if w.first.IsZero() || at.Before(w.first) {
			w.first = at
		}
		if at.After(w.last) {
			w.last = at
		}
		covered = end
		if begin < from || end > to || w.events < 0 {
			w.events = -1
		} else {
			w.events += events
		}
		if events > int64(limit) || w.events > int64(limit) || n == windowEntries {
			w.to = min(end, to)
			break
		}
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return w, err
	}
	if covered < w.to {
		return w, &Incomplete{fmt.Sprintf("the ledger has no capture of offset %d, below the stored offset: what Kafka is owed can't be told", covered)}
	}
	return w, nil
}

// GapBytes is from where on a part of a gap takes no further message, in bytes of keys, values and headers: ten thousand dead letters of a megabyte
// each would not fit into memory.
const GapBytes = 2 << 20

// Gap reads the messages owed for source offsets [from, to) in the order they were captured, about limit of them, or GapBytes, but always whole
// source records, and returns up to which offset they reach: to, or less if there is more.
func Gap(ctx context.Context, db Querier, sourceID int16, partition int32, from, to int64, limit int) ([]Message, int64, error) {
	return gap(ctx, db, sourceID, partition, from, to, limit, GapBytes)
}

// parts reads messages up to $5, and of these all that begin within the first $8 bytes; total is how many it was. A long value's size is known without
// reading it.
const parts = `SELECT source_offset, seq, topic, partition, "timestamp", key, value, headers, erased, total FROM (
	SELECT *, count(*) OVER () AS total,
		coalesce(sum(coalesce(octet_length(key), 0)::bigint + coalesce(octet_length(value), 0) + octet_length(headers)) OVER (ORDER BY source_offset, seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
	FROM (
		SELECT source_offset, seq, topic, partition, "timestamp", key, value, headers, erased_at IS NOT NULL AS erased FROM outbox
		WHERE created_at BETWEEN $6 AND $7 AND source_id = $1 AND source_partition = $2 AND source_offset >= $3 AND source_offset < $4
		ORDER BY source_offset, seq LIMIT $5) m) m
	WHERE before < $8 ORDER BY source_offset, seq`

func gap(ctx context.Context, db Querier, sourceID int16, partition int32, from, to int64, limit, size int) ([]Message, int64, error) {
	what := func(err error) error {
		return fmt.Errorf("read outbox of source %d partition %d [%d,%d): %w", sourceID, partition, from, to, err)
	}
	w, err := find(ctx, db, sourceID, partition, from, to, limit)
	if err != nil {
		return nil, 0, what(fmt.Errorf("ledger: %w", err))
	}
	rows, err := db.Query(ctx, parts, sourceID, partition, from, w.to, limit+1, w.first, w.last, size)
	if err != nil {
		return nil, 0, what(err)
	}
	defer rows.Close()
	var msgs []Message
	var total int
	for rows.Next() {
		var m Message
		var headers []byte
		var erased bool
		if err := rows.Scan(&m.SourceOffset, &m.Seq, &m.Topic, &m.Partition, &m.TimestampMs, &m.Key, &m.Value, &headers, &erased, &total); err != nil {
			return nil, 0, what(err)
		}
		if erased { // only what Kafka had was erased: the group offset has gone back since
			return nil, 0, what(&Incomplete{fmt.Sprintf("the message of offset %d was erased, and is owed again: it can't be published", m.SourceOffset)})
		}
		if m.Headers, err = ParseHeaders(headers); err != nil {
			return nil, 0, what(fmt.Errorf("offset %d: %w", m.SourceOffset, err))
		}
		msgs = append(msgs, m)
	}
	if err := rows.Err(); err != nil {
		return nil, 0, what(err)
	}
	if total <= limit && total == len(msgs) {
		if w.events >= 0 && int64(len(msgs)) != w.events {
			return nil, 0, what(&Incomplete{fmt.Sprintf("the outbox holds %d messages of offsets [%d,%d), the ledger counted %d: "+
				"a time partition was dropped too early, or rows were changed; run exactly audit", len(msgs), from, w.to, w.events)})
		}
		return msgs, w.to, nil
	}
	// There is more: stop before the record that may be cut in two. One record with more messages than the limits is read whole.
	last := msgs[len(msgs)-1].SourceOffset
	if msgs[0].SourceOffset == last {
		return gap(ctx, db, sourceID, partition, from, to, limit*2, size*2)
	}
	n := len(msgs)
	for n > 0 && msgs[n-1].SourceOffset == last {
		n--
	}
	return msgs[:n], last, nil
}
