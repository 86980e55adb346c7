package txn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/pgcopy"
)

var clickTable = engine.Table{Name: "enriched_clicks", Columns: []string{"user_id", "session_id", "timestamp", "url", "ip", "country", "geo_build"}}

// withRows adds a row for each record of the batch.
func (d *db) withRows(b *engine.Batch, url func(offset int64) string) *engine.Batch {
	var rows []byte
	for o := b.From; o < b.To; o++ {
		rows = pgcopy.Tuple(rows, 10)
		rows = pgcopy.Int8(pgcopy.Int4(pgcopy.Int2(rows, d.src.ID), b.Partition), o)
		rows = pgcopy.Text(pgcopy.Int8(rows, 100+o), "s")
		rows = pgcopy.Text(pgcopy.TimestamptzMs(rows, 1_700_000_000_000), url(o))
		rows = pgcopy.Bytea(pgcopy.Text(pgcopy.Inet(rows, netip.MustParseAddr("203.0.113.7")), "ZZ"), []byte("geo/1"))
	}
	b.Tables, b.Rows = [][]byte{rows}, b.Records
	return b
}

// Rows that Postgres can't hold are found by bisection, among many and in several partitions, and nothing of the capture stays. Without them the
// same session captures the rest.
func TestRefusedRowsAreFound(t *testing.T) {
	d := newDB(t)
	s, err := OpenStore(d.ctx, StoreConfig{
		DSN: d.dsn, Group: "g", Worker: "a", Build: "v1", LockTimeout: 300 * time.Millisecond, IdleTimeout: 20 * time.Second,
		Tables: []engine.Table{clickTable}, Log: zaptest.NewLogger(t),
	}, d.src)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	d.started(s, 2)
	d.exec(`ALTER TABLE enriched_clicks ADD CONSTRAINT nobody CHECK (user_id <> 777)`)
	e0, e1 := d.claim(s, 0).Epoch, d.claim(s, 1).Epoch
	url := func(p int32) func(o int64) string {
		return func(o int64) string {
			switch {
			case p == 0 && (o == 13 || o == 400):
				return "https://example.com/\x00"
			case p == 1 && o == 499:
				return "\xff\xfe"
			}
			return "https://example.com/"
		}
	}
	_, err = s.Capture(d.ctx, []*engine.Batch{d.withRows(d.batch(0, e0, 0, 500, 0), url(0)), d.withRows(d.batch(1, e1, 0, 900, 0), url(1))})
	var refused *engine.RefusedError
	require.ErrorAs(t, err, &refused)
	says := map[[2]int64]string{}
	for _, r := range refused.Records {
		require.Equal(t, []string{engine.ClassRefused, "capture"}, []string{r.Why.Class, r.Why.Stage})
		says[[2]int64{int64(r.Partition), r.Offset}] = r.Why.Message
	}
	utf8 := "Postgres refuses the row: SQLSTATE 22021"
	require.Equal(t, map[[2]int64]string{
		{0, 13}: utf8, {0, 400}: utf8, {1, 499}: utf8, {1, 677}: "Postgres refuses the row: SQLSTATE 23514, table enriched_clicks, constraint nobody",
	}, says)
	require.Zero(t, d.number(`SELECT count(*) FROM enriched_clicks`)+d.number(`SELECT count(*) FROM outbox`)+d.next(0)+d.next(1))

	fine := func(int64) string { return "https://example.com/" }
	require.Equal(t, []int64{2}, d.capture(s, d.withRows(d.batch(0, d.claim(s, 0).Epoch, 0, 500, 0), fine)))
	require.EqualValues(t, 500, d.number(`SELECT count(*) FROM enriched_clicks`))
}

// A row whose name is there already is no dead letter: something is badly wrong, and a person has to see it.
func TestDuplicateIsNoDeadLetter(t *testing.T) {
	d := newDB(t)
	s, err := OpenStore(d.ctx, StoreConfig{
		DSN: d.dsn, Group: "g", Worker: "a", Build: "v1", LockTimeout: 300 * time.Millisecond, IdleTimeout: 20 * time.Second,
		Tables: []engine.Table{clickTable}, Log: zaptest.NewLogger(t),
	}, d.src)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	d.started(s, 1)
	fine := func(int64) string { return "https://example.com/" }
	d.capture(s, d.withRows(d.batch(0, d.claim(s, 0).Epoch, 0, 5, 0), fine))
	d.exec(`UPDATE partition_offsets SET next_offset = 3`)
	_, err = s.Capture(d.ctx, []*engine.Batch{d.withRows(d.batch(0, d.claim(s, 0).Epoch, 3, 8, 0), fine)})
	require.Error(t, err)
	var refused *engine.RefusedError
	require.False(t, errors.As(err, &refused), "%v", err)
	require.Equal(t, "23505", code(err))
}

