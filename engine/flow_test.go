package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/outbox"
)

// A chunk that was fetched before a seek arrives after it: its records are not taken, or those between would be lost.
func TestChunkFromBeforeTheSeek(t *testing.T) {
	run(t, newWorld(2, 0), func(b *bundle) { b.cfg.MaxRecords, b.cfg.MaxInFlight = 1, 2000 }, func(b *bundle) {
		captured := make(chan struct{})
		b.lock(func() {
			b.captureHook = func(context.Context, []*Batch) (error, bool) { b.block(captured); return nil, true }
		})
		b.assign("g1", 0, 1)
		time.Sleep(time.Second)
		b.produce(0, 5) // taken, waiting behind the capture
		time.Sleep(50 * time.Millisecond)
		b.produce(1, 30) // the worker is full now
		time.Sleep(50 * time.Millisecond)
		b.produce(0, 5) // waits in the poller
		time.Sleep(50 * time.Millisecond)
		b.source.errs <- &PartitionError{0, errors.New("trouble")} // all of 0 is dropped, and it is claimed and sought anew
		time.Sleep(time.Second)
		b.lock(func() { require.Equal(b.t, []string{"0 to 0"}, b.source.seeks[len(b.source.seeks)-1:]) })
		close(captured)
		b.settled()
	})
}

// The chunks of a life that failed with records in it: the gap between what was captured and what was fetched is read again.
func TestFailedLifeIsReadAgain(t *testing.T) {
	run(t, newWorld(2, 400), func(b *bundle) { b.cfg.MaxRecords, b.cfg.MaxInFlight, b.source.max = 20, 3000, 25 }, func(b *bundle) {
		gate := make(chan struct{})
		b.lock(func() {
			b.captureHook = func(context.Context, []*Batch) (error, bool) { b.block(gate); return nil, true }
		})
		b.assign("g1", 0, 1)
		for range 30 {
			time.Sleep(time.Second)
			b.source.errs <- &PartitionError{0, errors.New("trouble")}
			for range 2 { // let two captures go on
				select {
				case gate <- struct{}{}:
				case <-time.After(time.Second):
				}
			}
		}
		close(gate)
		b.settled()
	})
}

// The first record since the claim is of another leader than the one captured before it: the log may have been truncated since the look, and have
// grown again. It is looked at once more before anything of that leader's is captured, and not again for that one.
func TestNewLeader(t *testing.T) {
	w := newWorld(1, 100)
	for i := range w.logs[0] {
		w.logs[0][i].LeaderEpoch = 7
	}
	run(t, w, func(b *bundle) {
		b.captureHook = func(context.Context, []*Batch) (error, bool) {
			b.lock(func() { require.Equal(b.t, 2, b.looks) })
			return nil, true
		}
	}, func(b *bundle) {
		b.assign("g1", 0)
		b.settled()
		require.Equal(b.t, 1, b.logs.FilterMessageSnippet("new leader").Len())
	})
}

// An error that does not say which partition it concerns: all that are read are claimed and looked at again, and the one it was stops.
func TestSomePartitionOutOfRange(t *testing.T) {
	run(t, newWorld(3, 10), nil, func(b *bundle) {
		b.assign("g1", 0, 1, 2)
		b.settled()
		n := len(b.tracedSince(0))
		b.lock(func() { b.logStart[1] = 15 })
		b.source.errs <- &PartitionError{SomePartition, errors.New("offset out of range")}
		b.produce(0, 10)
		b.produce(1, 10)
		b.settled(0, 2)
		b.quiet(time.Minute)
		for p := range 3 {
			require.Contains(b.t, b.tracedSince(n), fmt.Sprint("claim ", p))
		}
		b.lock(func() { require.Len(b.t, b.out[1], 10, "it went on past records that had expired") })
	})
}

func TestBackPressure(t *testing.T) {
	run(t, newWorld(3, 4000), func(b *bundle) { b.cfg.MaxRecords, b.cfg.MaxInFlight, b.source.max = 100, 20_000, 200 }, func(b *bundle) {
		b.hold(true)
		b.assign("g1", 0, 1, 2)
		b.publishing()
		time.Sleep(time.Minute)
		synctest.Wait()
		b.lock(func() {
			require.Positive(b.t, b.source.pauses, "nothing was paused")
			read := int64(0)
			for _, at := range b.source.pos {
				read += at
			}
			require.Less(b.t, read, int64(3000), "the worker reads on without bounds")
		})
		b.hold(false)
		b.decide(Committed)
		b.settled()
		b.lock(func() { require.Positive(b.t, b.source.resumes) })
	})
}

