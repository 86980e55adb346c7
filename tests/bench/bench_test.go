// Package bench measures what a worker moves, whole processes side by side on one machine. No test depends on a figure.
package bench

import (
	"bufio"
	"bytes"
	"context"
	"flag"
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

	"github.com/exactly-pipeline/exactly/internal/teststack"
)

var clicks = flag.Int("clicks", 1_000_000, "clicks already in the topic when the worker starts")

// BenchmarkWorker is one worker process on the embedded stack (broker, Postgres and worker on the same cores, durable writes on), with
// the clicks already in the topic: from its start until all are in both sinks. Once with each Kafka client.
func BenchmarkWorker(b *testing.B) {
	if testing.Short() {
		*clicks = 100_000
	}
	bin, err := teststack.Build(b.TempDir())
	require.NoError(b, err)
	for _, client := range []string{"confluent", "franz"} {
		b.Run("client="+client, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				measure(b, bin, client)
				b.StartTimer()
			}
		})
	}
}

func measure(b *testing.B, bin, client string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "exactly-bench-")
	require.NoError(b, err)
	defer os.RemoveAll(dir) //nolint:errcheck // the system's temporary folder
	dev := exec.Command(bin, "dev", "--data", filepath.Join(dir, "stack"), "--env-file", filepath.Join(dir, "env"))
	pipe, err := dev.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, dev.Start())
	defer func() {
		_ = dev.Process.Signal(syscall.SIGTERM)
		_ = dev.Wait()
	}()
	lines := bufio.NewScanner(pipe)
	for lines.Scan() && !strings.Contains(lines.Text(), "ready") {
	}
	raw, err := os.ReadFile(filepath.Join(dir, "env"))
	require.NoError(b, err)
	env := os.Environ()
	var dsn string
	for line := range strings.Lines(string(raw)) {
		k, v, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(k, "#") {
			continue
		}
		v = strings.Trim(v, "'")
		env = append(env, k+"="+v)
		if k == "EXACTLY_POSTGRES_DSN" {
			dsn = v
		}
	}
	do := func(args ...string) {
		cmd := exec.CommandContext(ctx, bin, args...)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		require.NoError(b, err, string(out))
	}
	do("setup")
	do("generate", "--rate", "0", "--count", fmt.Sprint(*clicks), "--seed", "1")

	conn, err := pgx.Connect(ctx, dsn)
	require.NoError(b, err)
	defer conn.Close(ctx) //nolint:errcheck // the stack goes with it
	worker := exec.CommandContext(ctx, bin, "run")
	worker.Env = append(env, "EXACTLY_HTTP_ADDR=", "EXACTLY_WORKER_ID=bench", "EXACTLY_KAFKA_CLIENT="+client)
	var log bytes.Buffer
	worker.Stderr = &log
	start := time.Now()
	require.NoError(b, worker.Start())
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	until := time.Now().Add(5 * time.Minute)
	for stored := int64(0); stored < int64(*clicks); <-tick.C {
		if time.Now().After(until) {
			_ = worker.Process.Kill()
			_ = worker.Wait()
			b.Fatalf("not done after 5 minutes:\n%s", log.String())
		}
		require.NoError(b, conn.QueryRow(ctx, `SELECT coalesce(sum(next_offset), 0)::bigint FROM partition_offsets`).Scan(&stored), log.String())
	}
	require.NoError(b, worker.Process.Signal(syscall.SIGTERM)) // it ends when everything captured is published
	require.NoError(b, worker.Wait(), log.String())
	took := time.Since(start)
	use, _ := worker.ProcessState.SysUsage().(*syscall.Rusage)
	million := float64(*clicks) / 1e6
	b.ReportMetric(float64(*clicks)/took.Seconds(), "clicks/s")
	b.ReportMetric((worker.ProcessState.UserTime()+worker.ProcessState.SystemTime()).Seconds()/million, "worker-cpu-s/M")
	b.ReportMetric(float64(use.Maxrss)/1024, "worker-MiB-peak")
	do("audit", "--settled")
}
