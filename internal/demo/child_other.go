//go:build !linux

package demo

import "os/exec"

// diesWithUs is Linux only. Elsewhere a demo that is itself killed with SIGKILL leaves its workers to be ended by hand.
func diesWithUs(*exec.Cmd) {}
