// Package now owns what the console knows of this moment: where each partition is, how fast clicks go through, and what has changed since.
//
// It promises that all viewers share one look at the stores, at most one a second and none while nobody watches, and that figures it could not
// renew are given with their age and the reason. It never waits for a store that does not answer longer than its patience, nor changes anything.
package now

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/exactly-pipeline/exactly/internal/offsets"
)

// Look asks the stores where every partition is, as `exactly offsets show` does.
type Look func(ctx context.Context) (*offsets.Report, error)

// Sample is one look.
type Sample struct {
	At     time.Time // when it was asked for
	Report *offsets.Report
}

const (
	every    = time.Second     // from one look to the next
	patience = 4 * time.Second // with a store that does not answer
	kept     = 180             // samples
	forget   = 15 * time.Second
)

// Watcher keeps the last looks.
type Watcher struct {
	look Look
	only string // a worker: only what is or was its is shown; empty: all

	mu      sync.Mutex
	samples []Sample
	busy    chan struct{} // closed when the look under way is over; nil: there is none
	tried   time.Time
	err     error
	failing time.Time // since when looks fail
	events  []Event
	moved   map[int32]time.Time // when a partition that is behind last moved
	came    map[int32]time.Time // when something last came into it
}

// New makes a watcher; it looks when it is first asked. only is the worker whose partitions are of interest, empty for all.
func New(look Look, only string) *Watcher {
	return &Watcher{look: look, only: only, moved: map[int32]time.Time{}, came: map[int32]time.Time{}}
}

// Get is what there is to show. It starts a look if the last is older than a second, and waits for it only if there is none yet.
func (w *Watcher) Get(ctx context.Context) *View {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy == nil && time.Since(w.tried) >= every {
		w.busy, w.tried = make(chan struct{}), time.Now()
		go w.renew(w.busy)
	}
	if n := len(w.samples); w.busy != nil && (n == 0 && w.err == nil || n > 0 && time.Since(w.samples[n-1].At) > 2*every) {
		busy := w.busy
		w.mu.Unlock()
		t := time.NewTimer(patience)
		defer t.Stop()
		select {
		case <-busy:
		case <-ctx.Done():
		case <-t.C:
		}
		w.mu.Lock()
	}
	return w.view(time.Now())
}

// renew makes a look. It outlives whoever asked for it: others wait for it, too.
func (w *Watcher) renew(done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	at := time.Now()
	rep, err := w.look(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy = nil
	close(done)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = errors.New("a store did not answer within " + patience.String() + ": " + err.Error())
		}
		if w.err == nil {
			w.failing = at
		}
		w.err = err
		return
	}
	w.err = nil
	w.add(Sample{at, w.mine(rep)})
}

// mine is the report without what is no business of the worker's.
func (w *Watcher) mine(rep *offsets.Report) *offsets.Report {
	if w.only == "" {
		return rep
	}
	r := *rep
	r.Partitions = nil
	for i := range rep.Partitions {
		if p := &rep.Partitions[i]; p.Assigned == w.only || p.Owner == w.only {
			r.Partitions = append(r.Partitions, *p)
		}
	}
	return &r
}

// add takes a sample, and notes what has changed since the one before. mu is held.
func (w *Watcher) add(s Sample) {
	var before *Sample
	if n := len(w.samples); n > 0 {
		before = &w.samples[n-1]
		if s.At.Sub(before.At) > forget { // nobody watched: rates over that would be of another time
			w.samples = w.samples[:0:0]
		}
	}
	w.compare(before, &s)
	w.samples = append(w.samples, s)
	if len(w.samples) > kept {
		w.samples = w.samples[len(w.samples)-kept:]
	}
}
