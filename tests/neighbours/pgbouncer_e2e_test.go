//go:build e2e && linux

package neighbours

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/teststack"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

var shared teststack.Package

func TestMain(m *testing.M) { os.Exit(shared.Run(m, teststack.Join)) }

// pgbouncer runs one before the database and returns the DSN that leads through it.
func pgbouncer(t *testing.T, ctx context.Context, dsn, mode, more string) string {
	t.Helper()
	bin, err := exec.LookPath("pgbouncer")
	if err != nil {
		bin = "/usr/sbin/pgbouncer"
	}
	require.FileExists(t, bin, "apt-get install pgbouncer")
	pc, err := pgx.ParseConfig(dsn)
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := l.Addr().(*net.TCPAddr).Port
	require.NoError(t, l.Close())
	dir, err := os.MkdirTemp("", "exactly-pgbouncer-") // another user reads it
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o755))
	users := filepath.Join(dir, "users.txt")
	require.NoError(t, os.WriteFile(users, fmt.Appendf(nil, "%q %q\n", pc.User, pc.Password), 0o644))
	ini := filepath.Join(dir, "pgbouncer.ini")
	require.NoError(t, os.WriteFile(ini, fmt.Appendf(nil, `[databases]
%s = host=%s port=%d dbname=%s user=%s password=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = %s
%s
`, pc.Database, pc.Host, pc.Port, pc.Database, pc.User, pc.Password, port, users, mode, more), 0o644))
	log := &teststack.Log{}
	cmd := exec.Command(bin, ini)
	cmd.Stdout, cmd.Stderr = log, log
	if os.Geteuid() == 0 { // it refuses to run as root
		nobody, err := user.Lookup("nobody")
		require.NoError(t, err)
		uid, _ := strconv.ParseUint(nobody.Uid, 10, 32)
		gid, _ := strconv.ParseUint(nobody.Gid, 10, 32)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	address := fmt.Sprintf("127.0.0.1:%d", port)
	for {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
			break
		}
		require.NoError(t, wait.For(ctx, 50*time.Millisecond), log.String())
	}
	return fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", pc.User, address, pc.Database)
}

// In transaction mode a worker ends at its start and says why, however much PgBouncer and the role are made to look as if sessions were kept; in session
// mode, with the timeouts at the role, it works.
func TestPgBouncer(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	dsn, err := shared.Stack.NewDatabase(ctx, "neighbours_pgbouncer")
	require.NoError(t, err)
	env := shared.Stack.Env()
	for k, v := range map[string]string{
		"EXACTLY_GROUP": "pooled", "EXACTLY_TOPICS_INPUT": "pooled.in", "EXACTLY_TOPICS_OUTPUT": "pooled.out", "EXACTLY_TOPICS_DLQ": "pooled.dlq", "EXACTLY_TOPICS_REPLAY": "",
		"EXACTLY_WORKER_ID": "w", "EXACTLY_HTTP_ADDR": "", "EXACTLY_TOPICS_PARTITIONS": "2",
	} {
		env[k] = v
	}
	command := func(dsn string, args ...string) (*exec.Cmd, *teststack.Log) {
		cmd, log := exec.CommandContext(ctx, shared.Bin, args...), &teststack.Log{}
		cmd.Env = append(os.Environ(), "EXACTLY_POSTGRES_DSN="+dsn)
		for k, v := range env {
			if k != "EXACTLY_POSTGRES_DSN" {
				cmd.Env = append(cmd.Env, k+"="+v)
			}
		}
		cmd.Stdout, cmd.Stderr = log, log
		return cmd, log
	}
	ok := func(args ...string) {
		cmd, log := command(dsn, args...)
		require.NoError(t, cmd.Run(), log.String())
	}
	ok("setup")
	const ignore = "ignore_startup_parameters = idle_in_transaction_session_timeout, tcp_user_timeout"
	refused := func(what, mode, more, says string) {
		cmd, log := command(pgbouncer(t, ctx, dsn, mode, more), "run")
		_ = cmd.Run() //nolint:errcheck // the exit code tells
		require.Equal(t, 1, cmd.ProcessState.ExitCode(), "%s: %s", what, log)
		require.Contains(t, log.String(), "a connection pooler that does not keep sessions", what)
		require.Contains(t, log.String(), says, what)
	}
	refused("as it comes", "transaction", "", "unsupported startup parameter")
	refused("parameters ignored", "transaction", ignore, "was asked to be 5000 ms, and is 0")
	refused("parameters ignored", "session", ignore, "was asked to be 5000 ms, and is 0")

	conn, err := pgx.Connect(ctx, dsn)
	require.NoError(t, err)
	defer conn.Close(ctx)
	pc := conn.Config()
	_, err = conn.Exec(ctx, "ALTER ROLE "+pgx.Identifier{pc.User}.Sanitize()+" IN DATABASE "+pgx.Identifier{pc.Database}.Sanitize()+" SET idle_in_transaction_session_timeout = '5s'")
	require.NoError(t, err)
	refused("and the role has it", "transaction", ignore, "two sessions that took turns had the backends")
	refused("statement by statement", "statement", ignore, "two sessions that took turns had the backends")

	through, log := command(pgbouncer(t, ctx, dsn, "session", ignore), "run")
	require.NoError(t, through.Start())
	ok("generate", "--rate", "0", "--count", "3000", "--seed", "1")
	for {
		audit, _ := command(dsn, "audit", "--settled", "--quiet")
		if audit.Run() == nil {
			break
		}
		require.NoError(t, wait.For(ctx, 200*time.Millisecond), log.Tail())
	}
	require.NoError(t, through.Process.Signal(syscall.SIGTERM))
	require.NoError(t, through.Wait(), log.Tail())
	require.False(t, strings.Contains(log.String(), "ERROR"), log.Tail())
}
