package sim

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// over says that what an event was planned for is over.
type over struct{ over bool }

// event is one thing that will happen.
type event struct {
	at  time.Duration
	seq uint64 // order among those of one instant
	w   *worker
	o   *over
	f   func()
}

func (e *event) before(f *event) bool { return e.at < f.at || e.at == f.at && e.seq < f.seq }

// queue is a binary heap of events by time.
type queue struct{ es []event }

func (q *queue) push(e event) {
	q.es = append(q.es, e)
	es, i := q.es, len(q.es)-1
	for i > 0 && es[i].before(&es[(i-1)/2]) {
		es[i], es[(i-1)/2] = es[(i-1)/2], es[i]
		i = (i - 1) / 2
	}
}

// first is the next event that is not pointless.
func (q *queue) first() (event, bool) {
	for len(q.es) > 0 && q.es[0].o != nil && q.es[0].o.over {
		q.pop()
	}
	if len(q.es) == 0 {
		return event{}, false
	}
	return q.es[0], true
}

func (q *queue) pop() {
	n := len(q.es) - 1
	q.es[0] = q.es[n]
	q.es[n] = event{}
	q.es = q.es[:n]
	es, i := q.es, 0
	for {
		c := 2*i + 1
		if c >= n {
			return
		}
		if c+1 < n && es[c+1].before(&es[c]) {
			c++
		}
		if !es[c].before(&es[i]) {
			return
		}
		es[i], es[c] = es[c], es[i]
		i = c
	}
}

// call is a goroutine of a worker that waits for the world.
type call struct {
	over
	s     *sim
	w     *worker
	op    string
	part  int32
	ctx   context.Context
	begin func(c *call)
	late  func() // told when its context ended before it did
	err   error
	done  chan struct{}
}

var errDead = errors.New("sim: killed")

// park hands a call to the driver and waits for its end. begin is run by the driver.
func (w *worker) park(ctx context.Context, op string, part int32, begin func(c *call)) error {
	c := &call{s: w.s, w: w, op: op, part: part, ctx: ctx, begin: begin, done: make(chan struct{})}
	w.s.mu.Lock()
	if w.dead {
		w.s.mu.Unlock()
		return errDead
	}
	w.s.parked = append(w.s.parked, c)
	w.s.mu.Unlock()
	select {
	case w.s.wake <- struct{}{}:
	default:
	}
	<-c.done
	return c.err
}

// finish lets the call's goroutine go on: the only one until everything waits again.
func (c *call) finish(err error) {
	if c.over.over {
		return
	}
	if c.s.letGo {
		panic("sim: two goroutines let go at once: " + c.op)
	}
	c.over.over, c.err = true, err
	c.s.letGo = true
	c.w.forget(c)
	close(c.done)
}

// at plans f at the worker's side, unless the call is over by then.
func (c *call) at(d time.Duration, f func()) { c.s.at(d, c.w, &c.over, f) }

// collect takes in what the goroutines have left: timers, notes, calls. Several calls that began at once are put in order, so that it
// does not matter which goroutine came first.
func (s *sim) collect() {
	s.mu.Lock()
	parked, timers, notes, exits, logs := s.parked, s.timers, s.notes, s.exits, s.logs
	s.parked, s.timers, s.notes, s.exits, s.logs = nil, nil, nil, nil, nil
	s.mu.Unlock()
	for _, l := range logs {
		s.trace.line(s.now, l)
	}
	for _, n := range notes {
		s.noted(n)
	}
	for _, e := range timers {
		if !e.w.dead {
			s.at(e.at, e.w, nil, e.f)
		}
	}
	if len(parked) > 1 {
		slices.SortFunc(parked, func(a, b *call) int {
			if a.w != b.w {
				return a.w.n - b.w.n
			}
			if a.op != b.op {
				return strings.Compare(a.op, b.op)
			}
			if a.part == b.part {
				panic("sim: two calls that can't be told apart: " + a.op)
			}
			return int(a.part - b.part)
		})
	}
	for _, c := range parked {
		if c.w.dead {
			close(c.done)
			s.letGo = true
			continue
		}
		c.w.calls = append(c.w.calls, c)
		s.say(c.w, c.op, int64(c.part), 0)
		if until, ok := c.ctx.Deadline(); ok {
			c.at(max(until.Sub(s.start)-s.now, 0), func() { c.end(context.DeadlineExceeded) })
		}
		if !c.over.over {
			c.at(0, func() { c.begin(c) })
		}
	}
	for _, w := range exits {
		w.ended()
	}
	for _, w := range s.workers {
		if w.dead {
			continue
		}
		if w.ending || w.returning {
			w.endCalls()
		}
		if w.client != nil {
			w.client.offer()
		}
	}
}

// end: its context is over.
func (c *call) end(err error) {
	if c.late != nil {
		c.late()
	}
	c.finish(err)
}

// endCalls plans the end of calls whose context has been cancelled: their worker is about to return.
func (w *worker) endCalls() {
	for _, c := range w.calls {
		if err := c.ctx.Err(); err != nil {
			c.at(0, func() { c.end(err) })
		}
	}
}

func (w *worker) forget(c *call) {
	for i, x := range w.calls {
		if x == c {
			w.calls = append(w.calls[:i], w.calls[i+1:]...)
			return
		}
	}
}
