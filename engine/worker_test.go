package engine

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// bundle is one worker in its world. Everything runs in a synctest bubble: time stands still while anything can go on, and a goroutine
// left behind fails the test.
type bundle struct {
	*world
	t    *testing.T
	cfg  Config
	stop context.CancelFunc
	done chan error
	logs *observer.ObservedLogs
}

// run starts a worker and hands the test its world. The test ends with the worker stopped, and with nothing in wrong.
func run(t *testing.T, w *world, change func(*bundle), test func(*bundle)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.DebugLevel)
		b := &bundle{world: w, t: t, done: make(chan error, 1), logs: logs}
		// made in the bubble: channels of outside it do not count as waiting
		w.source.calls, w.source.errs, w.source.wake = make(chan func(Listener)), make(chan error, 8), make(chan struct{}, 1)
		w.publisher.entered, w.publisher.decide = make(chan attempt), make(chan Outcome)
		w.over = make(chan struct{})
		b.cfg = Config{
			WorkerID: "w1", SourceID: 1, Shape: Shape{Input: "in", DLQ: "dlq", Partitions: map[string]int{"out": 3, "dlq": 2}}, Handler: echo{},
			MaxRecords: 1000, MaxBytes: 1 << 20, MaxInFlight: 1 << 20, DrainRecords: 10, CheckEvery: 5 * time.Second,
			Source: func(l Listener) (Source, error) { w.source.listener = l; return w.source, nil },
			Store:  fakeStore{w}, Group: fakeGroup{w}, Publisher: w.publisher, Log: zap.New(core),
		}
		if change != nil {
			change(b)
		}
		ctx, cancel := context.WithCancel(t.Context())
		b.stop = cancel
		exited := make(chan struct{})
		go func() { b.done <- Run(ctx, b.cfg); close(exited) }()
		t.Cleanup(func() { // after a failure, too: the bubble must be empty
			close(w.over)
			cancel()
			<-exited
		})
		test(b)
		if b.done != nil {
			b.finish(nil)
		}
		require.Empty(t, w.wrong)
	})
}

// finish stops the worker and wants it to end so.
func (b *bundle) finish(want error) {
	b.t.Helper()
	b.stop()
	b.ended(want)
}

func (b *bundle) ended(want error) {
	b.t.Helper()
	select {
	case err := <-b.done:
		require.ErrorIs(b.t, err, want)
		b.lock(func() { // its caller closes both now
			require.False(b.t, b.capturing, "a capture is still under way")
			require.False(b.t, b.publisher.busy, "a call of the producer is still under way")
			require.False(b.t, b.publisher.up, "the producer was not closed")
		})
	case <-time.After(time.Hour): // bubble time
		require.Fail(b.t, "the worker did not end")
	}
	b.done = nil
}

func (b *bundle) lock(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

// call runs a rebalance inside Poll and returns a channel that is closed when its callback has returned.
func (b *bundle) call(f func(Listener)) chan struct{} {
	done := make(chan struct{})
	go func() {
		select {
		case b.source.calls <- func(l Listener) { f(l); close(done) }:
		case <-b.over:
		}
	}()
	return done
}

// wait waits for a callback to return, for an hour of the bubble's time: it must not wait for ever, the poller's clock goes on.
func (b *bundle) wait(c chan struct{}) {
	b.t.Helper()
	select {
	case <-c:
	case <-time.After(time.Hour):
		require.Fail(b.t, "the callback does not return")
	}
}

// decide gives the publish under way its outcome.
func (b *bundle) decide(o Outcome) {
	b.t.Helper()
	select {
	case b.publisher.decide <- o:
	case <-time.After(time.Hour):
		require.Fail(b.t, "no publish is under way")
	}
}

func (b *bundle) assign(s Stamp, ps ...int32) {
	b.wait(b.call(func(l Listener) {
		b.lock(func() {
			for _, p := range ps {
				b.owned[p] = true
				delete(b.source.pos, p)
			}
		})
		l.Assigned(ps, s)
	}))
}

func (b *bundle) revoke(s Stamp, ps ...int32) chan struct{} {
	return b.call(func(l Listener) {
		l.Revoked(ps, s)
		b.disown(ps)
	})
}

func (b *bundle) lose(ps ...int32) chan struct{} {
	return b.call(func(l Listener) {
		l.Lost(ps, nil)
		b.disown(ps)
	})
}

func (b *bundle) disown(ps []int32) {
	b.lock(func() {
		for _, p := range ps {
			delete(b.owned, p)
		}
	})
}

// hold makes the publisher wait for decide.
func (b *bundle) hold(on bool) { b.lock(func() { b.publisher.hold = on }) }

// publishing waits for the next publish to begin.
func (b *bundle) publishing() attempt {
	b.t.Helper()
	select {
	case a := <-b.publisher.entered:
		return a
	case <-time.After(time.Minute):
		require.Fail(b.t, "nothing is published")
		return attempt{}
	}
}

// quiet waits until every goroutine waits, and wants no publish to be under way.
func (b *bundle) quiet(d time.Duration) {
	b.t.Helper()
	select {
	case a := <-b.publisher.entered:
		require.Fail(b.t, "published", "%v under %v", a.items, a.stamp)
	case <-time.After(d):
	}
}

func (b *bundle) isDone(c chan struct{}) bool {
	synctest.Wait()
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// settled waits until all records of the partitions are in both sinks, exactly once.
func (b *bundle) settled(ps ...int32) {
	b.t.Helper()
	var err error
	for range 3000 {
		if err = nil; len(ps) == 0 {
			ps = slices.Sorted(maps.Keys(b.rows))
		}
		for _, p := range ps {
			err = errors.Join(err, b.check(p))
		}
		if err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond) // of the bubble: passes as soon as all of the worker waits
	}
	require.NoError(b.t, err, "trace %v", b.trace)
}

func (b *bundle) tracedSince(n int) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.trace[n:])
}

func TestOrdinaryLife(t *testing.T) {
	run(t, newWorld(3, 5000), func(b *bundle) { b.cfg.Leave = true }, func(b *bundle) {
		b.assign("g1", 0, 1, 2)
		b.settled()
		b.produce(1, 10)
		b.settled()
		b.finish(nil)
		require.True(t, b.left)
		require.True(t, b.source.closed)
		require.Equal(t, 1, b.publisher.closes)
	})
}

// A first start: no rows, no offsets.
func TestFirstStart(t *testing.T) {
	w := newWorld(2, 100)
	clear(w.rows)
	run(t, w, nil, func(b *bundle) {
		b.assign("g1", 0, 1)
		b.settled(0, 1)
	})
}
