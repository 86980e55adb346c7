package sim

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/guard"
)

// consumer is librdkafka's: a static member with a thread of its own that heartbeats and joins, callbacks that run inside Poll, and
// partitions that are fetched from where they were sought to.
type consumer struct {
	w *worker
	s *sim
	l engine.Listener

	// As the client's own thread has them now; a stamp is a copy, taken in a callback.
	member     string
	generation int

	joining, rejoin bool
	owned           parts
	callbacks       []callback
	serving         bool // a callback waits for its poll, or runs
	fatal           error
	errs            []*engine.PartitionError
	closed          bool

	at             [32]int64
	sought, paused parts

	held     time.Duration // until when no poll returns: its thread gets no time, the client's own does
	told     parts         // what the listener was told is ours
	life     int           // raised when the group refuses us
	poll     *call
	offered  bool        // the poll's end is planned
	woken    atomic.Bool // there may be commands for the poller: the poll is not to last
	answered pollAnswer
}

// callback is a rebalance, as the client tells of it.
type callback struct {
	kind  engine.EventKind
	parts parts
	stamp *stamp
	then  func()
}

type pollAnswer struct {
	callback *callback
	err      error
	records  []engine.Record
}

func newConsumer(w *worker, l engine.Listener) *consumer {
	c := &consumer{w: w, s: w.s, l: l, generation: -1}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.timers = append(w.s.timers, event{at: time.Millisecond, w: w, f: c.join}, event{at: heartbeatInterval, w: w, f: c.heartbeat})
	return c
}

// wake ends the poll that is under way, soon.
func (c *consumer) wake() {
	if c != nil {
		c.woken.Store(true)
	}
}

// leave: the process is gone. A static member says nothing.
func (c *consumer) leave() {
	if c != nil {
		c.closed = true
	}
}

// join asks for membership, or for it again.
func (c *consumer) join() {
	if c.closed || c.fatal != nil || c.joining {
		return
	}
	if c.serving {
		c.rejoin = true
		return
	}
	c.joining, c.rejoin = true, false
	c.s.say(c.w, "joins", int64(c.owned), int64(c.generation))
	type answer struct {
		id         string
		generation int
		assigned   parts
		refused    code
	}
	var a answer
	g := &c.s.k.group
	c.send(func(reply func()) {
		if c.s.k.away(1) {
			a.refused = moved
			reply()
			return
		}
		g.join(c.w.id, c.member, c.owned, func(id string, generation int, assigned parts) {
			a = answer{id, generation, assigned, ok}
			reply()
		}, func(code code) {
			a.refused = code
			reply()
		})
	}, func(answered bool) {
		c.joining = false
		switch {
		case c.closed:
		case !answered || a.refused == moved:
			c.s.at(c.s.between(50*time.Millisecond, 500*time.Millisecond), c.w, nil, c.join)
		case a.refused != ok:
			c.refused(a.refused)
		default:
			c.member, c.generation = a.id, a.generation
			c.synced(a.assigned)
		}
	})
}

// synced is a new assignment: first what is to be given up, then what is new. A callback comes in any case.
func (c *consumer) synced(assigned parts) {
	revoked, added, life := c.owned&^assigned, assigned&^c.owned, c.life
	assign := callback{kind: engine.EvAssigned, parts: added, then: func() {
		if life == c.life || !c.s.cheat.eager {
			c.owned |= added
		}
	}}
	if revoked == 0 {
		c.enqueue(assign)
		return
	}
	c.rejoin = true
	c.enqueue(callback{kind: engine.EvRevoked, parts: revoked, then: func() {
		c.owned &^= revoked
		if added != 0 {
			c.enqueue(assign)
		}
	}})
}

