//go:build linux

package demo_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/demo"
	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/teststack"
)

// few clicks: most of the time then goes into starting and into the dead worker's session timeout.
const few = "3000"

var bin string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "exactly-demo-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the system's temporary folder
	if bin, err = teststack.Build(dir, "failpoints"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// shown is a demo as its user has it.
type shown struct {
	t    *testing.T
	cmd  *exec.Cmd
	tmp  string // its TMPDIR
	mark string // in the environment of it and of all it starts
	out  bytes.Buffer
	err  bytes.Buffer
}

func prepare(t *testing.T, args ...string) *shown {
	s := &shown{t: t, tmp: t.TempDir(), mark: fmt.Sprintf("DEMO_TEST_MARK=%d-%d", os.Getpid(), time.Now().UnixNano())}
	s.cmd = exec.Command(bin, append([]string{"demo", "--clicks", few}, args...)...)
	// Settings of another stack must not matter.
	s.cmd.Env = append(os.Environ(), "TMPDIR="+s.tmp, s.mark, "EXACTLY_KAFKA_BROKERS=127.0.0.1:1", "EXACTLY_GROUP=other", "EXACTLY_WORKER_ID=other")
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.err
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil && s.cmd.Process != nil {
			_ = s.cmd.Process.Kill()
			_ = s.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("stdout:\n%s\nstderr:\n%s", &s.out, &s.err)
		}
	})
	return s
}

// nothingLeft requires that no process of the demo runs and no file of it is there.
func (s *shown) nothingLeft() {
	s.t.Helper()
	require.Empty(s.t, s.running(), "processes left")
	left, err := os.ReadDir(s.tmp)
	require.NoError(s.t, err)
	require.Empty(s.t, left, "files left")
}

// running are the processes that have the mark, or, for Postgres has an environment of its own, that work below the directory.
func (s *shown) running() (pids []string) {
	procs, err := filepath.Glob("/proc/[0-9]*")
	require.NoError(s.t, err)
	for _, p := range procs {
		env, _ := os.ReadFile(p + "/environ") // not there any more, or a zombie: not running
		cwd, _ := os.Readlink(p + "/cwd")
		if bytes.Contains(env, []byte(s.mark)) || strings.HasPrefix(cwd, s.tmp) {
			pids = append(pids, filepath.Base(p))
		}
	}
	return pids
}

// until reads the story up to a line with the text, returns that much, and has the rest read beside.
func (s *shown) until(text string) (story string) {
	s.t.Helper()
	s.cmd.Stdout = nil
	out, err := s.cmd.StdoutPipe()
	require.NoError(s.t, err)
	require.NoError(s.t, s.cmd.Start())
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		s.out.WriteString(line)
		require.NoError(s.t, err, "the demo ended before it said %q", text)
		if strings.Contains(line, text) {
			break
		}
	}
	story = s.out.String()
	s.t.Cleanup(func() { _ = out.Close() })
	read := make(chan struct{})
	go func() { defer close(read); _, _ = s.out.ReadFrom(lines) }()
	s.t.Cleanup(func() { <-read })
	return story
}

func TestDemo(t *testing.T) {
	s := prepare(t, "--json")
	require.NoError(t, s.cmd.Run())
	var r demo.Result
	require.NoError(t, json.Unmarshal(s.out.Bytes(), &r))
	require.True(t, r.Clean)
	require.EqualValues(t, 3000, r.Clicks)
	require.Positive(t, r.FromAccessLog)
	require.Equal(t, 3000+r.FromAccessLog, r.Audit.Clicks)
	require.Equal(t, r.Audit.Clicks, r.Audit.Rows+r.Audit.DeadLetters)
	require.Equal(t, r.Audit.Clicks, r.Audit.Events+r.Audit.DLQ)
	require.Len(t, r.Examples, 3)

	require.Equal(t, failpoint.PublishOffsetsSent, r.Killed.Point)
	require.Positive(t, r.Killed.Owed, "the point is one where Kafka is owed something")
	require.Equal(t, "Ongoing", r.Killed.TransactionState)
	require.True(t, r.Killed.OffsetsPending)
	require.Equal(t, []string{"worker-2"}, r.Takeover.By)
	require.NotEqual(t, r.Killed.PID, r.Restarted.PID)
	require.NotEmpty(t, r.Restarted.Partitions)

	story := s.err.String()
	require.Contains(t, story, "verdict: clean")
	require.NotContains(t, story, "\x1b", "no colours where there is no terminal")
	require.NotContains(t, story, "\r")
	s.nothingLeft()
}

func TestDemoFindsDamage(t *testing.T) {
	s := prepare(t, "--damage")
	err := s.cmd.Run()
	require.Error(t, err)
	require.Equal(t, 3, s.cmd.ProcessState.ExitCode())
	require.Contains(t, s.out.String(), "verdict: NOT clean: 1 missing")
	s.nothingLeft()
}

func TestDemoInterrupted(t *testing.T) {
	s := prepare(t)
	s.until("worker-2, process")
	require.NoError(t, s.cmd.Process.Signal(syscall.SIGINT))
	require.Error(t, s.cmd.Wait())
	require.Equal(t, 1, s.cmd.ProcessState.ExitCode())
	require.Contains(t, s.err.String(), "stopped before its end")
	s.nothingLeft()
}

func TestDemoWorkerDies(t *testing.T) {
	s := prepare(t)
	var pid int
	for line := range strings.Lines(s.until("kill -9 worker-1")) {
		if _, err := fmt.Sscanf(line, " worker-2, process %d,", &pid); err == nil {
			break
		}
	}
	require.NotZero(t, pid)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	require.Error(t, s.cmd.Wait())
	require.Equal(t, 1, s.cmd.ProcessState.ExitCode())
	require.Contains(t, s.err.String(), "worker-2 ended by itself: signal: killed")
	s.nothingLeft()
}

func TestDemoUsage(t *testing.T) {
	full := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(full, "file"), nil, 0o600))
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"demo", "--clicks", "10"}, 2, "must be 1000 or more"},
		{[]string{"demo", "--set", "group=other"}, 2, "--set do not apply"},
		{[]string{"demo", "--keep", full}, 1, "not empty"},
	} {
		cmd := exec.Command(bin, c.args...)
		out, _ := cmd.CombinedOutput()
		require.Equal(t, c.code, cmd.ProcessState.ExitCode(), "%v: %s", c.args, out)
		require.Contains(t, string(out), c.says)
	}
}
