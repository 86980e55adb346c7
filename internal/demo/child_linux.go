package demo

import (
	"os/exec"
	"syscall"
)

// diesWithUs has the kernel kill the child when we end, however we end.
func diesWithUs(cmd *exec.Cmd) { cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL }
