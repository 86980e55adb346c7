// Command exactly owns the command line: one file a command, flags, exit codes.
//
// It promises the exit codes 0 done, 1 failed, 2 wrong usage or configuration, 3 the check found something. It never holds
// logic that a test would want without a process.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() { // the first signal asks, the second insists
		<-ctx.Done()
		first := time.Now()
		stop()
		again := make(chan os.Signal, 1)
		signal.Notify(again, os.Interrupt, syscall.SIGTERM)
		for range again { // some senders signal the process and its group: that is one wish, not two
			if time.Since(first) > 300*time.Millisecond {
				break
			}
		}
		fmt.Fprintln(os.Stderr, "exactly: second signal, exiting at once")
		os.Exit(1)
	}()
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var ee *exitError
	if errors.As(err, &ee) {
		if ee.err != nil {
			fmt.Fprintln(os.Stderr, "exactly:", ee.err)
		}
		return ee.code
	}
	fmt.Fprintln(os.Stderr, "exactly:", err)
	return 1
}

// exitError carries an exit code. A nil err exits silently: the command has said it all.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usageError(err error) error { return &exitError{code: 2, err: err} }

func found() error { return &exitError{code: 3} }
