package chaos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/exactly-pipeline/exactly/internal/stack/child"
)

// Worker is one process of `exactly run`.
type Worker struct {
	ID     string
	Client string
	proc   *child.Process
	log    string // file, of all processes of that id
	from   int64  // where this process's part of it begins
	marks  string // EXACTLY_FAILPOINT_DIR, of this process alone
	cmd    *exec.Cmd
	armed  bool // it may end by its failpoint
}

// Start runs a worker, in place of the one of that id, which must be gone. with are further NAME=VALUE settings.
func (c *Chaos) Start(id, client string, with ...string) (*Worker, error) {
	return c.start(id, client, with)
}

func (c *Chaos) start(id, client string, with []string) (*Worker, error) {
	w := &Worker{ID: id, Client: client, log: filepath.Join(c.opt.Dir, id+".log")}
	var err error
	if w.marks, err = os.MkdirTemp(filepath.Join(c.opt.Dir, "marks"), id+"-"); err != nil {
		return nil, err
	}
	if info, err := os.Stat(w.log); err == nil {
		w.from = info.Size()
	}
	w.cmd = exec.Command(c.opt.Exe, "run")
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "EXACTLY_") {
			w.cmd.Env = append(w.cmd.Env, kv)
		}
	}
	env := append(pairs(c.opt.Env), "EXACTLY_HTTP_ADDR=", "EXACTLY_WORKER_ID="+id, "EXACTLY_FAILPOINT_DIR="+w.marks)
	if client != "" {
		env = append(env, "EXACTLY_KAFKA_CLIENT="+client)
	}
	if own := c.opt.WorkerEnv[id]; own != "" {
		env = append(env, strings.Split(own, "\n")...)
	}
	w.cmd.Env = append(append(w.cmd.Env, env...), with...)
	for _, kv := range with {
		w.armed = w.armed || strings.HasPrefix(kv, "EXACTLY_FAILPOINT=")
	}
	if w.proc, err = child.Start(w.cmd, w.log, syscall.SIGKILL); err != nil {
		return nil, fmt.Errorf("start worker %s: %w", id, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.workers[id] = w
	return w, nil
}

// arm is the setting that arms a failpoint.
func arm(point, action string) string { return "EXACTLY_FAILPOINT=" + point + "=" + action }

// hit is when the worker reached its failpoint.
func (w *Worker) hit(point string) (time.Time, bool) {
	b, err := os.ReadFile(filepath.Join(w.marks, strings.ReplaceAll(point, "/", "-")+".hit"))
	if err != nil {
		return time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(b))
	return at, err == nil
}

// Hit says whether the worker has reached a failpoint.
func (w *Worker) Hit(point string) bool { _, ok := w.hit(point); return ok }

// Release ends a hold.
func (w *Worker) Release(point string) error {
	return os.WriteFile(filepath.Join(w.marks, strings.ReplaceAll(point, "/", "-")+".release"), nil, 0o600)
}

// Running says whether the process is there.
func (w *Worker) Running() bool { return w.proc.Running() }

// PID is the process id.
func (w *Worker) PID() int { return w.proc.PID() }

// Signal sends the process a signal.
func (w *Worker) Signal(s syscall.Signal) { w.proc.Signal(s) }

// killed says whether the process ended by SIGKILL; code is its exit code otherwise.
func (w *Worker) ended() (bySIGKILL bool, code int) {
	st, ok := w.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && st.Signaled() && st.Signal() == syscall.SIGKILL, w.cmd.ProcessState.ExitCode()
}

// LogSize is how much the worker has written, to look for what it says from here on.
func (w *Worker) LogSize() int64 {
	info, err := os.Stat(w.log)
	if err != nil {
		return 0
	}
	return info.Size()
}

// Says whether the worker has written what matches, from a place in its log on.
func (w *Worker) Says(re *regexp.Regexp, from int64) bool { return re.Match(w.logFrom(from)) }

func (w *Worker) logFrom(from int64) []byte {
	f, err := os.Open(w.log)
	if err != nil {
		return nil
	}
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	b := make([]byte, max(0, info.Size()-from))
	n, _ := f.ReadAt(b, from)
	return b[:n]
}

// until asks ten times a second, until it is so or ctx ends.
func until(ctx context.Context, what string, ok func() bool) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waited in vain until %s", what)
		case <-tick.C:
		}
	}
	return nil
}

// Until is until, within the run's limit.
func (c *Chaos) Until(ctx context.Context, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, c.opt.Limit)
	defer cancel()
	return until(ctx, what, ok)
}

// worker is the present process of that id.
func (c *Chaos) worker(id string) *Worker {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.workers[id]
}

// WorkerOf is the present process of that id.
func (c *Chaos) WorkerOf(id string) *Worker { return c.worker(id) }

// startWorkers starts each worker that the schedule names, and waits until all are at work.
func (c *Chaos) startWorkers(ctx context.Context) error {
	for _, f := range c.opt.Schedule {
		if f.Worker == "" || c.worker(f.Worker) != nil {
			continue
		}
		if _, err := c.Start(f.Worker, f.Client); err != nil {
			return err
		}
	}
	if len(c.workers) == 0 {
		return fmt.Errorf("the schedule names no worker")
	}
	return c.Until(ctx, "every worker has its partitions", func() bool {
		s := c.watch.last()
		has := map[string]bool{}
		for _, p := range s.Positions {
			has[p.Worker] = true
		}
		for id := range c.workers {
			if !has[id] {
				return false
			}
		}
		return true
	})
}

// endWorkers leaves no process.
func (c *Chaos) endWorkers() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.workers {
		w.proc.Resume()
		w.proc.Kill()
	}
}

// StopWorker asks the worker to end and returns when it is gone.
func (w *Worker) stop(grace time.Duration) (orderly bool) {
	return w.proc.Stop(grace, syscall.SIGTERM) && w.cmd.ProcessState.ExitCode() == 0
}

// Replace ends the worker in an orderly way and starts it again with further settings.
func (c *Chaos) Replace(id, client string, with ...string) (*Worker, error) {
	if w := c.worker(id); w != nil && w.Running() && !w.stop(20*time.Second) {
		c.note("worker %s did not end in an orderly way when asked to", id)
	}
	return c.Start(id, client, with...)
}
