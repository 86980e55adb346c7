package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/exactly-pipeline/exactly/internal/stack/child"
)

// BackupPostgres copies the running server with pg_basebackup, under a name that RestorePostgres knows it by.
func (s *Stack) BackupPostgres(ctx context.Context, name string) error {
	return s.postgres.backup(ctx, name)
}

// RestorePostgres ends the server and starts it on a copy that BackupPostgres made: everything since is gone. A copy can be restored once.
func (s *Stack) RestorePostgres(ctx context.Context, name string) error {
	return s.postgres.restore(ctx, name)
}

func (p *postgres) backup(ctx context.Context, name string) error {
	program := filepath.Join(p.bin, "pg_basebackup")
	if _, err := os.Stat(program); err != nil {
		return fmt.Errorf("back up postgres: %w: install it with `apt-get install postgresql-client`", err)
	}
	args := []string{"--dbname=" + p.dsn("postgres"), "--pgdata=" + p.home.path("backup-"+name), "--checkpoint=fast", "--wal-method=stream"}
	if p.noSync {
		args = append(args, "--no-sync")
	}
	proc, err := child.Start(p.home.command(program, args...), p.log, syscall.SIGKILL)
	if err != nil {
		return fmt.Errorf("back up postgres: %w", err)
	}
	select {
	case <-proc.Exited():
		err = proc.Result()
	case <-ctx.Done():
		proc.Kill()
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("back up postgres: %w%s", err, proc.Tail())
	}
	return nil
}

func (p *postgres) restore(ctx context.Context, name string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.proc.Stop(postgresStopTimeout, syscall.SIGINT, syscall.SIGQUIT) {
		return errors.New("restore postgres: the server did not end")
	}
	if _, err := p.awaitPredecessor(ctx); err != nil {
		return fmt.Errorf("restore postgres: %w", err)
	}
	data := filepath.Join(p.home.dir, "data")
	if err := os.Rename(data, filepath.Join(p.home.dir, "before-"+name)); err != nil {
		return fmt.Errorf("restore postgres: %w", err)
	}
	if err := os.Rename(filepath.Join(p.home.dir, "backup-"+name), data); err != nil {
		return fmt.Errorf("restore postgres: %w", err)
	}
	return p.run(ctx, false)
}
