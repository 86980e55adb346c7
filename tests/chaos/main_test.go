//go:build e2e

// Package chaos breaks everything that can be broken, in a schedule drawn from a seed, and holds what comes out to the audit.
package chaos

import (
	"fmt"
	"os"
	"testing"

	"github.com/exactly-pipeline/exactly/internal/teststack"
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
	if bin, err = teststack.Build(dir, "failpoints"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