// refused: the group does not know us any more, or another process has taken the instance id.
func (c *consumer) refused(why code) {
	c.s.say(c.w, "group refuses: "+why.String(), 0, 0)
	if why == fencedInstance {
		c.fatal = &engine.FatalError{Err: errors.New("fenced by another member with the same group.instance.id")}
		c.wake()
		return
	}
	c.member, c.generation = "", -1
	if c.owned == 0 && !c.serving {
		c.join()
		return
	}
	c.life++
	if c.s.cheat.eager {
		c.owned, c.sought = 0, 0
		c.enqueue(callback{kind: engine.EvLost, then: func() {}})
		c.serving = false
		c.join()
		c.serving = true
		return
	}
	c.rejoin = true
	c.enqueue(callback{kind: engine.EvLost, then: func() { c.owned = 0 }})
}

// send is a request of the client's own thread. From a connection that is gone it does not arrive any more: see doc/protocol.md.
func (c *consumer) send(serve func(reply func()), back func(answered bool)) {
	f := c.s.fate(c.w, toKafka)
	f.lost, f.late = f.lost || f.late, false
	c.s.deliver(c.w, nil, toKafka, f, nil, serve, back)
}

func (c *consumer) heartbeat() {
	if c.closed || c.fatal != nil {
		return
	}
	c.s.at(heartbeatInterval, c.w, nil, c.heartbeat)
	if c.joining || c.member == "" {
		return
	}
	var answer code
	member, generation := c.member, c.generation
	c.send(func(reply func()) {
		answer = ok
		if !c.s.k.away(1) {
			answer = c.s.k.group.heartbeat(c.w.id, member, generation)
		}
		reply()
	}, func(answered bool) {
		switch {
		case !answered || answer == ok || c.closed || c.joining || member != c.member:
		case answer == rebalanceInProgress:
			c.join()
		case answer == illegalGeneration && generation != c.generation:
		default:
			c.refused(answer)
		}
	})
}

func (c *consumer) enqueue(cb callback) {
	c.callbacks = append(c.callbacks, cb)
	c.serving = true
	c.offer()
}

// stampNow is GetConsumerGroupMetadata.
func (c *consumer) stampNow() *stamp { return &stamp{c.w.id, c.member, c.generation} }

// offer plans the end of a poll that has something to return, or is wanted back.
func (c *consumer) offer() {
	if c.poll == nil || c.offered {
		return
	}
	if len(c.callbacks) > 0 || c.fatal != nil || len(c.errs) > 0 || c.woken.Load() || c.fetchable() {
		c.offered = true
		c.poll.at(max(c.s.between(100*time.Microsecond, 8*time.Millisecond), c.held-c.s.now), c.answer)
	}
}

// answer ends the poll.
func (c *consumer) answer() {
	k := c.poll
	c.poll, c.offered, c.answered = nil, false, pollAnswer{}
	switch {
	case c.fatal != nil:
		c.answered.err = c.fatal
	case len(c.callbacks) > 0:
		cb := c.callbacks[0]
		c.callbacks = c.callbacks[1:]
		if cb.kind == engine.EvLost {
			cb.parts = c.told // with what an earlier callback may have brought meanwhile
		} else {
			cb.stamp = c.stampNow()
		}
		c.s.say(c.w, "callback: "+string(cb.kind), int64(cb.parts), 0)
		c.answered.callback = &cb
		k.finish(nil)
		return // not a poll yet: commands are still to be obeyed
	case len(c.errs) > 0:
		c.answered.err = c.errs[0]
		c.errs = c.errs[1:]
	default:
		c.fetch()
	}
	c.woken.Store(false)
	k.finish(nil)
}

// called: a callback has returned.
func (c *consumer) called(cb *callback) {
	if cb.kind == engine.EvAssigned {
		c.told |= cb.parts
	} else {
		c.told &^= cb.parts
		c.sought &^= cb.parts
		c.paused &^= cb.parts
	}
	cb.then()
	if len(c.callbacks) > 0 {
		return
	}
	c.serving = false
	if c.rejoin {
		c.join()
	}
}