// A search that is ended in the middle tells what it has found by then.
func TestRefusedBeforeTheEnd(t *testing.T) {
	d := newDB(t)
	s, err := OpenStore(d.ctx, StoreConfig{
		DSN: d.dsn, Group: "g", Worker: "a", Build: "v1", LockTimeout: 300 * time.Millisecond, IdleTimeout: 20 * time.Second,
		Tables: []engine.Table{clickTable}, Log: zaptest.NewLogger(t),
	}, d.src)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	d.started(s, 1)
	// The session ends when the row of offset 600 is tried alone.
	d.exec(`CREATE FUNCTION ends() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF NEW.source_offset = 600 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NEW; END $$`)
	d.exec(`CREATE TRIGGER ends BEFORE INSERT ON enriched_clicks FOR EACH ROW EXECUTE FUNCTION ends()`)
	bad := func(o int64) string {
		if o == 13 || o == 700 {
			return "\xff"
		}
		return "https://example.com/"
	}
	_, err = s.Capture(d.ctx, []*engine.Batch{d.withRows(d.batch(0, d.claim(s, 0).Epoch, 0, 900, 0), bad)})
	var refused *engine.RefusedError
	require.ErrorAs(t, err, &refused)
	require.Len(t, refused.Records, 1)
	require.EqualValues(t, 13, refused.Records[0].Offset)
	require.Zero(t, d.number(`SELECT count(*) FROM enriched_clicks`)+d.next(0))
}

// What Postgres has against a row, and would again, makes a dead letter; what is Postgres' own trouble, or a bug of ours, never does.
func TestRefusesRows(t *testing.T) {
	pg := func(code, constraint string) error {
		return fmt.Errorf("copy: %w", &pgconn.PgError{Code: code, ConstraintName: constraint})
	}
	for _, c := range []struct {
		what    string
		err     error
		refuses bool
	}{
		{"deadlock", pg("40P01", ""), false},
		{"serialization failure", pg("40001", ""), false},
		{"too many connections", pg("53300", ""), false},
		{"disk full", pg("53100", ""), false},
		{"out of memory", pg("53200", ""), false},
		{"ended by an administrator", pg("57P01", ""), false},
		{"crashed", pg("57P02", ""), false},
		{"starting up", pg("57P03", ""), false},
		{"statement timeout", pg("57014", ""), false},
		{"lock timeout", pg("55P03", ""), false},
		{"idle in transaction", pg("25P03", ""), false},
		{"read only: a standby", pg("25006", ""), false},
		{"connection failure", pg("08006", ""), false},
		{"no table", pg("42P01", ""), false},
		{"no right", pg("42501", ""), false},
		{"I/O error", pg("58030", ""), false},
		{"internal error", pg("XX000", ""), false},
		{"duplicate key", pg("23505", "pk"), false},
		{"no time partition", pg("23514", ""), false},
		{"our own COPY format", pg("22P04", ""), false},
		{"connection lost", io.ErrUnexpectedEOF, false},
		{"connection refused", syscall.ECONNREFUSED, false},
		{"deadline", context.DeadlineExceeded, false},
		{"no code", pg("", ""), false},
		{"out of range", pg("22003", ""), true},
		{"too long", pg("22001", ""), true},
		{"bad date", pg("22008", ""), true},
		{"not UTF-8", pg("22021", ""), true},
		{"bad binary", pg("22P03", ""), true},
		{"null", pg("23502", ""), true},
		{"foreign key", pg("23503", "fk"), true},
		{"a check", pg("23514", "positive"), true},
		{"program limit", pg("54000", ""), true},
	} {
		require.Equal(t, c.refuses, refusesRows(c.err), c.what)
	}
}
