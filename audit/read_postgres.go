package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/outbox"
)

// entrySQL is the entries that cover an offset: the captures by where they end, which they do in the order of offsets, and people's deeds, of
// which there are few, by an index of their own.
const entrySQL = `SELECT seq, kind, from_offset, to_offset, worker, epoch, who, why, build, schemas, geo, encode(hash, 'hex'), committed_at, captured_at FROM (
	(SELECT * FROM offset_ledger WHERE source_id = $1 AND source_partition = $2 AND to_offset > $3 ORDER BY to_offset LIMIT 64)
	UNION (SELECT * FROM offset_ledger WHERE source_id = $1 AND source_partition = $2 AND kind <> 'capture' AND from_offset <= $3 AND to_offset > $3 LIMIT 64)) l
	WHERE from_offset <= $3 AND to_offset > $3 ORDER BY seq`

// readPostgres reads what Postgres has of the record: all by index. The outbox has none by coordinate; the ledger says when it was written.
func (r *Record) readPostgres(ctx context.Context, db DB, sourceID int16) error {
	rows, _ := db.Query(ctx, entrySQL, sourceID, r.Partition, r.Offset)
	var written []time.Time
	var err error
	r.Entries, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (e LedgerPlace, err error) {
		var at time.Time
		err = row.Scan(&e.Seq, &e.Kind, &e.From, &e.To, &e.Worker, &e.Epoch, &e.Who, &e.Why, &e.Build, &e.Schemas, &e.Geo, &e.Hash, &e.CommittedAt, &at)
		written = append(written, at)
		return e, err
	})
	if err != nil {
		return fmt.Errorf("offset_ledger: %w", err)
	}
	const where = ` WHERE source_id = $1 AND source_partition = $2 AND source_offset = $3 `
	rows, _ = db.Query(ctx, `SELECT tableoid::regclass::text, captured_at, user_id, session_id, "timestamp", url, host(ip), country, geo_build FROM enriched_clicks`+where+
		`ORDER BY captured_at LIMIT 10`, sourceID, r.Partition, r.Offset)
	r.Rows, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (s StoredRow, err error) {
		var at time.Time
		err = row.Scan(&s.Table, &s.CapturedAt, &s.UserID, &s.SessionID, &at, &s.URL, &s.IP, &s.Country, &s.Geo)
		s.TimestampMs = at.UnixMilli()
		return s, err
	})
	if err != nil {
		return fmt.Errorf("enriched_clicks: %w", err)
	}
	rows, _ = db.Query(ctx, `SELECT tableoid::regclass::text, created_at, error_class, error_stage, error_message, key, value FROM dead_letters`+where+
		`ORDER BY created_at LIMIT 10`, sourceID, r.Partition, r.Offset)
	if r.Dead, err = pgx.CollectRows(rows, pgx.RowToStructByPos[DeadRow]); err != nil {
		return fmt.Errorf("dead_letters: %w", err)
	}
	for _, at := range written {
		if err := r.readOutbox(ctx, db, sourceID, at); err != nil {
			return fmt.Errorf("outbox: %w", err)
		}
	}
	return nil
}

// readOutbox reads the messages that one entry's transaction wrote.
func (r *Record) readOutbox(ctx context.Context, db DB, sourceID int16, written time.Time) error {
	rows, err := db.Query(ctx, `SELECT tableoid::regclass::text, created_at, seq, topic, partition, "timestamp", key, value, headers, erased_at IS NOT NULL, salt, record_hash
		FROM outbox WHERE created_at = $4 AND source_id = $1 AND source_partition = $2 AND source_offset = $3 ORDER BY seq LIMIT 10`,
		sourceID, r.Partition, r.Offset, written)
	if err != nil {
		return err
	}
	ms, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (m Message, err error) {
		var headers []byte
		err = row.Scan(&m.Table, &m.CreatedAt, &m.Seq, &m.At.Topic, &m.At.Partition, &m.TimestampMs, &m.Key, &m.Value, &headers, &m.Erased, &m.Salt, &m.RecordHash)
		m.At.Offset = -1
		if err == nil && !m.Erased {
			var perr error
			m.Headers, perr = outbox.ParseHeaders(headers)
			m.HeaderDamage = perr != nil
		}
		return m, err
	})
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	r.Outbox = append(r.Outbox, ms...)
	return nil
}
