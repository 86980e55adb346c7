package child

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const pollInterval = 20 * time.Millisecond // the end of somebody else's child is told to nobody: it has to be asked for

// AwaitPredecessor deals with the file in which a process of a killed predecessor of ours left its pid, in the first line: it waits for one
// that is still going down in dir, its working directory, and removes the file if its pid is somebody else's by now. It says whether there
// was one. sig is what it has had from the kernel already, unless this is not Linux. The caller must have made sure that nobody else is
// starting one there.
func AwaitPredecessor(ctx context.Context, pidFile, dir string, sig syscall.Signal) (bool, error) {
	content, err := os.ReadFile(pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	first, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid <= 1 || !RunsIn(pid, dir) {
		return true, os.Remove(pidFile)
	}
	_ = syscall.Kill(pid, sig)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for RunsIn(pid, dir) {
		select {
		case <-ctx.Done():
			return true, fmt.Errorf("wait for the process %d of a killed predecessor: %w", pid, ctx.Err())
		case <-tick.C:
		}
	}
	if err := os.Remove(pidFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return true, err
	}
	return true, nil
}
