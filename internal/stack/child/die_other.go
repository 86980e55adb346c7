//go:build !linux

package child

import (
	"os/exec"
	"syscall"
)

// diesWithUs is Linux only. Elsewhere a killed parent leaves Postgres running until the next start on the directory ends it.
func diesWithUs(*exec.Cmd, syscall.Signal) {}

// RunsIn says whether pid is alive: there is no portable way to ask where it runs.
func RunsIn(pid int, _ string) bool { return syscall.Kill(pid, 0) == nil }
