// Package migrations owns the database's shape: goose SQL, embedded, applied by `exactly setup` and `exactly migrate`.
//
// It promises that a database is either at exactly the version this binary was built with, or refused by name. It never
// changes a row that the pipeline wrote.
package migrations

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

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

func provider(dsn string) (*goose.Provider, func(), error) {
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return nil, nil, fmt.Errorf("open postgres: %w", err)
	}
	root, err := fs.Sub(files, ".")
	if err != nil {
		return nil, nil, err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, root)
	if err != nil {
		_ = db.Close()
		return nil, nil, fmt.Errorf("read embedded migrations: %w", err)
	}
	return p, func() { _ = db.Close() }, nil
}

// Up applies every migration that is missing and returns the names of those it applied, in order.
func Up(ctx context.Context, dsn string) ([]string, error) {
	p, done, err := provider(dsn)
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

// Versions returns the version the database has and the one this binary wants. A database without any is at 0.
func Versions(ctx context.Context, dsn string) (have, want int64, err error) {
	p, done, err := provider(dsn)
	if err != nil {
		return 0, 0, err
	}
	defer done()
	for _, s := range p.ListSources() {
		want = max(want, s.Version)
	}
	have, err = p.GetDBVersion(ctx)
	if err != nil {
		return 0, 0, fmt.Errorf("read the database's migration version: %w", err)
	}
	return have, want, nil
}

// Check returns *ErrVersion if the database is not at this binary's version.
func Check(ctx context.Context, dsn string) error {
	have, want, err := Versions(ctx, dsn)
	if err != nil {
		return err
	}
	if have != want {
		return &ErrVersion{Have: have, Want: want}
	}
	return nil
}

// MakeTimePartitions makes sure that the tables partitioned by capture time have a partition for each day in [from, to]
// (UTC days) and returns how many it made. Days that exist are left alone, so that it is safe to repeat.
func MakeTimePartitions(ctx context.Context, db interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}, from, to time.Time) (int, error) {
	if to.Before(from) {
		return 0, errors.New("make time partitions: the last day is before the first")
	}
	var n int
	err := db.QueryRowContext(ctx, `SELECT exactly_make_time_partitions($1::date, $2::date)`, from.UTC(), to.UTC()).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("make time partitions: %w", err)
	}
	return n, nil
}
