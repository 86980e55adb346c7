package engine

import (
	"math/rand/v2"
	"time"
)

// Clock is where the worker's timers come from. A simulation brings its own, to decide what strikes first.
type Clock interface {
	// AfterFunc calls f once, d from now, in a goroutine of its own.
	AfterFunc(d time.Duration, f func())
}

type wallClock struct{}

func (wallClock) AfterFunc(d time.Duration, f func()) { time.AfterFunc(d, f) }

// after sends e back later.
func (w *Worker) after(d time.Duration, e any) {
	w.cfg.Clock.AfterFunc(d, func() { w.send(e) })
}

// backoff is exponential with full jitter, so that two workers don't claim in step.
func (w *Worker) backoff(attempt int) time.Duration {
	d := w.cfg.BackoffMin << min(attempt-1, 12)
	d = min(d, w.cfg.BackoffMax)
	return d/2 + time.Duration(w.cfg.Rand.Int64N(int64(d/2+1)))
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) }
