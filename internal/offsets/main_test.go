package offsets

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/exactly-pipeline/exactly/internal/stack"
	"github.com/exactly-pipeline/exactly/internal/teststack"
)

// shared is what all tests of this package use: the program, built with failpoints, and a stack. Each test has its own database, topics and group.
var shared struct {
	bin   string
	stack *stack.Stack
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "exactly-offsets-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the system's temporary folder
	if shared.bin, err = teststack.Build(dir, "failpoints"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	shared.stack, err = teststack.Join(ctx, stack.Options{Dir: filepath.Join(dir, "stack")})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer shared.stack.Stop() //nolint:errcheck // its directory goes as well
	return m.Run()
}
