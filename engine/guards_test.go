package engine

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func partitionsOf(items []Item) map[int32]bool {
	out := map[int32]bool{}
	for _, it := range items {
		out[it.Partition] = true
	}
	return out
}

// Guard 2: what is retained is stamped anew by the callback, what is revoked leaves the queue before the callback returns.
func TestGuard2RetainedIsStampedAnew(t *testing.T) {
	run(t, newWorld(2, 3000), func(b *bundle) { b.cfg.MaxRecords = 500 }, func(b *bundle) {
		b.hold(true)
		b.assign("g1", 0, 1)
		first := b.publishing()
		require.Equal(b.t, "g1", first.stamp)
		synctest.Wait() // more of both is captured and queued meanwhile
		revoked := b.revoke("g2", 1)
		synctest.Wait()
		b.decide(Committed)
		b.wait(revoked)
		second := b.publishing()
		require.Equal(b.t, "g2", second.stamp)
		require.Equal(b.t, map[int32]bool{0: true}, partitionsOf(second.items), "only what is still owned")
		b.hold(false)
		b.decide(Committed)
		b.settled(0)
	})
}

// Guard 2: the broker refuses the stamp; nothing is published until a callback brought another one.
func TestGuard2StaleStampWaitsForTheCallback(t *testing.T) {
	run(t, newWorld(1, 10), nil, func(b *bundle) {
		b.hold(true)
		b.assign("g1", 0)
		first := b.publishing()
		b.decide(StaleStamp)
		b.quiet(900 * time.Millisecond)
		b.assign("g2") // nothing new for us: the callback comes all the same
		second := b.publishing()
		require.Equal(b.t, "g2", second.stamp)
		require.Equal(b.t, first.items, second.items, "the same bytes")
		b.hold(false)
		b.decide(Committed)
		b.settled()
	})
}

// Guard 2: if no callback comes within a second, it is asked again with the stamp we have: never with one from elsewhere.
func TestGuard2StaleStampIsTriedAgain(t *testing.T) {
	run(t, newWorld(1, 10), nil, func(b *bundle) {
		b.hold(true)
		b.assign("g1", 0)
		b.publishing()
		at := time.Now()
		b.decide(StaleStamp)
		second := b.publishing()
		require.Equal(b.t, "g1", second.stamp)
		require.GreaterOrEqual(b.t, time.Since(at), time.Second)
		b.hold(false)
		b.decide(Committed)
		b.settled()
	})
}

// Guard 2: a lost assignment leaves no stamp at all; what is retained waits for the next callback.
func TestGuard2NoStampAfterLost(t *testing.T) {
	run(t, newWorld(2, 10), nil, func(b *bundle) {
		b.assign("g1", 0, 1)
		b.settled()
		b.wait(b.lose(1))
		b.produce(0, 10)
		b.hold(true)
		b.quiet(10 * time.Second)
		b.assign("g2")
		require.Equal(b.t, "g2", b.publishing().stamp)
		b.hold(false)
		b.decide(Committed)
		b.settled(0)
	})
}

// Guard 3: a revoke's callback returns when nothing of the partition is in an open transaction or queued for one.
func TestGuard3RevokedWaitsForTheTransaction(t *testing.T) {
	run(t, newWorld(1, 3000), func(b *bundle) { b.cfg.MaxRecords = 500 }, func(b *bundle) {
		b.hold(true)
		b.assign("g1", 0)
		b.publishing()
		revoked := b.revoke("g2", 0)
		require.False(b.t, b.isDone(revoked), "returned while a transaction with the partition is open")
		b.decide(Committed)
		b.wait(revoked)
		b.quiet(time.Minute) // nothing of it is published any more
		b.hold(false)
		b.assign("g3", 0)
		b.settled()
	})
}

// Guard 3: lost is aborted, never committed; what else was in the transaction is published again.
func TestGuard3LostIsAborted(t *testing.T) {
	run(t, newWorld(2, 100), nil, func(b *bundle) {
		b.assign("g1", 0, 1)
		b.settled()
		b.hold(true)
		b.produce(0, 10)
		b.publishing()
		b.produce(0, 10)
		b.produce(1, 10)
		time.Sleep(time.Second) // both are captured behind it
		b.decide(Committed)
		require.Equal(b.t, map[int32]bool{0: true, 1: true}, partitionsOf(b.publishing().items))
		lost := b.lose(1)
		require.False(b.t, b.isDone(lost))
		b.decide(Committed) // it would be: but the cancel flag is set
		b.wait(lost)
		b.lock(func() {
			require.Equal(b.t, Aborted, b.attempts[len(b.attempts)-1].outcome)
			require.Len(b.t, b.out[1], 100)
		})
		b.hold(false)
		b.assign("g2")
		b.settled(0)
		b.lock(func() { require.Len(b.t, b.out[1], 100) })
		b.assign("g3", 1)
		b.settled()
	})
}

// Guard 3: a partition in trouble is being given up when the revoke comes: its callback must return, too.
func TestGuard3RevokedAfterTrouble(t *testing.T) {
	run(t, newWorld(1, 100), nil, func(b *bundle) {
		b.hold(true)
		b.assign("g1", 0)
		b.publishing()
		b.source.errs <- &PartitionError{0, errors.New("offset out of range")}
		synctest.Wait()
		revoked := b.revoke("g2", 0)
		require.False(b.t, b.isDone(revoked))
		b.decide(Committed)
		require.True(b.t, b.isDone(revoked), "the callback never returns: the worker keeps the whole group from its rebalance")
	})
}

