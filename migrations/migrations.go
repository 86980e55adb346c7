// Package migrations owns the database's shape: goose SQL, embedded, applied by `exactly setup` and `exactly migrate`.
//
// It promises that a database is at the version this binary was built with, or at a newer one that says it still suits it, or is refused by name. It
// never changes a row that the pipeline wrote.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver goose speaks through
	"github.com/pressly/goose/v3"
)

//go:embed *.sql
var files embed.FS

// ErrVersion is matched (errors.As) when the database is behind or ahead of this binary.
type ErrVersion struct{ Have, Want int64 }

func (e *ErrVersion) Error() string {
	if e.Have < e.Want {
		return fmt.Sprintf("the database is at migration %d, this program needs %d: run `exactly migrate`", e.Have, e.Want)
	}
	return fmt.Sprintf("the database is at migration %d, newer than this program's %d: run the program version that made it, or newer", e.Have, e.Want)
}

func provider(dsn string) (*goose.Provider, *sql.DB, func(), error) {
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("open postgres: %w", err)
	}
	root, err := fs.Sub(files, ".")
	if err != nil {
		return nil, nil, nil, err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, root)
	if err != nil {
		_ = db.Close()
		return nil, nil, nil, fmt.Errorf("read embedded migrations: %w", err)
	}
	return p, db, func() { _ = db.Close() }, nil
}

// Newest is the version that this program is made for.
func Newest() (newest int64) {
	all, err := fs.Glob(files, "*.sql")
	if err != nil {
		panic("migrations: " + err.Error()) // the pattern is ours
	}
	for _, name := range all {
		if v, err := goose.NumericComponent(name); err == nil {
			newest = max(newest, v)
		}
	}
	return newest
}

// Pending names the migrations that Up would apply, in order. It changes nothing.
func Pending(ctx context.Context, dsn string) ([]string, error) {
	p, db, done, err := provider(dsn)
	if err != nil {
		return nil, err
	}
	defer done()
	have, err := version(ctx, p, db)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range p.ListSources() {
		if s.Version > have {
			names = append(names, s.Path)
		}
	}
	return names, nil
}

// Up applies every migration that is missing and returns the names of those it applied, in order.
func Up(ctx context.Context, dsn string) ([]string, error) {
	p, _, done, err := provider(dsn)
	if err != nil {
		return nil, err
	}
	defer done()
	res, err := p.Up(ctx)
	if err != nil {
		return nil, fmt.Errorf("apply migrations: %w", err)
	}
	names := make([]string, 0, len(res))
	for _, r := range res {
		names = append(names, r.Source.Path)
	}
	return names, nil
}

// Versions returns the version the database has and the one this binary wants. A database without any is at 0. It changes nothing.
func Versions(ctx context.Context, dsn string) (have, want int64, err error) {
	p, db, done, err := provider(dsn)
	if err != nil {
		return 0, 0, err
	}
	defer done()
	have, err = version(ctx, p, db)
	return have, Newest(), err
}

// version is the database's. goose makes its table when it is asked for the version, which whoever only looks may neither do nor want.
func version(ctx context.Context, p *goose.Provider, db *sql.DB) (have int64, err error) {
	var there bool
	if err = db.QueryRowContext(ctx, `SELECT to_regclass($1) IS NOT NULL`, goose.DefaultTablename).Scan(&there); err == nil && there {
		have, err = p.GetDBVersion(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("read the database's migration version: %w", err)
	}
	return have, nil
}

// Applied is the version of the database behind db. It is one query, unlike Versions, and a worker's rights suffice.
func Applied(ctx context.Context, db interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}) (version int64, err error) {
	err = db.QueryRow(ctx, `SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied`).Scan(&version)
	if err != nil {
		return 0, fmt.Errorf("read the database's migration version: %w", err)
	}
	return version, nil
}

// Latest is the version that this binary wants.
func Latest() (latest int64) {
	names, err := fs.Glob(files, "*.sql")
	for _, name := range names {
		var v int64
		if err == nil {
			v, err = goose.NumericComponent(name)
		}
		latest = max(latest, v)
	}
	if err != nil {
		panic("migrations: " + err.Error()) // they are embedded
	}
	return latest
}

// Check returns *ErrVersion if this binary does not suit the database: it is at an older version, or at a newer one whose exactly_oldest_program is
// newer than this binary.
func Check(ctx context.Context, dsn string) error {
	p, db, done, err := provider(dsn)
	if err != nil {
		return err
	}
	defer done()
	have, err := version(ctx, p, db)
	if err != nil {
		return err
	}
	want := Newest()
	if have == want {
		return nil
	}
	if have > want {
		var oldest int64
		if err := db.QueryRowContext(ctx, `SELECT migration FROM exactly_oldest_program`).Scan(&oldest); err != nil {
			return fmt.Errorf("the database is at migration %d, this program is made for %d; ask it which programs it still suits: %w", have, want, err)
		}
		if oldest <= want {
			return nil
		}
	}
	return &ErrVersion{Have: have, Want: want}
}

// MakeDaysAhead makes sure that the tables partitioned by capture time have a partition for today (UTC, by the server's clock) and each of
// the given number of days after it, 31 at most, and returns how many it made. It is safe to repeat, and all of this that a worker may do.
func MakeDaysAhead(ctx context.Context, db interface {
	QueryRow(context.Context, string, ...any) pgx.Row
}, days int) (int, error) {
	var n int
	if err := db.QueryRow(ctx, `SELECT exactly_make_days_ahead($1)`, days).Scan(&n); err != nil {
		return 0, fmt.Errorf("make time partitions: %w", err)
	}
	return n, nil
}
