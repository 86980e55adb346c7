package teststack

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/exactly-pipeline/exactly/internal/stack"
)

// Package is what all tests of a package share: the program and a stack. Each test has its own database, topics and group on it.
type Package struct {
	Dir   string // the system's to clean up if the tests don't get to
	Bin   string // the program
	Stack *stack.Stack
}

// Run builds the program with these tags, starts the stack by start (Start or Join), runs the tests, and takes all of it away again. It returns the
// exit code for TestMain.
func (p *Package) Run(m interface{ Run() int }, start func(context.Context, stack.Options) (*stack.Stack, error), tags ...string) int {
	if err := p.make(start, tags); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(p.Dir) //nolint:errcheck // the system's temporary folder
	defer p.Stack.Stop()      //nolint:errcheck // its directory goes as well
	return m.Run()
}

func (p *Package) make(start func(context.Context, stack.Options) (*stack.Stack, error), tags []string) (err error) {
	if p.Dir, err = os.MkdirTemp("", "exactly-test-"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(p.Dir)
		}
	}()
	if p.Bin, err = Build(p.Dir, tags...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	p.Stack, err = start(ctx, stack.Options{Dir: filepath.Join(p.Dir, "stack")})
	return err
}
