package txn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/pgcopy"
	"github.com/exactly-pipeline/exactly/outbox"
)

// maxRefused is how many records one search names. If there are more, the next capture fails again and the next search goes on.
const maxRefused = 100

// searchTimeout bounds one search: its own, since a large capture's may be nearly used up when it fails.
const searchTimeout = captureTimeout

// refusesRows says that Postgres refused what stands in a row, and would again: data exceptions (class 22), broken constraints (23) and program
// limits (54). Not so where the row is not to blame: a duplicate key (23505) means that a row of that name is there, which is for the compare-and-set
// and the audit, never for the dead letters; a check without a name is a missing time partition; a bad COPY format (22P04) is our own fault.
func refusesRows(err error) bool {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || len(pe.Code) != 5 {
		return false
	}
	switch pe.Code {
	case "23505", "22P04":
		return false
	case "23514":
		return pe.ConstraintName != ""
	}
	switch pe.Code[:2] {
	case "22", "23", "54":
		return true
	}
	return false
}

// why is what the dead letter says. Postgres' own message may quote the value.
func why(pe *pgconn.PgError) *engine.Permanent {
	says := "Postgres refuses the row: SQLSTATE " + pe.Code
	for _, n := range []struct{ what, name string }{{"table", strings.TrimSuffix(strings.TrimRight(pe.TableName, "_0123456789"), "_default")}, {"column", pe.ColumnName}, {"constraint", pe.ConstraintName}} {
		if n.name != "" {
			says += ", " + n.what + " " + n.name
		}
	}
	return &engine.Permanent{Class: engine.ClassRefused, Stage: "capture", Message: says}
}

// tuple is one row on its way into a table.
type tuple struct {
	partition int32
	offset    int64
	bytes     []byte
}

// whichRows finds the rows for which a COPY failed, by bisection: each half is copied under a savepoint, a half that fails is halved, and one that is
// taken stays, so that a row is tried beside all that come before it. All of it is rolled back. It returns an *engine.RefusedError, or the error as
// it came where no row alone is to blame. If something ends the search, time above all, what it has found stands: each of those rows was refused alone. The
// next capture gets further, and else none would ever end.
func (s *Store) whichRows(ctx context.Context, c *pgx.Conn, batches []*engine.Batch, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, searchTimeout)
	defer cancel()
	if _, err := c.Exec(ctx, "ROLLBACK"); err != nil {
		return errors.Join(cause, err)
	}
	if _, err := c.Exec(ctx, "BEGIN"); err != nil {
		return errors.Join(cause, err)
	}
	b := bisection{conn: c, seen: map[[2]int64]bool{}}
	for i, sql := range s.copySQL {
		b.table(ctx, sql, batches, func(b *engine.Batch) []byte { return b.Tables[i] })
	}
	b.table(ctx, outbox.CopySQL, batches, func(b *engine.Batch) []byte { return b.Outbox })
	b.table(ctx, engine.DeadLetterCopySQL, batches, func(b *engine.Batch) []byte { return b.DeadRows })
	failpoint.Hit(failpoint.CaptureBisect)
	if _, err := c.Exec(ctx, "ROLLBACK"); err != nil || b.err != nil {
		cause = errors.Join(cause, b.err, err)
	}
	if len(b.found) == 0 {
		return cause
	}
	return &engine.RefusedError{Records: b.found, Err: cause}
}

// bisection is one search.
type bisection struct {
	conn  *pgx.Conn
	found []engine.Refused
	seen  map[[2]int64]bool
	err   error // what ended it: not a row's fault
}

func (b *bisection) table(ctx context.Context, sql string, batches []*engine.Batch, part func(*engine.Batch) []byte) {
	var all []tuple
	for _, batch := range batches {
		for rest := part(batch); len(rest) > 0 && b.err == nil; {
			row, behind, offset, ok := pgcopy.First(rest)
			if !ok {
				b.err = fmt.Errorf("%s: a tuple without its source offset", sql)
				return
			}
			all, rest = append(all, tuple{batch.Partition, offset, row}), behind
		}
	}
	b.search(ctx, sql, all)
}

func (b *bisection) search(ctx context.Context, sql string, rows []tuple) {
	if len(rows) == 0 || b.err != nil || len(b.found) >= maxRefused {
		return
	}
	err := b.copy(ctx, sql, rows)
	switch {
	case err == nil:
	case !refusesRows(err):
		b.err = err
	case len(rows) == 1:
		if at := [2]int64{int64(rows[0].partition), rows[0].offset}; !b.seen[at] {
			b.seen[at] = true
			var pe *pgconn.PgError
			errors.As(err, &pe)
			b.found = append(b.found, engine.Refused{Partition: rows[0].partition, Offset: rows[0].offset, Why: why(pe)})
		}
	default:
		b.search(ctx, sql, rows[:len(rows)/2])
		b.search(ctx, sql, rows[len(rows)/2:])
	}
}

// copy copies the rows, or leaves everything as it was.
func (b *bisection) copy(ctx context.Context, sql string, rows []tuple) error {
	if _, err := b.conn.Exec(ctx, "SAVEPOINT half"); err != nil {
		return fmt.Errorf("savepoint: %w", err)
	}
	parts := []io.Reader{bytes.NewReader(pgcopy.Header)}
	for i := range rows {
		parts = append(parts, bytes.NewReader(rows[i].bytes))
	}
	_, err := b.conn.PgConn().CopyFrom(ctx, io.MultiReader(slices.Concat(parts, []io.Reader{bytes.NewReader(pgcopy.Trailer)})...), sql)
	end := "RELEASE half"
	if err != nil {
		end = "ROLLBACK TO half; RELEASE half"
	}
	if _, e := b.conn.Exec(ctx, end); e != nil {
		return errors.Join(e, err)
	}
	return err
}
