package stack

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/exactly-pipeline/exactly/internal/stack/child"
)

const (
	role     = "exactly" // the superuser initdb makes
	database = "exactly"

	postgresStopTimeout = 30 * time.Second      // a fast shutdown writes a checkpoint; after this it is an immediate one
	pollInterval        = 20 * time.Millisecond // Postgres tells nobody when it is ready: it has to be asked
)

// postgres is a server that is our child.
type postgres struct {
	home     *home
	bin      string // folder of its programs
	log      string // its output
	port     int
	password string
	noSync   bool
	failed   func(error) // told when the server ends by itself

	mu   sync.Mutex     // one start or end at a time
	proc *child.Process // the present one
}

func startPostgres(ctx context.Context, o Options, st *state, failed func(error)) (_ *postgres, err error) {
	h, err := openHome(filepath.Join(o.Dir, "postgres"))
	if err != nil {
		return nil, err
	}
	p := &postgres{home: h, log: filepath.Join(o.Dir, "postgres.log"), password: st.PostgresPassword, noSync: o.NoSyncPostgres, failed: failed}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	if p.bin, err = findBinaries(ctx, o, h); err != nil {
		return nil, err
	}
	if err := p.init(ctx); err != nil {
		return nil, fmt.Errorf("initdb: %w", err)
	}
	// A server that went down with a killed parent may still be about to end.
	crashed, err := p.awaitPredecessor(ctx)
	if err != nil {
		return nil, err
	}
	if p.port, err = child.FreePort(st.PostgresPort); err != nil {
		return nil, err
	}
	if err := p.run(ctx, crashed); err != nil {
		return nil, err
	}
	st.PostgresPort = p.port
	if err := p.ensureDatabase(ctx); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

func (p *postgres) awaitPredecessor(ctx context.Context) (bool, error) {
	data := filepath.Join(p.home.dir, "data")
	return child.AwaitPredecessor(ctx, filepath.Join(data, "postmaster.pid"), data, syscall.SIGQUIT)
}

// run starts the server and waits until it takes connections, trying again for a while if the one before crashed.
func (p *postgres) run(ctx context.Context, crashed bool) error {
	for try := 1; ; try++ {
		err := p.runOnce(ctx)
		if err == nil {
			return nil
		}
		// Backends of a server that was itself killed hold the shared memory until they notice.
		if !crashed || try == 20 || ctx.Err() != nil || !errors.Is(err, errEarlyExit) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * pollInterval):
		}
	}
}

// init makes the data directory, under another name until it is complete.
func (p *postgres) init(ctx context.Context) error {
	data, draft := filepath.Join(p.home.dir, "data"), filepath.Join(p.home.dir, "draft")
	if _, err := os.Stat(data); err == nil {
		return nil
	}
	if err := os.RemoveAll(draft); err != nil {
		return err
	}
	pw := filepath.Join(p.home.dir, "password")
	if err := p.home.write(pw, p.password+"\n"); err != nil {
		return err
	}
	defer os.Remove(pw)
	args := []string{"-D", p.home.path("draft"), "-U", role, "--auth=scram-sha-256", "--pwfile=" + p.home.path("password"), "--encoding=UTF8", "--locale=C"}
	if p.noSync {
		args = append(args, "--no-sync")
	}
	proc, err := child.Start(p.home.command(filepath.Join(p.bin, "initdb"), args...), p.log, syscall.SIGKILL)
	if err != nil {
		return err
	}
	select {
	case <-proc.Exited():
		err = proc.Result()
	case <-ctx.Done():
		proc.Kill()
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%w%s", err, proc.Tail())
	}
	if err := os.Rename(draft, data); err != nil {
		return err
	}
	return syncDir(p.home.dir)
}

var errEarlyExit = errors.New("it ended before it accepted connections")

// runOnce starts the server and waits until it takes connections.
func (p *postgres) runOnce(ctx context.Context) (err error) {
	args := []string{"-D", p.home.path("data")}
	for _, s := range settings(p.port, p.noSync) {
		args = append(args, "-c", s)
	}
	// Immediate shutdown: as a crash for what it was doing, but it takes its backends and shared memory with it.
	p.proc, err = child.Start(p.home.command(filepath.Join(p.bin, "postgres"), args...), p.log, syscall.SIGQUIT)
	if err != nil {
		return err
	}
	if err := p.awaitReady(ctx); err != nil {
		return errors.Join(err, p.stopProcess())
	}
	p.proc.OnFailure(func(err error) { p.failed(fmt.Errorf("postgres: %w", err)) })
	return nil
}

// settings suit a server that shares a developer's machine. No unix socket: nothing then outlives a SIGKILL, and the password is the only way in.
func settings(port int, noSync bool) []string {
	s := []string{
		"listen_addresses=127.0.0.1", fmt.Sprintf("port=%d", port), "unix_socket_directories=", "max_connections=100", "shared_buffers=512MB", "wal_buffers=64MB",
		"max_wal_size=2GB", "synchronous_commit=on", "timezone=UTC", "log_timezone=UTC", "logging_collector=off",
	}
	if noSync {
		// synchronous_commit stays on: off, a commit is acknowledged before it has left the process, and a kill loses it.
		return append(s, "fsync=off", "full_page_writes=off")
	}
	return append(s, "fsync=on", "full_page_writes=on")
}

func (p *postgres) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, p.dsn("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		var pg *pgconn.PgError
		if errors.As(err, &pg) && pg.Code[:2] == "28" {
			return fmt.Errorf("the server refuses the password kept in stack.json: %w", err)
		}
		select {
		case <-p.proc.Exited():
			return fmt.Errorf("%w: %v%s", errEarlyExit, p.proc.Result(), p.proc.Tail())
		case <-ctx.Done():
			return fmt.Errorf("wait for the server: %w (last: %v)%s", ctx.Err(), err, p.proc.Tail())
		case <-tick.C:
		}
	}
}

func (p *postgres) dsn(db string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(role, p.password), Host: child.Loopback(p.port), Path: "/" + db, RawQuery: "sslmode=disable"}
	return u.String()
}

// stop ends the server fast (open transactions are rolled back) and returns when it is gone.
func (p *postgres) stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.home.close()
	return p.stopProcess()
}

func (p *postgres) stopProcess() error {
	if !p.proc.Running() {
		if p.proc.Err() == nil {
			return nil // it was killed on purpose
		}
		return p.proc.Result()
	}
	// To the server only: it tells its backends. To the group only in the end.
	if !p.proc.Stop(postgresStopTimeout, syscall.SIGINT, syscall.SIGQUIT) {
		return fmt.Errorf("postgres did not stop within %v and was killed", 2*postgresStopTimeout)
	}
	return p.proc.Result()
}

func (p *postgres) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.proc.PID()
}

// kill ends the server with SIGKILL: its backends notice, and end by themselves.
func (p *postgres) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.proc.Crash()
}

// restart is an immediate shutdown, if it runs, and a start: sessions break, and what they had not committed is gone.
func (p *postgres) restart(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.proc.Stop(postgresStopTimeout, syscall.SIGQUIT) {
		return errors.New("postgres did not end by an immediate shutdown")
	}
	if _, err := p.awaitPredecessor(ctx); err != nil {
		return err
	}
	return p.run(ctx, true)
}
