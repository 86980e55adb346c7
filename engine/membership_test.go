package engine

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

var errFenced = &FatalError{errors.New("fenced by group.instance.id")}

// again is a second membership's source.
func (b *bundle) again() *fakeSource {
	return &fakeSource{
		w: b.world, calls: make(chan func(Listener)), errs: make(chan error, 8), pos: map[int32]int64{}, paused: map[int32]bool{}, wake: make(chan struct{}, 1),
	}
}

// The group ends the membership, and nobody else runs under our id: everything owned is lost, and we join again. What was in the open
// transaction is aborted, and what the old membership tells afterwards is for nobody.
func TestMembershipEnded(t *testing.T) {
	run(t, newWorld(2, 3000), func(b *bundle) {
		join := b.cfg.Source
		b.cfg.MaxRecords = 500
		b.cfg.Source = func(l Listener) (Source, error) {
			if b.source.listener != nil {
				b.source = b.again()
			}
			return join(l)
		}
	}, func(b *bundle) {
		b.hold(true)
		b.assign("g1", 0, 1)
		b.publishing()
		synctest.Wait()
		old := b.source
		b.lock(func() { clear(b.owned) }) // they are the group's again
		old.errs <- errFenced
		synctest.Wait()
		b.decide(Committed) // the broker would, but is asked no more
		time.Sleep(10 * time.Second)
		b.lock(func() {
			require.True(b.t, old.closed)
			require.NotSame(b.t, old, b.source)
			require.Equal(b.t, Aborted, b.attempts[0].outcome, "a transaction was committed though its partitions were lost")
		})
		b.hold(false)
		b.assign("g2", 0, 1)
		done := make(chan struct{})
		go func() { old.listener.Lost([]int32{0, 1}, nil); close(done) }() // a close that took its time
		b.wait(done)
		b.settled()
		require.Equal(b.t, 1, b.logs.FilterMessage("the group ended our membership: joining again").Len())
	})
}

// Another process is registered under our id: stop and say so. While Postgres can't tell, nobody is fenced.
func TestMembershipEndedByAnother(t *testing.T) {
	run(t, newWorld(1, 100), func(b *bundle) {
		b.cfg.Source = onlyOnce(b, b.cfg.Source)
	}, func(b *bundle) {
		b.assign("g1", 0)
		b.settled()
		b.lock(func() { b.storeAway = true })
		b.source.errs <- errFenced
		time.Sleep(time.Minute)
		b.lock(func() { b.storeAway, b.replaced = false, true })
		b.ended(ErrReplaced)
	})
}

func onlyOnce(b *bundle, join func(Listener) (Source, error)) func(Listener) (Source, error) {
	joined := 0
	return func(l Listener) (Source, error) {
		if joined++; joined > 1 {
			b.lock(func() { b.blame("joined again") })
		}
		return join(l)
	}
}

// Memberships that end as soon as they begin end the worker, in the end; one that lasted does not count.
func TestMembershipEndsForGood(t *testing.T) {
	run(t, newWorld(1, 100), nil, func(b *bundle) {
		for range 20 {
			b.assign("g", 0)
			b.settled()
			time.Sleep(2 * steadyAfter)
			b.source.errs <- errFenced
		}
		for range membershipsInARow {
			b.assign("g", 0)
			b.source.errs <- errFenced
		}
		b.ended(errFenced)
	})
}

// Asked to stop while there is no membership.
func TestStopWithoutMembership(t *testing.T) {
	run(t, newWorld(1, 100), func(b *bundle) { b.cfg.Leave = true }, func(b *bundle) {
		b.assign("g1", 0)
		b.settled()
		b.lock(func() { b.storeAway = true })
		b.source.errs <- errFenced
		time.Sleep(time.Minute)
		b.finish(nil)
		require.False(b.t, b.left, "who is a member under our id now may not be us")
	})
}

// A partition nobody has: we came back quietly, and what we gave up before was given to no one. Seen twice, without a rebalance since we
// joined, we leave so that there is one.
func TestUnowned(t *testing.T) {
	run(t, newWorld(2, 10), nil, func(b *bundle) {
		b.lock(func() { b.unowned = []int32{1} })
		b.assign("g1", 0)
		time.Sleep(b.cfg.CheckEvery + time.Second)
		b.lock(func() { require.False(b.t, b.left, "its former owner may only be slow to join again") })
		time.Sleep(b.cfg.CheckEvery)
		b.lock(func() { require.True(b.t, b.left); b.left, b.unowned = false, nil })
		b.assign("g2", 1)
		b.settled()
		time.Sleep(10 * b.cfg.CheckEvery)
		b.lock(func() { require.False(b.t, b.left) })
	})
}

// While there is a rebalance, or when there has been one since we joined, or nothing was missing once, it is not for us to see to it.
func TestUnownedIsNotOurs(t *testing.T) {
	for name, f := range map[string]func(*bundle){
		"rebalancing":  func(b *bundle) { b.lock(func() { b.rebalancing = true }) },
		"rebalanced":   func(b *bundle) { time.Sleep(b.cfg.CheckEvery + time.Second); b.assign("g2") },
		"was complete": func(b *bundle) { b.lock(func() { b.unowned = nil }); time.Sleep(2 * b.cfg.CheckEvery) },
		"stopping":     func(b *bundle) { b.finish(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, newWorld(2, 10), nil, func(b *bundle) {
				b.lock(func() { b.unowned = []int32{1} })
				b.assign("g1", 0)
				f(b)
				b.lock(func() { b.unowned = []int32{1} })
				time.Sleep(10 * b.cfg.CheckEvery)
				b.lock(func() { require.False(b.t, b.left) })
			})
		})
	}
}
