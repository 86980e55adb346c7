package child

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

const (
	parent  = "CHILD_TEST_PARENT"  // set: this process has a child in that directory, and waits to be killed
	chooser = "CHILD_TEST_CHOOSER" // set: this process chooses a port, and another one when it is told to
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(parent); dir != "" {
		p, err := Start(exec.Command("sleep", "600"), filepath.Join(dir, "log"), syscall.SIGKILL)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(p.PID())
		select {}
	}
	if os.Getenv(chooser) != "" {
		port, _ := FreePort(0)
		fmt.Println(port)
		_, _ = fmt.Scanln()
		next, _ := FreePort(0)
		ReleasePort(port)
		fmt.Println(next)
		select {}
	}
	goleak.VerifyTestMain(m)
}

func start(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start(exec.Command("sh", "-c", script), filepath.Join(t.TempDir(), "log"), syscall.SIGKILL)
	require.NoError(t, err)
	t.Cleanup(p.Kill)
	return p
}

// says waits for a line in the process's log: only then has it set its traps.
func (p *Process) says(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(p.Tail(), text) }, 10*time.Second, 5*time.Millisecond)
}

func TestEndsByItself(t *testing.T) {
	p := start(t, "echo last words; exit 7")
	told := make(chan error, 1)
	p.OnFailure(func(err error) { told <- err })
	require.ErrorContains(t, <-told, "exit status 7")
	require.ErrorContains(t, p.Err(), "last words")
	require.ErrorContains(t, p.Result(), "exit status 7")
	require.False(t, p.Running())
	p.Kill()
	require.Error(t, p.Err(), "killed afterwards, it has ended by itself all the same")
	require.True(t, p.Stop(time.Second, syscall.SIGTERM))
}

func TestEndIsAskedFor(t *testing.T) {
	for name, end := range map[string]func(*Process){
		"kill": (*Process).Kill, "crash": (*Process).Crash, "stop": func(p *Process) { require.True(t, p.Stop(10*time.Second, syscall.SIGTERM)) },
		"stop, paused": func(p *Process) { p.Pause(); require.True(t, p.Stop(10*time.Second, syscall.SIGTERM)) },
		"kill, paused": func(p *Process) { p.Pause(); p.Kill() },
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, "exec sleep 600")
			require.True(t, p.Running())
			require.NoError(t, p.Err())
			end(p)
			require.False(t, p.Running())
			require.NoError(t, p.Err())
		})
	}
}

func TestStopInsists(t *testing.T) {
	p := start(t, `trap "" TERM; trap "exit 0" INT; echo ready; while :; do read -t 1 x; sleep 0.01; done`)
	p.says(t, "ready")
	require.True(t, p.Stop(200*time.Millisecond, syscall.SIGTERM, syscall.SIGINT))
	p = start(t, `trap "" TERM; echo ready; while :; do sleep 0.01; done`)
	p.says(t, "ready")
	require.False(t, p.Stop(200*time.Millisecond, syscall.SIGTERM), "it had to be killed")
	require.False(t, p.Running())
}

func TestPause(t *testing.T) {
	p := start(t, "exec sleep 600")
	state := func() string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
		require.NoError(t, err)
		_, rest, _ := strings.Cut(string(b), ") ")
		return rest[:1]
	}
	p.Pause()
	require.Eventually(t, func() bool { return state() == "T" }, 10*time.Second, time.Millisecond)
	require.True(t, p.Running())
	p.Resume()
	require.Eventually(t, func() bool { return state() == "S" }, 10*time.Second, time.Millisecond)
}

// However we end, no child is left.
func TestDiesWithUs(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), parent+"="+t.TempDir())
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	require.NoError(t, err, line)
	require.NoError(t, syscall.Kill(pid, 0), "it is there")
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait() // "signal: killed"
	require.Eventually(t, func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(b), ") Z ") // gone, or waiting for somebody to reap it
	}, 10*time.Second, 5*time.Millisecond)
}

func TestAwaitPredecessor(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "pid")
	there, err := AwaitPredecessor(t.Context(), file, dir, syscall.SIGKILL)
	require.NoError(t, err)
	require.False(t, there)

	for name, c := range map[string]struct {
		cwd  string
		ends bool
	}{"ours": {dir, true}, "somebody else's": {"/", false}} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("sleep", "600")
			cmd.Dir = c.cwd
			p, err := Start(cmd, filepath.Join(t.TempDir(), "log"), syscall.SIGKILL)
			require.NoError(t, err)
			t.Cleanup(p.Kill)
			require.NoError(t, os.WriteFile(file, fmt.Appendln(nil, p.PID()), 0o600))
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			there, err := AwaitPredecessor(ctx, file, dir, syscall.SIGTERM)
			require.NoError(t, err)
			require.True(t, there)
			require.NoFileExists(t, file)
			if c.ends {
				<-p.Exited()
			}
			require.Equal(t, !c.ends, p.Running())
		})
	}
}

func TestFreePort(t *testing.T) {
	port, err := FreePort(0)
	require.NoError(t, err)
	again, err := FreePort(port)
	require.NoError(t, err)
	require.Equal(t, port, again)
	l, err := net.Listen("tcp", Loopback(port))
	require.NoError(t, err)
	defer l.Close()
	other, err := FreePort(port)
	require.NoError(t, err)
	require.NotEqual(t, port, other, "somebody listens there")
}

// A process that was being started while FreePort looked holds that look's socket for a moment.
func TestListenWaits(t *testing.T) {
	port, err := FreePort(0)
	require.NoError(t, err)
	held, err := net.Listen("tcp", Loopback(port))
	require.NoError(t, err)
	released := time.AfterFunc(50*time.Millisecond, func() { _ = held.Close() })
	defer released.Stop()
	l, err := Listen("tcp", Loopback(port))
	require.NoError(t, err)
	defer l.Close()
	_, err = Listen("tcp", Loopback(port))
	require.ErrorIs(t, err, syscall.EADDRINUSE, "somebody who stays is told of")
}

// A port that another process has chosen is not chosen, though nobody listens there yet; once that process is gone, or gives it back, it is.
func TestPortsAreReserved(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), chooser+"=1")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	lines := bufio.NewScanner(out)
	theirs := func() (port int) {
		require.True(t, lines.Scan())
		port, err := strconv.Atoi(lines.Text())
		require.NoError(t, err)
		return port
	}
	first := theirs()
	ours, err := FreePort(first)
	require.NoError(t, err)
	require.NotEqual(t, first, ours)

	_, err = fmt.Fprintln(in) // they give it back and choose another
	require.NoError(t, err)
	second := theirs()
	require.NotEqual(t, first, second)
	ours, err = FreePort(first)
	require.NoError(t, err)
	require.Equal(t, first, ours)

	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	ours, err = FreePort(second)
	require.NoError(t, err)
	require.Equal(t, second, ours)
}
