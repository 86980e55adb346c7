package child

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// diesWithUs has the kernel send sig to the child when we end, however we end.
func diesWithUs(cmd *exec.Cmd, sig syscall.Signal) { cmd.SysProcAttr.Pdeathsig = sig }

// RunsIn says whether pid is a process whose working directory is dir: a Postgres server's is its data directory.
func RunsIn(pid int, dir string) bool {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return false // gone, or not ours to look at
	}
	real, err := filepath.EvalSymlinks(dir)
	return err == nil && cwd == real
}
