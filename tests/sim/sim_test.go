// Package sim runs the engine, its shell included, and the publisher of txn against an in-memory Postgres and Kafka that can fail at
// any step, on a simulated clock, from a seed that replays exactly.
//
// Everything real runs in a synctest bubble; each call it makes to a store, a broker or a handler parks, and exactly one is let go at a
// time, when everything else waits. What happens in between (delays, lost requests, rebalances, kills) is an event in one queue,
// ordered by simulated time, drawn from the seed.
package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// sim is one seed's world, and the driver of everything in it.
type sim struct {
	seed  uint64
	rng   *rand.Rand
	p     profile
	cheat cheats
	trace trace

	start time.Time
	now   time.Duration // since start
	clock time.Duration // what the bubble's clock says: now, or less by at most slack
	queue queue
	seq   uint64
	timer *time.Timer
	letGo bool // a goroutine was let go: wait until everything waits again

	mu      sync.Mutex // what the worker's goroutines write
	parked  []*call
	timers  []event
	notes   []note
	logs    []string
	exits   []*worker
	wake    chan struct{}
	prepare int64 // enrichments made: no two are alike

	k       *kafka
	pg      *postgres
	truth   truth
	workers []*worker // all there ever were
	faulty  bool      // faults may strike
	lagging bool      // messages may be slow, or late
	trap    bool      // see trapped
	regrow  bool      // see drains
	killers int       // so many of the next records end whoever handles them
	halted  parts     // partitions that were stopped since what is waited for began
	closing bool      // all workers are to end, and none begins
	failure *failure
	steps   int
}

// failure is the first thing that broke.
type failure struct {
	kind, what string
	at         time.Duration
}

// result is what came of a seed.
type result struct {
	hash    uint64
	failure *failure
	steps   int
	took    time.Duration // simulated
	trace   string
	hole    bool // it ended in a known one
}

// play runs one seed. verbose keeps a trace.
func play(t *testing.T, seed uint64, c cheats, verbose bool) (r result) {
	synctest.Test(t, func(t *testing.T) {
		s := newSim(seed, c, verbose)
		s.live()
		s.bury()
		r = result{hash: s.trace.hash(), failure: s.failure, steps: s.steps, took: s.now, trace: s.trace.String()}
		if r.failure != nil && r.failure.kind == knownHole {
			r.failure, r.hole = nil, true
		}
	})
	return r
}

func newSim(seed uint64, c cheats, verbose bool) *sim {
	s := &sim{
		seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), cheat: c, start: time.Now(), wake: make(chan struct{}, 1),
		timer: time.NewTimer(time.Hour),
	}
	s.trace = newTrace(verbose)
	s.p = newProfile(s)
	s.k = newKafka(s)
	s.pg = newPostgres(s)
	s.truth = newTruth(s)
	s.pg.backup()
	return s
}

// broke notes a violation, the first one only: it ends the run.
func (s *sim) broke(kind, format string, a ...any) {
	if s.failure == nil {
		s.failure = &failure{kind, fmt.Sprintf(format, a...), s.now}
		s.say(nil, "BROKEN: "+s.failure.kind+": "+s.failure.what, 0, 0)
	}
}

func (s *sim) chance(perMille int) bool { return perMille > 0 && s.rng.IntN(1000) < perMille }

// between draws a duration.
func (s *sim) between(from, to time.Duration) time.Duration {
	return from + time.Duration(s.rng.Int64N(int64(to-from)))
}

// run works off the queue until done says so, something is broken, or the deadline, in simulated time, is reached.
func (s *sim) run(deadline time.Duration, done func() bool) bool {
	for {
		s.settle()
		if s.failure != nil {
			return false
		}
		if done() {
			return true
		}
		e, ok := s.queue.first()
		if !ok || e.at > deadline {
			if s.now < deadline {
				s.sleep(deadline)
				continue // a timer of the worker's own may have struck
			}
			return false
		}
		if e.at > s.clock+slack {
			s.sleep(e.at)
			continue
		}
		s.now = max(s.now, e.at)
		s.queue.pop()
		s.step(e)
	}
}

// step carries out one event, at once if its worker is not frozen.
func (s *sim) step(e event) {
	switch {
	case e.w != nil && e.w.dead:
	case e.w != nil && e.w.frozen:
		e.w.missed = append(e.w.missed, e)
	default:
		s.steps++
		e.f()
	}
}

// slack is how far the bubble's clock, by which contexts and the few timers that are not the driver's go, may be late. To set it for each
// event would take a third of the time there is.
const slack = 2 * time.Millisecond

// sleep lets simulated time pass, until t or until a goroutine parks: those of the worker have timers of their own.
func (s *sim) sleep(t time.Duration) {
	s.timer.Reset(t - s.clock)
	select {
	case <-s.timer.C:
	case <-s.wake:
		s.timer.Stop()
	}
	s.letGo = true
}

// settle waits until every goroutine waits, and takes in what they have asked for meanwhile.
func (s *sim) settle() {
	if !s.letGo {
		return
	}
	s.letGo = false
	synctest.Wait()
	select {
	case <-s.wake:
	default:
	}
	s.clock = time.Since(s.start)
	s.now = max(s.now, s.clock)
	s.collect()
}

// at plans f for later. w is whose side of the wire it is on, nil for the world; o is what may make it pointless, nil for nothing.
func (s *sim) at(d time.Duration, w *worker, o *over, f func()) {
	s.seq++
	s.queue.push(event{s.now + d, s.seq, w, o, f})
}

// bury ends all workers and waits until their goroutines are gone: the bubble must be empty.
func (s *sim) bury() {
	for _, w := range s.workers {
		w.kill()
	}
	for n := 0; ; n++ {
		synctest.Wait()
		left := 0
		for _, w := range s.workers {
			if w.running && !w.exited {
				left++
			}
		}
		if left == 0 {
			return
		}
		if n > 1000 {
			panic(fmt.Sprintf("seed %d: %d workers do not end", s.seed, left))
		}
		time.Sleep(100 * time.Millisecond)
	}
}

var background = context.Background()
