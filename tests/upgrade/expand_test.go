// Package upgrade holds the rules of doc/upgrade.md: migrations expand, so that the program before goes on beside the one after, and a migration that
// contracts shuts out exactly the programs that it would break.
package upgrade

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/internal/teststack"
	"github.com/exactly-pipeline/exactly/migrations"
)

var shared teststack.Package

func TestMain(m *testing.M) { os.Exit(shared.Run(m, teststack.Join)) }

func database(t *testing.T, name string) (context.Context, string, *pgx.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	dsn, err := shared.Stack.NewDatabase(ctx, name)
	require.NoError(t, err)
	conn, err := pgx.Connect(ctx, dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return ctx, dsn, conn
}

// column is what a program relies on of one.
type column struct {
	kind            string
	required, given bool // NOT NULL; somebody gives it a value if the program does not
}

func columns(t *testing.T, ctx context.Context, conn *pgx.Conn) map[string]column {
	t.Helper()
	rows, err := conn.Query(ctx, `SELECT table_name || '.' || column_name, data_type, is_nullable = 'NO', column_default IS NOT NULL OR is_identity = 'YES'
		FROM information_schema.columns JOIN information_schema.tables USING (table_schema, table_name) WHERE table_schema = 'public' AND table_type = 'BASE TABLE'`)
	require.NoError(t, err)
	out := map[string]column{}
	var name string
	var c column
	_, err = pgx.ForEachRow(rows, []any{&name, &c.kind, &c.required, &c.given}, func() error { out[name] = c; return nil })
	require.NoError(t, err)
	return out
}

// From each version to the newest: nothing that a program of that version reads or writes is gone, of another type, or asks for what it does not give.
// The exception is written down where exactly_oldest_program says so, and then the program does not start.
func TestMigrationsExpand(t *testing.T) {
	ctx, dsn, conn := database(t, "upgrade_expand")
	db, err := sql.Open("pgx", dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() })
	p, err := goose.NewProvider(goose.DialectPostgres, db, os.DirFS("../../migrations"))
	require.NoError(t, err)
	at := map[int64]map[string]column{}
	for _, s := range p.ListSources() {
		_, err := p.UpTo(ctx, s.Version)
		require.NoError(t, err)
		at[s.Version] = columns(t, ctx, conn)
	}
	var oldest int64
	require.NoError(t, conn.QueryRow(ctx, `SELECT migration FROM exactly_oldest_program`).Scan(&oldest))
	require.Contains(t, at, oldest, "no such migration")
	newest := at[migrations.Newest()]
	for version, then := range at {
		tables := map[string]bool{}
		for name := range then {
			tables[table(name)] = true
			now, there := newest[name]
			require.True(t, there, "%s of migration %d is gone", name, version)
			require.Equal(t, then[name].kind, now.kind, "%s of migration %d has another type", name, version)
		}
		for name, c := range newest {
			if _, was := then[name]; !was && tables[table(name)] {
				require.True(t, !c.required || c.given, "%s came after migration %d, must be given, and the program does not know it", name, version)
			}
		}
	}
}

func table(column string) string {
	name, _, _ := strings.Cut(column, ".")
	return name
}

// A later expand lets this program start, a later contract does not, and says what to run.
func TestWhoMayStart(t *testing.T) {
	ctx, dsn, conn := database(t, "upgrade_start")
	var version *migrations.ErrVersion
	require.ErrorAs(t, migrations.Check(ctx, dsn), &version, "an empty one")
	_, err := provision.Migrate(ctx, dsn)
	require.NoError(t, err)
	require.NoError(t, migrations.Check(ctx, dsn))
	later := migrations.Newest() + 1
	_, err = conn.Exec(ctx, fmt.Sprintf(`ALTER TABLE workers ADD COLUMN later int; INSERT INTO goose_db_version (version_id, is_applied) VALUES (%d, true)`, later))
	require.NoError(t, err)
	require.NoError(t, migrations.Check(ctx, dsn), "an expand")
	_, err = conn.Exec(ctx, fmt.Sprintf(`CREATE OR REPLACE VIEW exactly_oldest_program AS SELECT %d::bigint AS migration`, later))
	require.NoError(t, err)
	require.ErrorAs(t, migrations.Check(ctx, dsn), &version, "a contract")
	require.Equal(t, migrations.ErrVersion{Have: later, Want: later - 1}, *version)
	require.ErrorContains(t, version, "run the program version that made it, or newer")
}
