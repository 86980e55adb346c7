package stack

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ensureDatabase makes the database `exactly` if this is the first start.
func (p *postgres) ensureDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, p.dsn("postgres"))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx)
	var there bool
	if err := conn.QueryRow(ctx, `SELECT exists(SELECT FROM pg_database WHERE datname = $1)`, database).Scan(&there); err != nil {
		return fmt.Errorf("look for database %s: %w", database, err)
	}
	if there {
		return nil
	}
	if _, err := conn.Exec(ctx, `CREATE DATABASE `+pgx.Identifier{database}.Sanitize()); err != nil {
		return fmt.Errorf("create database %s: %w", database, err)
	}
	return nil
}

// NewDatabase creates an empty database on the stack's server and returns its DSN, for tests that want one each. It fails if the
// name is taken.
func (s *Stack) NewDatabase(ctx context.Context, name string) (dsn string, err error) {
	s.createMu.Lock()
	defer s.createMu.Unlock()
	conn, err := pgx.Connect(ctx, s.postgres.dsn("postgres"))
	if err != nil {
		return "", fmt.Errorf("create database %s: %w", name, err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, `CREATE DATABASE `+pgx.Identifier{name}.Sanitize()); err != nil {
		return "", fmt.Errorf("create database %s: %w", name, err)
	}
	return s.postgres.dsn(name), nil
}

func (p *postgres) openLog() (*os.File, error) {
	return os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// tail is the end of the server's own log, for errors: it alone says why it did not start.
func (p *postgres) tail() string {
	const lines, bytes = 8, 4 << 10
	f, err := os.Open(p.log)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	buf := make([]byte, bytes)
	n, _ := f.ReadAt(buf, max(0, info.Size()-bytes))
	all := strings.Split(strings.TrimSpace(string(buf[:n])), "\n")
	return fmt.Sprintf("; the end of %s:\n%s", p.log, strings.Join(all[max(0, len(all)-lines):], "\n"))
}
