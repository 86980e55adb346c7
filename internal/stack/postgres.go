package stack

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
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
	log      string // its output
	port     int
	password string
	cmd      *exec.Cmd
	exited   chan struct{} // closed when the process is gone
	waitErr  error         // set before exited is closed
	stopping chan struct{} // closed when the end is ours
}

func startPostgres(ctx context.Context, o Options, st *state) (_ *postgres, err error) {
	h, err := openHome(filepath.Join(o.Dir, "postgres"))
	if err != nil {
		return nil, err
	}
	p := &postgres{home: h, log: filepath.Join(o.Dir, "postgres.log"), password: st.PostgresPassword}
	defer func() {
		if err != nil {
			h.close()
		}
	}()
	bin, err := findBinaries(ctx, o, h)
	if err != nil {
		return nil, err
	}
	if err := p.init(ctx, bin, o.NoSyncPostgres); err != nil {
		return nil, fmt.Errorf("initdb: %w", err)
	}
	// A server that went down with a killed parent may still be about to end.
	crashed, err := awaitPredecessor(ctx, h.dir)
	if err != nil {
		return nil, err
	}
	if p.port, err = freePort(st.PostgresPort); err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		err := p.run(ctx, bin, o.NoSyncPostgres)
		if err == nil {
			break
		}
		// Backends of a server that was itself killed hold the shared memory until they notice.
		if !crashed || try == 20 || ctx.Err() != nil || !errors.Is(err, errEarlyExit) {
			return nil, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * pollInterval):
		}
	}
	st.PostgresPort = p.port
	if err := p.ensureDatabase(ctx); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// init makes the data directory, under another name until it is complete.
func (p *postgres) init(ctx context.Context, bin string, noSync bool) error {
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
	out, err := p.openLog()
	if err != nil {
		return err
	}
	defer out.Close()
	args := []string{"-D", p.home.path("draft"), "-U", role, "--auth=scram-sha-256", "--pwfile=" + p.home.path("password"), "--encoding=UTF8", "--locale=C"}
	if noSync {
		args = append(args, "--no-sync")
	}
	cmd := p.home.command(filepath.Join(bin, "initdb"), args...)
	cmd.Stdout, cmd.Stderr = out, out
	diesWithUs(cmd, syscall.SIGKILL)
	exited, err := spawn(cmd)
	if err != nil {
		return err
	}
	select {
	case err = <-exited:
	case <-ctx.Done():
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-exited
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%w%s", err, p.tail())
	}
	if err := os.Rename(draft, data); err != nil {
		return err
	}
	return syncDir(p.home.dir)
}

var errEarlyExit = errors.New("it ended before it accepted connections")

// run starts the server and waits until it takes connections.
func (p *postgres) run(ctx context.Context, bin string, noSync bool) error {
	out, err := p.openLog()
	if err != nil {
		return err
	}
	defer out.Close() // the child has its own
	args := []string{"-D", p.home.path("data")}
	for _, s := range settings(p.port, noSync) {
		args = append(args, "-c", s)
	}
	p.cmd = p.home.command(filepath.Join(bin, "postgres"), args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// Immediate shutdown: as a crash for what it was doing, but it takes its backends and shared memory with it.
	diesWithUs(p.cmd, syscall.SIGQUIT)
	p.exited, p.stopping = make(chan struct{}), make(chan struct{})
	exited, err := spawn(p.cmd)
	if err != nil {
		return err
	}
	go func() {
		p.waitErr = <-exited
		close(p.exited)
	}()
	if err := p.awaitReady(ctx); err != nil {
		return errors.Join(err, p.stopProcess())
	}
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
		case <-p.exited:
			return fmt.Errorf("%w: %v%s", errEarlyExit, p.waitErr, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("wait for the server: %w (last: %v)%s", ctx.Err(), err, p.tail())
		case <-tick.C:
		}
	}
}

func (p *postgres) dsn(db string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(role, p.password), Host: loopback(p.port), Path: "/" + db, RawQuery: "sslmode=disable"}
	return u.String()
}

// stop ends the server fast (open transactions are rolled back) and returns when it is gone.
func (p *postgres) stop() error {
	defer p.home.close()
	return p.stopProcess()
}

func (p *postgres) stopProcess() error {
	select {
	case <-p.exited:
		return p.waitErr
	default:
	}
	close(p.stopping)
	// To the server only: it tells its backends. To the group only in the end.
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT} {
		_ = p.cmd.Process.Signal(s)
		select {
		case <-p.exited:
			return p.waitErr
		case <-time.After(postgresStopTimeout):
		}
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
	return fmt.Errorf("postgres did not stop within %v and was killed", 2*postgresStopTimeout)
}

// err is how the server ended, unless it runs or we ended it.
func (p *postgres) err() error {
	select {
	case <-p.stopping:
		return nil
	default:
	}
	select {
	case <-p.exited:
		return fmt.Errorf("postgres ended by itself: %v%s", p.waitErr, p.tail())
	default:
		return nil
	}
}
