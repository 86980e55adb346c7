//go:build e2e

// Package e2e holds the program to what it says of the real stack: `exactly dev --stack kafka`, driven as people do. The worker's own
// behaviour on that stack is held to its promises by tests/behaviour, where TEST_STACK asks for it.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/internal/teststack"
)

const (
	clicks   = 5_000
	patience = 90 * time.Second // for anything to happen on a crowded machine
)

// bin is the program, built once.
var bin string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "exactly-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the system's temporary folder
	if bin, err = teststack.Build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// dev is a stack in a process of its own, and the settings that point at it.
type dev struct {
	t    *testing.T
	cmd  *exec.Cmd
	done chan struct{}
	err  bytes.Buffer
	env  []string
	dir  string
}

// start returns when the command has printed its 'ready' line.
func start(t *testing.T, dir string, args ...string) *dev {
	t.Helper()
	file := filepath.Join(t.TempDir(), "env")
	d := &dev{t: t, dir: dir, done: make(chan struct{})}
	d.cmd = exec.Command(bin, append([]string{"dev", "--stack", "kafka", "--data", dir, "--env-file", file}, args...)...)
	d.cmd.Stderr = &d.err
	out, err := d.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, d.cmd.Start())
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		<-d.done
		require.Eventually(t, func() bool { return len(below(t, dir)) == 0 }, patience, 10*time.Millisecond, "something outlived it")
	})
	lines := bufio.NewScanner(out)
	ready := false
	for !ready && lines.Scan() {
		ready = strings.Contains(lines.Text(), "ready")
	}
	go func() {
		_, _ = io.Copy(io.Discard, out)
		_ = d.cmd.Wait()
		close(d.done)
	}()
	if !ready {
		<-d.done
		t.Fatalf("dev ended before it was ready:\n%s", d.err.Bytes())
	}
	settings, err := os.ReadFile(file)
	require.NoError(t, err)
	for _, line := range strings.Split(strings.TrimSpace(string(settings)), "\n") {
		k, v, _ := strings.Cut(line, "=")
		d.env = append(d.env, k+"="+strings.Trim(v, "'"))
	}
	return d
}

// ended waits until dev has ended, after the signal.
func (d *dev) ended(s syscall.Signal) {
	d.t.Helper()
	require.NoError(d.t, d.cmd.Process.Signal(s))
	select {
	case <-d.done:
	case <-time.After(patience):
		d.t.Fatalf("dev did not end:\n%s", d.err.Bytes())
	}
}

func (d *dev) command(args ...string) *exec.Cmd {
	cmd := exec.Command(bin, args...)
	cmd.Env = append(append(os.Environ(), d.env...), "EXACTLY_HTTP_ADDR=", "EXACTLY_WORKER_ID=e2e")
	return cmd
}

// exactly runs a command to its end, which must be exit 0.
func (d *dev) exactly(args ...string) string {
	d.t.Helper()
	out, err := d.command(args...).CombinedOutput()
	require.NoError(d.t, err, "exactly %v:\n%s", args, out)
	return string(out)
}

// work runs a worker until everything is in both sinks, as the audit says.
func (d *dev) work() {
	d.t.Helper()
	var log bytes.Buffer
	w := d.command("run")
	w.Stdout, w.Stderr = &log, &log
	require.NoError(d.t, w.Start())
	defer func() {
		require.NoError(d.t, w.Process.Signal(syscall.SIGTERM))
		require.NoError(d.t, w.Wait(), "%s", log.Bytes())
	}()
	require.Eventually(d.t, func() bool { return d.command("audit", "--settled").Run() == nil }, patience, 500*time.Millisecond, "the audit finds something")
}

func (d *dev) setting(name string) string {
	for _, kv := range d.env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// below are the processes whose working directory is below dir, as that of every process of a stack is, with their command lines.
func below(t *testing.T, dir string) map[int]string {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(t, err)
	out := map[int]string{}
	for _, p := range procs {
		pid, _ := strconv.Atoi(filepath.Base(p))
		cwd, _ := os.Readlink(filepath.Join(p, "cwd"))
		if cmdline, err := os.ReadFile(filepath.Join(p, "cmdline")); err == nil && strings.HasPrefix(cwd, dir) {
			out[pid] = strings.ReplaceAll(string(cmdline), "\x00", " ")
		}
	}
	return out
}

// One broker: what is there is there again after an orderly end, and after a kill, on the same addresses; nothing outlives either.
func TestDevKafka(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := start(t, dir)
	t.Log(teststack.Says + "apache kafka, 1 broker")
	d.exactly("setup")
	d.exactly("generate", "--rate", "0", "--count", fmt.Sprint(clicks), "--seed", "1")
	d.work()
	running := fmt.Sprint(below(t, dir))
	for _, part := range []string{"kafka.Kafka", "-runner.jar", "postgres"} {
		require.Contains(t, running, part, "if they can't be found, that they are gone says nothing")
	}
	addresses := d.env

	d.ended(syscall.SIGTERM)
	require.True(t, d.cmd.ProcessState.Success(), "%s", d.err.Bytes())
	require.Empty(t, below(t, dir))

	d = start(t, dir)
	require.Equal(t, addresses, d.env)
	require.Contains(t, d.exactly("setup"), "nothing to change")
	d.exactly("audit", "--settled")
	d.exactly("generate", "--rate", "0", "--count", fmt.Sprint(clicks), "--seed", "2")
	d.ended(syscall.SIGKILL)
	require.Eventually(t, func() bool { return len(below(t, dir)) == 0 }, patience, 10*time.Millisecond, "it was killed, and something goes on")

	d = start(t, dir)
	require.Equal(t, addresses, d.env)
	d.work()
	require.Contains(t, d.exactly("audit", "--settled", "--json"), fmt.Sprintf(`"input": %d`, 2*clicks))
}

// Three brokers: setup makes three copies, a broker that is killed is started again, and the pipeline goes on meanwhile.
func TestDevThreeBrokers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	d := start(t, dir, "--brokers", "3")
	t.Log(teststack.Says + "apache kafka, 3 brokers")
	require.Contains(t, d.exactly("setup"), "replication 3")
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(d.setting("EXACTLY_KAFKA_BROKERS"), ",")...))
	require.NoError(t, err)
	defer cl.Close()
	brokers := func() int {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		bs, err := kadm.NewClient(cl).ListBrokers(ctx)
		if err != nil {
			return -1
		}
		return len(bs)
	}
	require.Equal(t, 3, brokers())
	killed := 0
	for pid, cmdline := range below(t, filepath.Join(dir, "broker-1")) {
		require.Contains(t, cmdline, "kafka.Kafka")
		killed = pid
	}
	require.NoError(t, syscall.Kill(killed, syscall.SIGKILL))
	d.exactly("generate", "--rate", "0", "--count", fmt.Sprint(clicks), "--seed", "1")
	d.work()
	require.Eventually(t, func() bool {
		pids := below(t, filepath.Join(dir, "broker-1"))
		return len(pids) == 1 && pids[killed] == "" && brokers() == 3
	}, patience, 20*time.Millisecond, "it was not started again:\n%s", d.err.Bytes())
	d.ended(syscall.SIGTERM)
	require.True(t, d.cmd.ProcessState.Success(), "%s", d.err.Bytes())
}
