//go:build e2e

package upgrade

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/connect"
	"github.com/exactly-pipeline/exactly/internal/teststack"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

// earliest is what is upgraded from while there is no release: the last commit before the migrations 7 to 20.
const earliest = "4a481ad"

// earlier builds the program of the newest release that is not this commit, or of earliest, from the repository's own history.
func earlier(t *testing.T) (bin, revision string) {
	t.Helper()
	git := func(args ...string) (string, error) {
		cmd := exec.Command("git", args...)
		cmd.Dir = "../.."
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	revision, err := git("describe", "--tags", "--abbrev=0", "HEAD^")
	if err != nil {
		revision = earliest
	}
	out, err := git("rev-parse", "--verify", revision+"^{commit}")
	require.NoError(t, err, "the history has no %s: this clone is shallow, or no clone at all; git fetch --unshallow --tags brings it. %s", revision, out)
	dir := t.TempDir()
	src, tar := filepath.Join(dir, "src"), filepath.Join(dir, "src.tar")
	require.NoError(t, os.Mkdir(src, 0o755))
	out, err = git("archive", "--output", tar, revision)
	require.NoError(t, err, out)
	unpacked, err := exec.Command("tar", "-xf", tar, "-C", src).CombinedOutput()
	require.NoError(t, err, "%s", unpacked)
	bin = filepath.Join(dir, "earlier")
	build := exec.Command("go", "build", "-ldflags", "-s -w -X main.version=earlier", "-o", bin, "./cmd/exactly")
	build.Dir = src
	built, err := build.CombinedOutput()
	require.NoError(t, err, "%s", built)
	return bin, revision
}

type side struct {
	t   *testing.T
	ctx context.Context
	env []string
}

func (s *side) run(bin string, args ...string) (string, int) {
	cmd := exec.CommandContext(s.ctx, bin, args...)
	cmd.Env = append(os.Environ(), s.env...)
	out, _ := cmd.CombinedOutput() //nolint:errcheck // the exit code tells
	return string(out), cmd.ProcessState.ExitCode()
}

func (s *side) ok(bin string, args ...string) string {
	s.t.Helper()
	out, code := s.run(bin, args...)
	require.Zero(s.t, code, "%s %v: %s", filepath.Base(bin), args, out)
	return out
}

func (s *side) worker(bin, id string) (*exec.Cmd, *teststack.Log) {
	s.t.Helper()
	cmd, log := exec.Command(bin, "run"), &teststack.Log{}
	cmd.Env = append(append(os.Environ(), s.env...), "EXACTLY_WORKER_ID="+id)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(s.t, cmd.Start())
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if s.t.Failed() {
			s.t.Logf("%s %s: %s", filepath.Base(bin), id, log.Tail())
		}
	})
	return cmd, log
}

func (s *side) until(what string, ok func() bool) {
	s.t.Helper()
	for began := time.Now(); !ok(); {
		if time.Since(began) > 90*time.Second || wait.For(s.ctx, 100*time.Millisecond) != nil {
			s.t.Fatalf("in vain: %s", what)
		}
	}
}

// The earlier release works; the database is migrated under it; both versions work side by side; the earlier ends. All of it is proven by the newer audit.
func TestEarlierBesideThis(t *testing.T) {
	old, revision := earlier(t)
	t.Log("the earlier release:", revision)
	ctx, dsn, conn := database(t, "upgrade_beside")
	s := &side{t: t, ctx: ctx}
	env := shared.Stack.Env()
	for k, v := range map[string]string{
		"EXACTLY_POSTGRES_DSN": dsn, "EXACTLY_GROUP": "upgrade", "EXACTLY_TOPICS_INPUT": "upgrade.in", "EXACTLY_TOPICS_OUTPUT": "upgrade.out", "EXACTLY_TOPICS_DLQ": "upgrade.dlq",
		"EXACTLY_TOPICS_PARTITIONS": "4", "EXACTLY_HTTP_ADDR": "", "EXACTLY_KAFKA_SESSION_TIMEOUT": "6s", "EXACTLY_KAFKA_HEARTBEAT_INTERVAL": "300ms",
	} {
		env[k] = v
	}
	for k, v := range env {
		s.env = append(s.env, k+"="+v)
	}
	sent := int64(0)
	generate := func(n int) {
		sent += int64(n)
		s.ok(old, "generate", "--rate", "0", "--count", fmt.Sprint(n), "--seed", fmt.Sprint(sent), "--bad-share", "0.01")
	}
	stored := func(worker string) (n int64) {
		require.NoError(t, conn.QueryRow(ctx, `SELECT coalesce(sum(records), 0)::bigint FROM offset_ledger WHERE $1 IN ('', worker)`, worker).Scan(&n))
		return n
	}
	s.ok(old, "setup")
	a, _ := s.worker(old, "a")
	generate(2000)
	s.until("the earlier release works", func() bool { return stored("a") == sent })

	s.ok(shared.Bin, "setup") // expand, while it runs
	generate(2000)
	s.until("it goes on, on the migrated database", func() bool { return stored("a") == sent })

	s.worker(shared.Bin, "b")
	s.until("each has some of the partitions", func() bool {
		rows, err := conn.Query(ctx, `SELECT DISTINCT worker FROM partition_offsets`)
		require.NoError(t, err)
		have, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		return len(have) == 2
	})
	before := stored("a")
	generate(4000)
	s.until("both work", func() bool { return stored("") == sent && stored("a") > before && stored("b") > 0 })

	require.NoError(t, a.Process.Signal(syscall.SIGTERM))
	require.NoError(t, a.Wait(), "the earlier release ends well")
	generate(1000)
	s.until("this one works alone", func() bool { return stored("") == sent })
	out, code := s.run(old, "run")
	require.Equal(t, 1, code)
	require.Contains(t, out, "newer than this program's", "one that compares for equality does not come back")

	cfg, err := config.Load("", s.env, nil)
	require.NoError(t, err)
	o, err := connect.Audit(&cfg)
	require.NoError(t, err)
	o.Settled = true
	var r *audit.Report
	s.until("all is published", func() bool {
		r, err = audit.Run(ctx, o)
		require.NoError(t, err)
		return r.Clean()
	})
	require.Contains(t, r.Versions["Ledger written by"], "earlier")
}
