// Package child owns the processes a stack is made of: one that dies with us, whose end is told, and whose last words are kept.
//
// It promises that no process outlives us (on Linux, however we end) and that an end we asked for is told from one that came by itself.
// It never restarts anything.
package child

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Process is one child.
type Process struct {
	cmd     *exec.Cmd
	log     string        // where its output goes
	exited  chan struct{} // closed when the process is gone
	waitErr error         // set before exited is closed
	asked   atomic.Bool   // its end is our doing
}

// Start runs cmd in a process group of its own, so that a terminal's Ctrl-C reaches only us, with its output appended to the file log.
// When we end, however we end, the kernel sends it onDeath (Linux).
func Start(cmd *exec.Cmd, log string, onDeath syscall.Signal) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.Stdout, cmd.Stderr = out, out
	diesWithUs(cmd, onDeath)
	p := &Process{cmd: cmd, log: log, exited: make(chan struct{})}
	if err := p.spawn(); err != nil {
		return nil, fmt.Errorf("run %s: %w", cmd.Path, err)
	}
	return p, nil
}

// spawn starts the process and waits for it.
//
// The kernel signals a child when the *thread* that made it ends, not the process (prctl(2), PR_SET_PDEATHSIG). So the thread is
// kept for as long as there is a child: locked to a goroutine that does nothing but wait for it.
func (p *Process) spawn() error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.waitErr = p.cmd.Wait()
			close(p.exited)
		}
	}()
	return <-started
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the process is gone.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Running says whether the process is there. A paused one is.
func (p *Process) Running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Result is how the process ended; call it once Exited is closed.
func (p *Process) Result() error { return p.waitErr }

// Err is how the process ended, with its last words; nil while it runs, and if its end was asked for.
func (p *Process) Err() error {
	if p.Running() || p.asked.Load() {
		return nil
	}
	return fmt.Errorf("it ended by itself: %v%s", p.waitErr, p.Tail())
}

// OnFailure has f called, once, if the process ends without having been asked to.
func (p *Process) OnFailure(f func(error)) {
	go func() {
		<-p.exited
		if err := p.Err(); err != nil {
			f(err)
		}
	}()
}

// Signal sends it a signal; a process that is gone gets none.
func (p *Process) Signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// Pause stops the process (SIGSTOP) until Resume: to others it is there, and silent.
func (p *Process) Pause() { p.Signal(syscall.SIGSTOP) }

// Resume wakes a paused process.
func (p *Process) Resume() { p.Signal(syscall.SIGCONT) }

// Kill ends the process and its group with SIGKILL and returns when it is gone.
func (p *Process) Kill() {
	if p.Running() {
		p.asked.Store(true)
		_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
		<-p.exited
	}
}

// Crash ends the process alone with SIGKILL, not its group, and returns when it is gone.
func (p *Process) Crash() {
	if p.Running() {
		p.asked.Store(true)
		p.Signal(syscall.SIGKILL)
		<-p.exited
	}
}

// Stop sends the signals one after the other, each after the grace of the one before, and at last SIGKILL to the group. It says whether
// the process ended without that, or had ended before.
func (p *Process) Stop(grace time.Duration, signals ...syscall.Signal) bool {
	if !p.Running() {
		return true
	}
	p.asked.Store(true)
	p.Resume()
	for _, s := range signals {
		p.Signal(s)
		t := time.NewTimer(grace)
		select {
		case <-p.exited:
			t.Stop()
			return true
		case <-t.C:
		}
	}
	p.Kill()
	return false
}

// Tail is the end of what the process wrote, for errors: it alone says why it did not start.
func (p *Process) Tail() string { return Tail(p.log) }

// Tail is the end of a log file, introduced by its name, empty if there is none.
func Tail(path string) string {
	const lines, bytes = 8, 4 << 10
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	buf := make([]byte, bytes)
	n, _ := f.ReadAt(buf, max(0, info.Size()-bytes))
	all := strings.Split(strings.TrimSpace(string(buf[:n])), "\n")
	return fmt.Sprintf("; the end of %s:\n%s", path, strings.Join(all[max(0, len(all)-lines):], "\n"))
}
