//go:build !linux

package chaos

import (
	"context"
	"errors"
)

// stopped takes the signal's word for it: there is no portable way to ask.
func stopped(int) bool { return true }

// memory is Linux only.
func memory(context.Context, *Chaos, *Fault) error {
	return errors.New("a running process's memory can be limited on Linux only")
}
