package replay

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/outbox"
	"github.com/exactly-pipeline/exactly/txn"
)

// Filter says which dead letters are meant. What is left zero does not matter.
type Filter struct {
	Classes, Stages []string
	Partitions      []int32   // of the first record
	Offsets         []int64   // likewise
	Origins         []string  // first records, topic/partition/offset, as a list of letters names them
	Since, Until    time.Time // captured from Since on and before Until, by the database's clock
	States          []string  // open, requested, replayed
	Limit           int       // the oldest ones; 0: all
	Newest          bool      // in the order of capture, the newest first
}

// where is the filter in SQL over exactly_dead_letters l, the source being $1.
func (f *Filter) where() (string, []any) {
	args := []any{}
	and := []string{"l.of_source_id = $1"}
	add := func(cond string, arg any) {
		args = append(args, arg)
		and = append(and, fmt.Sprintf(cond, len(args)+1))
	}
	if len(f.Classes) > 0 {
		add("l.error_class = ANY($%d)", f.Classes)
	}
	if len(f.Stages) > 0 {
		add("l.error_stage = ANY($%d)", f.Stages)
	}
	if len(f.Partitions) > 0 {
		add("l.of_partition = ANY($%d)", f.Partitions)
	}
	if len(f.Offsets) > 0 {
		add("l.of_offset = ANY($%d)", f.Offsets)
	}
	if len(f.Origins) > 0 {
		add("(SELECT topic FROM sources WHERE source_id = $1) || '/' || l.of_partition || '/' || l.of_offset = ANY($%d)", f.Origins)
	}
	if !f.Since.IsZero() {
		add("l.created_at >= $%d", f.Since)
	}
	if !f.Until.IsZero() {
		add("l.created_at < $%d", f.Until)
	}
	if len(f.States) > 0 {
		add("l.state = ANY($%d)", f.States)
	}
	return strings.Join(and, " AND "), args
}

// DB is a pgx connection, pool or transaction.
type DB interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Each calls f with every letter of the source that the filter means, by the first record's coordinate and attempt.
func Each(ctx context.Context, db DB, src *txn.Source, f *Filter, fn func(*Letter) error) error {
	return each(ctx, db, src, f, "l.key, l.value, l.headers", fn)
}

// EachHead is Each without what was sent, which may be a megabyte a letter: it is not read.
func EachHead(ctx context.Context, db DB, src *txn.Source, f *Filter, fn func(*Letter) error) error {
	return each(ctx, db, src, f, "NULL::bytea, NULL::bytea, NULL::bytea", fn)
}

func each(ctx context.Context, db DB, src *txn.Source, f *Filter, content string, fn func(*Letter) error) error {
	where, args := f.where()
	sql := `SELECT l.source_id, l.source_partition, l.source_offset, l.of_source_id, l.of_partition, l.of_offset, l.attempt, l.error_class, l.error_stage,
		l.error_message, ` + content + `, l.created_at, l.state FROM exactly_dead_letters l WHERE ` + where
	if f.Newest {
		sql += ` ORDER BY l.created_at DESC, l.of_partition, l.of_offset DESC, l.attempt DESC`
	} else {
		sql += ` ORDER BY l.of_partition, l.of_offset, l.attempt`
	}
	if f.Limit > 0 {
		sql += fmt.Sprintf(" LIMIT %d", f.Limit)
	}
	rows, err := db.Query(ctx, sql, append([]any{src.ID}, args...)...)
	if err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		l := Letter{Topic: src.Topic}
		var headers []byte
		if err := rows.Scan(&l.SourceID, &l.Partition, &l.Offset, &l.OfSourceID, &l.OfPartition, &l.OfOffset, &l.Attempt, &l.Class, &l.Stage, &l.Message,
			&l.Key, &l.Value, &headers, &l.CreatedAt, &l.State); err != nil {
			return fmt.Errorf("read dead letters: %w", err)
		}
		if headers != nil { // asked for
			if l.Headers, err = outbox.ParseHeaders(headers); err != nil {
				return fmt.Errorf("dead letter %s: %w", l.Origin(), err)
			}
		}
		if err := fn(&l); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	return nil
}

// Count is how many letters there are of one kind.
type Count struct {
	Class   string    `json:"class"`
	Stage   string    `json:"stage"`
	State   string    `json:"state"`
	Letters int64     `json:"letters"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
}

// Counts are the letters that the filter means, by class, stage and state; its limit does not matter.
func Counts(ctx context.Context, db DB, src *txn.Source, f *Filter) ([]Count, error) {
	where, args := f.where()
	rows, err := db.Query(ctx, `SELECT l.error_class, l.error_stage, l.state, count(*), min(l.created_at), max(l.created_at) FROM exactly_dead_letters l WHERE `+where+`
		GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3`, append([]any{src.ID}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("count dead letters: %w", err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Count])
	if err != nil {
		return nil, fmt.Errorf("count dead letters: %w", err)
	}
	return out, nil
}
