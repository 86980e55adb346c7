package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// usage is what a process and its children have used by now, those that have ended included.
type usage struct {
	cpu     time.Duration
	written int64 // bytes that went to the page cache of files, to be written to the disk
	peak    int64 // bytes of resident memory at most, of those that live; shared memory counts for each
}

func (u usage) since(before usage) usage {
	return usage{u.cpu - before.cpu, u.written - before.written, u.peak}
}

func (u usage) plus(o usage) usage {
	return usage{u.cpu + o.cpu, u.written + o.written, u.peak + o.peak}
}

const tick = time.Second / 100 // USER_HZ, the same on all of Linux

// used adds up a process and its descendants: /proc/PID/stat and io already hold those that have ended and been waited for.
func used(pid int) (u usage) {
	for _, p := range append(children(pid), pid) {
		u = u.plus(usedBy(p))
	}
	return u
}

func usedBy(pid int) (u usage) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return u // it has just ended, and is in its parent's figures
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // the first is state, field 3
	for _, f := range fields[11:15] {                               // utime stime cutime cstime
		n, _ := strconv.ParseInt(string(f), 10, 64)
		u.cpu += time.Duration(n) * tick
	}
	u.written = number(filepath.Join(dir, "io"), "write_bytes:") - number(filepath.Join(dir, "io"), "cancelled_write_bytes:")
	u.peak = number(filepath.Join(dir, "status"), "VmHWM:") << 10
	return u
}

func number(file, name string) (n int64) {
	b, _ := os.ReadFile(file)
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			_, _ = fmt.Sscan(rest, &n)
		}
	}
	return n
}

// children are a process' children, and theirs.
func children(pid int) (all []int) {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		for _, c := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(c); err == nil {
				all = append(append(all, n), children(n)...)
			}
		}
	}
	return all
}
