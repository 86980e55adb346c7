// Package wait owns the pause between two tries. It promises that a context that ends, ends the pause; it never decides what is tried again, or how often.
package wait

import (
	"context"
	"time"
)

// For returns after d, or with the context's error as soon as that is done.
func For(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
