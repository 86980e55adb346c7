package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/teststack"
)

// buildExactly builds the program once a test; the tests below drive it as people do.
func buildExactly(t *testing.T) string {
	t.Helper()
	bin, err := teststack.Build(t.TempDir())
	require.NoError(t, err)
	return bin
}

// startDev returns when the command has printed its 'ready' line.
func startDev(t *testing.T, bin string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(bin, append([]string{"dev", "--no-sync"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() }) // not Kill: Postgres would write while the directory is removed
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "ready") {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return cmd
		}
	}
	require.Fail(t, "dev ended before it was ready")
	return nil
}

// query sources the settings as a shell does and asks the database of them.
func query(t *testing.T, envFile, sql string) (answer string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	dsn, err := exec.Command("sh", "-c", `set -a; . "$1"; set +a; printf %s "$EXACTLY_POSTGRES_DSN"`, "sh", envFile).Output()
	require.NoError(t, err)
	conn, err := pgx.Connect(ctx, string(dsn))
	require.NoError(t, err)
	defer conn.Close(ctx)
	require.NoError(t, conn.QueryRow(ctx, sql).Scan(&answer))
	return answer
}

func TestDev(t *testing.T) {
	bin, dir := buildExactly(t), filepath.Join(t.TempDir(), "made by dev")
	env := filepath.Join(t.TempDir(), "env")
	dev := startDev(t, bin, "--data", dir, "--env-file", env)
	require.Equal(t, "1", query(t, env, `WITH t AS (SELECT 1) SELECT count(*)::text FROM t`))
	require.Equal(t, "made", query(t, env, `SELECT set_config('x.y', 'made', false)`))
	settings, err := os.ReadFile(env)
	require.NoError(t, err)
	for _, name := range []string{"EXACTLY_KAFKA_BROKERS=", "EXACTLY_REGISTRY_URL="} {
		require.Contains(t, string(settings), name)
	}

	second := exec.Command(bin, "dev", "--data", dir)
	out, err := second.CombinedOutput()
	require.Error(t, err)
	require.Equal(t, 1, second.ProcessState.ExitCode())
	require.Contains(t, string(out), "in use by another stack")

	require.NoError(t, dev.Process.Signal(syscall.SIGTERM))
	require.NoError(t, dev.Wait(), "SIGTERM is a clean end")

	startDev(t, bin, "--data", dir) // without --env-file: beside the data
	again, err := os.ReadFile(filepath.Join(dir, "exactly.env"))
	require.NoError(t, err)
	require.Equal(t, string(settings), string(again), "the same addresses and password")
}

func TestDevUsage(t *testing.T) {
	require.Equal(t, 2, run([]string{"dev"}))
	require.Equal(t, 2, run([]string{"dev", "--data", t.TempDir(), "--no-such-flag"}))
}