// More waits on one partition than the worker may hold, and captures are slow: a few records of another go through long before that is done.
func TestBurstLeavesRoom(t *testing.T) {
	const burst = 4000
	w := newWorld(2, 0)
	w.append(0, burst)
	run(t, w, func(b *bundle) { b.cfg.MaxRecords, b.cfg.MaxInFlight, b.source.max = 100, 40_000, 50 }, func(b *bundle) {
		b.lock(func() {
			b.captureHook = func(context.Context, []*Batch) (error, bool) { time.Sleep(time.Second); return nil, true }
		})
		b.assign("g1", 0, 1)
		time.Sleep(5 * time.Second)
		b.produce(1, 5)
		b.settled(1)
		b.lock(func() { require.Less(b.t, b.rows[0].next, int64(burst/2)) })
		b.settled()
	})
}

// A transient error of the handler keeps back the record it struck, and what comes after it in that partition; nothing else.
func TestTransientHandlerError(t *testing.T) {
	var away atomic.Bool
	away.Store(true)
	run(t, newWorld(2, 100), func(b *bundle) {
		b.cfg.Handler = echo{func(r *Record) error {
			if r.Partition == 0 && r.Offset == 37 && away.Load() {
				return errors.New("registry is away")
			}
			return nil
		}}
	}, func(b *bundle) {
		b.assign("g1", 0, 1)
		b.settled(1)
		time.Sleep(time.Minute)
		synctest.Wait()
		b.lock(func() {
			require.EqualValues(b.t, 37, b.rows[0].next, "what came before the record is captured, the record is waited for")
		})
		away.Store(false)
		b.settled()
	})
}

// While it lasts, it is said once, and the stores are not stormed with claims.
func TestTransientHandlerErrorIsQuiet(t *testing.T) {
	run(t, newWorld(1, 100), func(b *bundle) {
		b.cfg.Handler = echo{func(*Record) error { return errors.New("registry is away") }}
	}, func(b *bundle) {
		b.assign("g1", 0)
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(b.t, 1, b.logs.FilterMessage("trying again").Len(), "said once")
		b.lock(func() { require.Less(b.t, b.rows[0].epoch, int64(60), "claims in one minute") })
	})
}

// A Permanent error makes a dead letter, in order with the events, with the record untouched and the headers of contract.md.
func TestDeadLetter(t *testing.T) {
	w := newWorld(1, 10)
	w.logs[0][5].Headers = []outbox.Header{{Key: "traceparent", Value: []byte("00-1")}, {Key: "null"}}
	run(t, w, func(b *bundle) {
		b.cfg.Handler = echo{func(r *Record) error {
			if r.Offset == 5 {
				return fmt.Errorf("wrapped: %w", &Permanent{Class: "not_avro", Stage: "decode", Message: "first byte is 0x7b"})
			}
			return nil
		}}
	}, func(b *bundle) {
		b.assign("g1", 0)
		b.settled()
		got := b.out[0][5]
		require.EqualValues(b.t, 5, got.SourceOffset)
		var header []string
		for _, h := range got.Headers {
			header = append(header, h.Key+"="+string(h.Value))
		}
		require.Equal(b.t, "traceparent=00-1 null= exactly-source=in/0/5 __connect.errors.topic=in __connect.errors.partition=0 __connect.errors.offset=5 "+
			"__connect.errors.stage=decode __connect.errors.exception.class.name=not_avro __connect.errors.exception.message=first byte is 0x7b "+
			"exactly-error-class=not_avro", strings.Join(header, " "))
		require.Nil(b.t, got.Headers[1].Value, "null is not empty")
		require.Equal(b.t, w.logs[0][5].Key, got.Key)
		require.Equal(b.t, w.logs[0][5].Value, got.Value)
		require.Equal(b.t, "dlq", got.Topic)
		require.EqualValues(b.t, 1, b.rows[0].dead)
		for _, m := range b.out[0] {
			require.Zero(b.t, m.Seq, "offset %d: the first and only message of its record", m.SourceOffset)
		}
		var rows int64
		for _, c := range b.captures {
			rows += c[0].Rows
		}
		require.EqualValues(b.t, 9, rows, "the row that was begun is taken back")
	})
}

// A capture is refused for one partition: the others go on, that one goes back to claim.
func TestRefusedCapture(t *testing.T) {
	run(t, newWorld(2, 100), nil, func(b *bundle) {
		b.assign("g1", 0, 1)
		b.settled()
		b.lock(func() { b.rows[0].epoch++ }) // a late claim by a former owner
		b.produce(0, 10)
		b.produce(1, 10)
		b.settled()
	})
}

