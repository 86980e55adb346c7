// Package find owns the search for records of which a person knows something else than the coordinate: whose they are, or their trace.
//
// It promises that a search takes about as long as it is given, says how far back it has looked, and goes on from there when it is asked again.
// It never adds an index for it, which every capture would pay for, nor reads what it was not asked for.
package find

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/exactly-pipeline/exactly/outbox"
)

// DB is a pgx pool.
type DB interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error)
}

// Hit is a record that was found.
type Hit struct {
	Partition int32
	Offset    int64
	At        time.Time // when it was captured
	Says      string    // country of a row, class of a dead letter
}

// Found is what a search has come to.
type Found struct {
	Hits      []Hit
	Partition int32     // of a user's clicks
	From      int64     // of a user's clicks: looked from this offset on
	Since     time.Time // of a trace: looked from this time on
	More      bool      // there is more to look at, before that
}

const (
	mostHits = 50
	budget   = 120 * time.Millisecond
	step     = 10_000 // offsets
)

const userSQL = `SELECT source_partition, source_offset, captured_at, country FROM enriched_clicks
	WHERE source_id = $1 AND source_partition = $2 AND source_offset >= $3 AND source_offset < $4 AND user_id = $5
	UNION ALL SELECT source_partition, source_offset, created_at, error_class || ' at ' || error_stage FROM dead_letters
	WHERE source_id = $1 AND source_partition = $2 AND source_offset >= $3 AND source_offset < $4 AND key = $6
	ORDER BY 2 DESC`

// User looks for a user's clicks, the newest first, below offset before (0: from the stored offset on), in the input partition that producers put
// clicks with that key into.
func User(ctx context.Context, db DB, sourceID int16, user, before int64) (*Found, error) {
	what := func(err error) error { return fmt.Errorf("look for user %d: %w", user, err) }
	var n int
	err := db.QueryRow(ctx, `SELECT coalesce(max(source_partition) + 1, 0) FROM partition_offsets WHERE source_id = $1`, sourceID).Scan(&n)
	if err != nil || n == 0 {
		return &Found{}, err
	}
	key := fmt.Append(nil, user)
	f := &Found{Partition: outbox.Partition(key, 0, n)}
	var stored, first int64
	err = db.QueryRow(ctx, `SELECT next_offset, coalesce((SELECT to_offset FROM offset_ledger l WHERE l.source_id = $1 AND l.source_partition = $2 AND seq = 1), 0)
		FROM partition_offsets WHERE source_id = $1 AND source_partition = $2`, sourceID, f.Partition).Scan(&stored, &first)
	if err != nil {
		return nil, what(err)
	}
	f.From = stored
	if before > 0 {
		f.From = min(before, stored)
	}
	for until := time.Now().Add(budget); f.From > first && time.Now().Before(until) && len(f.Hits) < mostHits; {
		from := max(first, f.From-step)
		rows, err := db.Query(ctx, userSQL, sourceID, f.Partition, from, f.From, user, key)
		if err != nil {
			return nil, what(err)
		}
		hits, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Hit])
		if err != nil {
			return nil, what(err)
		}
		f.From = from
		if f.Hits = append(f.Hits, hits...); len(f.Hits) > mostHits {
			f.Hits = f.Hits[:mostHits]
			f.From = f.Hits[mostHits-1].Offset
		}
	}
	f.More = f.From > first
	return f, nil
}

const traceSQL = `SELECT source_partition, source_offset, created_at, topic FROM outbox
	WHERE created_at >= $2 AND created_at < $3 AND source_id = $1 AND erased_at IS NULL AND position($4::bytea IN headers) > 0 ORDER BY created_at DESC LIMIT 51`

// within is a query that ends after a part of the budget.
func within(ctx context.Context, db DB, sql string, args ...any) (hits []Hit, err error) {
	err = pgx.BeginTxFunc(ctx, db, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, fmt.Sprintf(`SET LOCAL statement_timeout = %d`, (budget/3).Milliseconds())); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, sql, args...)
		if err == nil {
			hits, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Hit])
		}
		return err
	})
	return hits, err
}

func slow(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == "57014" // query_canceled
}

// Trace looks for the records with a trace id (32 hexadecimal digits), the newest first, captured before a time (zero: now). The outbox is read by
// when it was written, a little more at a time the less there was in it.
func Trace(ctx context.Context, db DB, sourceID int16, trace string, before time.Time) (*Found, error) {
	what := func(err error) error { return fmt.Errorf("look for trace %s: %w", trace, err) }
	var now, first time.Time
	err := db.QueryRow(ctx, `SELECT now(), coalesce(started_at, created_at) FROM sources WHERE source_id = $1`, sourceID).Scan(&now, &first)
	if err != nil {
		return nil, what(err)
	}
	f := &Found{Since: now.Add(time.Second)}
	if !before.IsZero() && before.Before(f.Since) {
		f.Since = before
	}
	width := 2 * time.Second
	for until := time.Now().Add(budget); f.Since.After(first) && time.Now().Before(until) && len(f.Hits) == 0; {
		from, began := f.Since.Add(-width), time.Now()
		hits, err := within(ctx, db, traceSQL, sourceID, from, f.Since, []byte(trace))
		if slow(err) && width > time.Millisecond { // more was captured in it than fits: less of it
			width /= 8
			continue
		}
		if err != nil {
			return nil, what(err)
		}
		f.Hits, f.Since = hits, from
		if time.Since(began) < budget/8 {
			width *= 3
		}
	}
	if len(f.Hits) > mostHits {
		f.Hits = f.Hits[:mostHits]
		f.Since = f.Hits[mostHits-1].At
	}
	f.More = f.Since.After(first)
	return f, nil
}