// The same without a revoke: two troubles while one transaction is open must not leave the partition with nobody.
func TestTwoTroublesInOneTransaction(t *testing.T) {
	run(t, newWorld(1, 100), nil, func(b *bundle) {
		b.hold(true)
		b.assign("g1", 0)
		b.publishing()
		b.source.errs <- &PartitionError{0, errors.New("offset out of range")}
		b.source.errs <- &PartitionError{0, errors.New("offset out of range")}
		synctest.Wait()
		b.hold(false)
		b.decide(Committed)
		b.produce(0, 10)
		b.settled()
	})
}

// Guard 3: a topic was recreated while a revoke waits for the open transaction: the callback returns.
func TestGuard3RevokedWhileATopicIsRecreated(t *testing.T) {
	run(t, newWorld(1, 100), nil, func(b *bundle) {
		b.hold(true)
		b.assign("g1", 0)
		b.publishing()
		revoked := b.revoke("g2", 0)
		synctest.Wait()
		b.lock(func() { b.ids["out"] = "9" })
		time.Sleep(6 * time.Second) // in the bubble: past a check
		synctest.Wait()
		b.decide(Committed)
		require.True(b.t, b.isDone(revoked), "the callback never returns")
	})
}

// Guard 6: nothing is published that is not captured.
func TestGuard6CaptureBeforePublish(t *testing.T) {
	w := newWorld(2, 100)
	run(t, w, nil, func(b *bundle) {
		captured := make(chan struct{})
		b.lock(func() {
			b.captureHook = func(context.Context, []*Batch) (error, bool) { b.block(captured); return nil, true }
		})
		b.hold(true)
		b.assign("g1", 0, 1)
		b.quiet(30 * time.Second)
		close(captured)
		b.publishing()
		b.hold(false)
		b.decide(Committed)
		b.settled()
	})
}

// Guard 7: an abort is followed by the same bytes, in the same order, before anything else.
func TestGuard7AbortedIsPublishedAgainFirst(t *testing.T) {
	run(t, newWorld(2, 3000), func(b *bundle) { b.cfg.MaxRecords = 300 }, func(b *bundle) {
		b.hold(true)
		b.assign("g1", 0, 1)
		first := b.publishing()
		for range 3 {
			synctest.Wait() // more is captured behind it
			b.decide(Aborted)
			again := b.publishing()
			require.GreaterOrEqual(b.t, len(again.items), len(first.items))
			require.Equal(b.t, first.items, again.items[:len(first.items)])
			first = again
		}
		b.hold(false)
		b.decide(Committed)
		b.settled()
	})
}

// Guard 8: the outcome is unknown. A new producer comes first, then claim, look and the gap from the outbox; both outcomes are tried.
func TestGuard8LostProducer(t *testing.T) {
	for _, committed := range []bool{false, true} {
		run(t, newWorld(1, 2000), func(b *bundle) { b.cfg.MaxRecords = 300 }, func(b *bundle) {
			b.hold(true)
			b.assign("g1", 0)
			first := b.publishing()
			synctest.Wait()
			renew := make(chan struct{})
			var from int
			b.lock(func() {
				b.renewHook = func(context.Context) error { b.block(renew); return nil }
				from = len(b.trace)
				if committed {
					for i := range first.items {
						b.commit(&first.items[i])
					}
				}
			})
			b.decide(Lost)
			b.quiet(20 * time.Second) // no producer, no publish
			require.Equal(b.t, []string{"publish lost"}, b.tracedSince(from), "no claim before there is a producer")
			close(renew)
			drain := b.publishing()
			for _, it := range drain.items {
				require.True(b.t, it.Drain, "what was in memory is dropped: the outbox has it")
			}
			require.Equal(b.t, []string{"publish lost", "renew", "claim 0", "look"}, b.tracedSince(from)[:4])
			b.hold(false)
			b.decide(Committed)
			b.settled()
		})
	}
}

// Fenced by whom? Another incarnation is registered: stop and say so.
func TestGuard8Replaced(t *testing.T) {
	run(t, newWorld(1, 100), nil, func(b *bundle) {
		b.hold(true)
		b.assign("g1", 0)
		b.publishing()
		b.lock(func() { b.replaced = true })
		from := len(b.tracedSince(0))
		b.decide(Lost)
		b.ended(ErrReplaced)
		require.NotContains(b.t, b.tracedSince(from), "renew", "two workers never fence each other in turns")
	})
}

// Guards 9 and 11: a capture's outcome is unknown. All that is in memory is dropped, what was captured is drained from the outbox.
func TestGuard9UnknownCapture(t *testing.T) {
	for _, written := range []bool{false, true} {
		run(t, newWorld(2, 3000), func(b *bundle) { b.cfg.MaxRecords = 300 }, func(b *bundle) {
			b.hold(true)
			n, lives := 0, map[int32]uint64{}
			b.lock(func() {
				b.captureHook = func(_ context.Context, batches []*Batch) (error, bool) {
					for _, batch := range batches {
						if n < 4 {
							lives[batch.Partition] = batch.Life
						}
					}
					if n++; n == 4 { // two or three wait in the queue then
						return errors.New("connection reset"), written
					}
					return nil, true
				}
			})
			b.assign("g1", 0, 1)
			b.publishing()
			synctest.Wait()
			b.decide(Committed)
			for drained := false; !drained; { // the gap comes from the outbox, at least that of the partitions captured so far
				for _, it := range b.publishing().items {
					require.Greater(b.t, it.Life, lives[it.Partition], "partition %d: published from memory after an outcome was unknown", it.Partition)
					drained = drained || it.Drain
				}
				if drained {
					b.hold(false)
				}
				b.decide(Committed)
			}
			b.settled()
		})
	}
}