// A partition was taken away and came back while a look was under way: that look's answer is older than the claim, and is not for us.
func TestLookFromBeforeTheClaim(t *testing.T) {
	w := newWorld(1, 100)
	for o := range int64(100) { // captured by a predecessor, half of it published
		w.rows[0].outbox = append(w.rows[0].outbox, outbox.Message{SourceOffset: o, Topic: "out", Value: fmt.Appendf(nil, "seen 0/%d", o)})
		w.rows[0].records = append(w.rows[0].records, o)
	}
	w.rows[0].next, w.rows[0].captured, w.rows[0].epoch = 100, true, 1
	w.out[0] = append(w.out[0], w.rows[0].outbox[:50]...)
	w.offsets[0] = groupOffset{50, true}
	run(t, w, nil, func(b *bundle) {
		told := make(chan struct{})
		b.lock(func() {
			b.lookHook = func(n int) {
				if n == 1 {
					b.block(told)
				}
			}
		})
		b.assign("g1", 0)
		synctest.Wait()
		b.wait(b.revoke("g2", 0))
		b.lock(func() { // another worker claims it, drains the gap, and loses it again
			b.rows[0].epoch++
			b.out[0] = append(b.out[0], b.rows[0].outbox[50:]...)
			b.offsets[0] = groupOffset{100, true}
		})
		b.assign("g4", 0)
		synctest.Wait()
		close(told)
		b.produce(0, 10)
		b.settled()
	})
}

// Held, and let go.
func TestHeld(t *testing.T) {
	w := newWorld(2, 100)
	w.rows[0].held = "rebuild"
	run(t, w, nil, func(b *bundle) {
		b.assign("g1", 0, 1)
		b.settled(1)
		b.lock(func() { require.Zero(b.t, b.rows[0].next); b.rows[0].held = "" })
		b.settled()
	})
}

// A topic is recreated while we consume: nothing more is captured, it is said once, and a repair needs no restart.
func TestTopicRecreated(t *testing.T) {
	run(t, newWorld(1, 100), nil, func(b *bundle) {
		b.assign("g1", 0)
		b.settled()
		b.lock(func() { b.ids["in"] = "9" })
		time.Sleep(11 * time.Second)
		b.produce(0, 10)
		time.Sleep(time.Minute)
		b.lock(func() { require.EqualValues(b.t, 100, b.rows[0].next); b.ids["in"] = "1" })
		b.settled()
		stopped := 0
		for _, e := range b.logs.All() {
			if strings.HasPrefix(e.Message, "partition stopped: topic in is not the one") {
				stopped++
			}
		}
		require.Equal(b.t, 1, stopped, "said once")
	})
}

// A stop finishes what is captured.
func TestStopFinishesWhatIsCaptured(t *testing.T) {
	run(t, newWorld(2, 3000), func(b *bundle) { b.cfg.MaxRecords = 300 }, func(b *bundle) {
		b.hold(true)
		b.assign("g1", 0, 1)
		b.publishing()
		synctest.Wait() // more is captured behind it
		b.stop()
		time.Sleep(time.Second)
		b.hold(false)
		b.decide(Committed)
		b.ended(nil)
		for p, r := range b.rows {
			require.Equal(b.t, r.next, b.offsets[p].at, "partition %d", p)
		}
	})
}

// A stop has its time: what the broker does not take within it is left to the next owner.
func TestStopTimeout(t *testing.T) {
	run(t, newWorld(1, 3000), func(b *bundle) { b.cfg.MaxRecords, b.cfg.StopTimeout = 300, 3*time.Second }, func(b *bundle) {
		b.hold(true)
		b.assign("g1", 0)
		b.publishing()
		at := time.Now()
		b.stop()
		time.Sleep(4 * time.Second)
		b.decide(Aborted)
		b.ended(nil)
		require.Less(b.t, time.Since(at), 10*time.Second)
		b.lock(func() { require.Empty(b.t, b.out[0]) })
	})
}

// A stop while the producer is made anew: it is not closed under the call, and none is left behind.
func TestStopWhileTheProducerIsRenewed(t *testing.T) {
	run(t, newWorld(1, 100), nil, func(b *bundle) {
		b.hold(true)
		b.assign("g1", 0)
		b.publishing()
		b.lock(func() {
			b.renewHook = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		})
		b.decide(Lost)
		time.Sleep(time.Second) // the renewal is under way
		b.finish(nil)
	})
}

// The membership ends while a capture is under way: the store is not handed back before that is over.
func TestFatalWhileCapturing(t *testing.T) {
	fatal := &FatalError{errors.New("fenced")}
	run(t, newWorld(1, 100), nil, func(b *bundle) {
		b.lock(func() {
			b.captureHook = func(ctx context.Context, _ []*Batch) (error, bool) {
				<-ctx.Done()
				time.Sleep(time.Second) // Postgres is told to cancel
				return ctx.Err(), false
			}
		})
		b.assign("g1", 0)
		synctest.Wait()
		b.lock(func() { b.replaced = true })
		b.source.errs <- fatal
		b.ended(ErrReplaced)
	})
}

// Asked to stop before Kafka was ever there.
func TestStopBeforeTheFirstProducer(t *testing.T) {
	w := newWorld(1, 1)
	w.renewHook = func(context.Context) error { return errors.New("no broker") }
	run(t, w, nil, func(b *bundle) {
		time.Sleep(time.Minute)
		require.Equal(b.t, 1, b.logs.FilterMessage("no transactional producer yet, trying on").Len())
		b.finish(nil)
	})
}