// Poll implements engine.Source.
func (c *consumer) Poll(buf []engine.Record, n int, _ time.Duration) ([]engine.Record, error) {
	if err := c.w.park(background, "poll", -1, func(k *call) { c.poll = k; c.offer() }); err != nil {
		return buf, &engine.FatalError{Err: err}
	}
	a := c.answered
	if a.callback == nil {
		return append(buf, a.records[:min(n, len(a.records))]...), a.err
	}
	c.tell(a.callback)
	if err := c.w.park(background, "callback done", -1, func(k *call) {
		k.at(50*time.Microsecond, func() { c.called(a.callback); k.finish(nil) })
	}); err != nil {
		return buf, &engine.FatalError{Err: err}
	}
	return buf, nil
}

func (c *consumer) tell(cb *callback) {
	ps := cb.parts.list()
	switch cb.kind {
	case engine.EvAssigned:
		c.l.Assigned(ps, cb.stamp)
	case engine.EvRevoked:
		c.l.Revoked(ps, cb.stamp)
	default:
		c.l.Lost(ps, nil)
	}
}

// Close implements engine.Source.
func (c *consumer) Close() error {
	var owned parts
	if err := c.w.park(context.Background(), "close", -1, func(k *call) {
		k.at(time.Millisecond, func() { owned = c.owned; c.serving = true; k.finish(nil) })
	}); err != nil {
		return err
	}
	switch {
	case owned == 0:
	case c.fatal != nil:
		c.l.Lost(owned.list(), nil)
	default:
		c.l.Revoked(owned.list(), c.stampNow())
	}
	return c.w.park(context.Background(), "closed", -1, func(k *call) {
		k.at(time.Millisecond, func() { c.owned, c.closed, c.w.returning = 0, true, true; k.finish(nil) })
	})
}

// Seek implements engine.Source.
func (c *consumer) Seek(p int32, offset int64) error {
	c.wake()
	if !c.owned.has(p) || c.w.dead {
		return errors.New("sim: erroneous state")
	}
	c.at[p] = offset
	c.sought |= 1 << p
	c.paused &^= 1 << p
	return nil
}

// Pause implements engine.Source.
func (c *consumer) Pause(ps []int32) error {
	for _, p := range ps {
		c.paused |= 1 << p
	}
	return nil
}

// Resume implements engine.Source.
func (c *consumer) Resume(ps []int32) error {
	for _, p := range ps {
		c.paused &^= 1 << p
	}
	return nil
}

func (c *consumer) fetching() parts { return c.owned & c.sought &^ c.paused }

func (c *consumer) fetchable() bool {
	if f := c.fetching(); f != 0 && !c.s.cut(c.w, toKafka) {
		for p := range int32(c.s.p.partitions) {
			l := c.s.k.in[p]
			if f.has(p) && (c.at[p] < l.end || c.at[p] < l.start || c.at[p] > l.end) {
				return true
			}
		}
	}
	return false
}

// fetch takes some records of the partitions that are being fetched. A position outside of the log is an error: auto.offset.reset=error.
func (c *consumer) fetch() {
	if c.s.cut(c.w, toKafka) {
		return
	}
	n, f := 1+c.s.rng.IntN(c.s.p.fetch), c.fetching()
	first := c.s.rng.IntN(c.s.p.partitions)
	for i := range c.s.p.partitions {
		p := int32((first + i) % c.s.p.partitions)
		l := c.s.k.in[p]
		switch {
		case !f.has(p):
			continue
		case c.at[p] < l.start && guard.Off(guard.Expired):
			c.at[p] = l.start // as auto.offset.reset=earliest would
		case c.at[p] > l.end && guard.Off(guard.Truncated):
			c.at[p] = l.end
		case c.at[p] < l.start || c.at[p] > l.end:
			c.sought &^= 1 << p
			c.answered.err = &engine.PartitionError{Partition: p, Err: errors.New("offset out of range")}
			return
		}
		for i := range l.records {
			r := &l.records[i]
			if r.Offset >= c.at[p] && n > 0 {
				c.answered.records = append(c.answered.records, *r)
				c.at[p] = r.Offset + 1
				n--
			}
		}
	}
}
