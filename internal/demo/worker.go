package demo

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopTimeout is how long a worker may take to end when asked to; then it is killed.
const stopTimeout = 10 * time.Second

// worker is one process of `exactly run`: this program once more.
type worker struct {
	id   string
	log  string // file
	cmd  *exec.Cmd
	done chan struct{} // closed when the process is gone
	// mayDie is set for a worker that is about to be killed on purpose.
	mayDie bool
}

// settings are environment variables as KEY=value.
func settings(env map[string]string) []string {
	var out []string
	for k, v := range env {
		out = append(out, k+"="+v)
	}
	return out
}

// start runs a worker; with are further settings. Its output is appended to its log.
func (d *demo) start(id string, with ...string) (*worker, error) {
	w := &worker{id: id, log: filepath.Join(d.dir, id+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(w.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the child has its own
	w.cmd = exec.Command(d.exe, "run")
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "EXACTLY_") {
			w.cmd.Env = append(w.cmd.Env, kv)
		}
	}
	w.cmd.Env = append(append(append(w.cmd.Env, settings(d.env)...), "EXACTLY_WORKER_ID="+id, "EXACTLY_FAILPOINT_DIR="+d.dir), with...)
	w.cmd.Stdout, w.cmd.Stderr = log, log
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C is for us: we end the workers
	diesWithUs(w.cmd)
	started := make(chan error)
	go func() {
		// The kernel tells a child of the end of the thread that made it, not of the process (prctl(2), PR_SET_PDEATHSIG).
		runtime.LockOSThread()
		err := w.cmd.Start()
		started <- err
		if err == nil {
			_ = w.cmd.Wait() // how it ended is in ProcessState
			close(w.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", id, err)
	}
	d.workers = append(d.workers, w)
	return w, nil
}

func (w *worker) pid() int { return w.cmd.Process.Pid }

func (w *worker) ended() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// killedBySIGKILL says whether the process ended by SIGKILL. Only for one that has ended.
func (w *worker) killedBySIGKILL() bool {
	st, ok := w.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && st.Signaled() && st.Signal() == syscall.SIGKILL
}

// says whether the log has the text.
func (w *worker) says(text string) bool {
	b, err := os.ReadFile(w.log)
	return err == nil && bytes.Contains(b, []byte(text))
}

// tail is the end of the log.
func (w *worker) tail() string {
	b, err := os.ReadFile(w.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// stopWorkers returns when all are gone. An orderly stop lets them finish and leave the group.
func stopWorkers(ws []*worker, orderly bool) {
	var wg sync.WaitGroup
	for _, w := range ws {
		wg.Go(func() {
			if w.ended() {
				return
			}
			if orderly {
				_ = w.cmd.Process.Signal(syscall.SIGTERM)
				select {
				case <-w.done:
					return
				case <-time.After(stopTimeout):
				}
			}
			_ = w.cmd.Process.Kill()
			<-w.done
		})
	}
	wg.Wait()
}
