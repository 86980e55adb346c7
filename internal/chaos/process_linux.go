package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// stopped says whether the process is stopped by a signal.
func stopped(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	i := bytes.LastIndexByte(b, ')')
	return i >= 0 && len(b) > i+2 && b[i+2] == 'T'
}

var outOfMemory = regexp.MustCompile(`out of memory|annot allocate memory|pthread_create failed|bad_alloc|SIGABRT|malloc`)

// memory takes the memory away from a worker that has just started (RLIMIT_AS at what it has): it ends by itself, in whatever it does.
func memory(ctx context.Context, c *Chaos, f *Fault) error {
	for range tries {
		w, err := c.Replace(f.Worker, f.Client)
		if err != nil {
			return err
		}
		if err := c.joins(ctx, w, w.from); err != nil {
			return err
		}
		had := owned(c.watch.last(), w.ID)
		has, err := addressSpace(w.PID())
		if err != nil {
			return err
		}
		at := time.Now()
		limit := unix.Rlimit{Cur: has, Max: has}
		if err := unix.Prlimit(w.PID(), unix.RLIMIT_AS, &limit, nil); err != nil {
			return fmt.Errorf("limit the memory of worker %s: %w", w.ID, err)
		}
		reach, cancel := context.WithTimeout(ctx, c.opt.Limit/3)
		err = until(reach, "the worker was out of memory", func() bool { return !w.Running() })
		cancel()
		if err != nil { // it got by with what it had
			w.proc.Kill()
			c.note("fault %d: the worker got by with %d MiB of address space; tried again", f.N, has>>20)
			continue
		}
		if _, code := w.ended(); !w.Says(outOfMemory, w.from) {
			return fmt.Errorf("the worker ended with exit code %d and did not say that it was out of memory", code)
		}
		f.had = had
		c.Struck(f, at, fmt.Sprintf("RLIMIT_AS at %d MiB; the process ended by itself, out of memory", has>>20), "")
		return c.back(ctx, f)
	}
	return errors.New("the worker did not run out of memory")
}

// addressSpace is what the process has mapped, in bytes.
func addressSpace(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	m := regexp.MustCompile(`VmSize:\s+(\d+) kB`).FindSubmatch(b)
	if m == nil {
		return 0, errors.New("the kernel does not say how much memory the worker has")
	}
	kib, err := strconv.ParseUint(string(m[1]), 10, 64)
	return kib << 10, err
}
