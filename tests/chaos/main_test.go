//go:build e2e

// Package chaos breaks everything that can be broken, in a schedule drawn from a seed, and holds what comes out to the audit.
package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// bin is the program, built with failpoints.
var bin string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "exactly-chaos-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the system's temporary folder
	bin = filepath.Join(dir, "exactly")
	build := exec.Command("go", "build", "-tags", "failpoints", "-o", bin, "github.com/exactly-pipeline/exactly/cmd/exactly")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the program: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
