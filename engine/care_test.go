package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCareClaimed(t *testing.T) {
	for _, c := range []struct {
		what           string
		care           Care
		next, from, to int64
		gone           bool
		want           Care
	}{
		{"nothing was ever begun", Care{}, 10, 0, 0, false, Care{}},
		{"gone in the middle of a few", Care{}, 10, 10, 30, true, Care{To: 30, Step: 1}},
		{"gone in the middle of many", Care{}, 10, 10, 8010, true, Care{To: 8010, Step: 89}},
		{"gone in the middle of a group", Care{To: 8010, Step: 89}, 188, 188, 277, true, Care{To: 277, Step: 1}},
		{"gone over one record", Care{To: 30, Step: 1}, 12, 12, 13, true, Care{To: 30, Step: 1, Attempts: 1}},
		{"gone over it again", Care{To: 30, Step: 1, Attempts: 1}, 12, 12, 13, true, Care{To: 30, Step: 1, Attempts: 2}},
		{"gone over one behind a hole", Care{To: 30, Step: 1}, 12, 12, 29, true, Care{To: 30, Step: 1, Attempts: 1}},
		{"not gone, or we ourselves", Care{To: 30, Step: 1, Attempts: 1}, 12, 12, 13, false, Care{To: 30, Step: 1, Attempts: 1}},
		{"it went on, by a person's hand or an older program's", Care{To: 30, Step: 1, Attempts: 1}, 20, 12, 13, true, Care{To: 30, Step: 1}},
		{"it went on beyond", Care{To: 30, Step: 1, Attempts: 1}, 30, 12, 13, true, Care{}},
		{"the care was over", Care{To: 30, Step: 1}, 40, 40, 60, true, Care{To: 60, Step: 1}},
	} {
		require.Equal(t, c.want, c.care.Claimed(c.next, c.from, c.to, c.gone), c.what)
	}
}

// seen notes which records are handled, in order, among what the world notes.
func seen(b *bundle, fails func(r *Record) error) {
	b.cfg.QuarantineAfter = 2
	b.cfg.Handler = echo{func(r *Record) error {
		b.lock(func() { b.say("handle %d/%d", r.Partition, r.Offset) })
		if fails != nil {
			return fails(r)
		}
		return nil
	}}
	b.captureHook = func(_ context.Context, batches []*Batch) (error, bool) {
		if batches[0].careful && len(b.owned) > 1 {
			b.produce(1, 1)
			time.Sleep(time.Millisecond) // of the bubble: whatever else can go on does
		}
		b.lock(func() {
			for _, x := range batches {
				b.say("capture %d to %d", x.Partition, x.To)
			}
		})
		return nil, true
	}
}

// The first batch since a claim is marked, and captured before the next is handled; from then on nothing is.
func TestFirstBatchIsMarked(t *testing.T) {
	run(t, newWorld(1, 30), func(b *bundle) { seen(b, nil); b.cfg.MaxRecords = 10 }, func(b *bundle) {
		b.assign("g1", 0)
		b.settled()
		b.produce(0, 30)
		b.settled()
		var marks []string
		for _, s := range b.tracedSince(0) {
			if strings.HasPrefix(s, "begin") || strings.HasPrefix(s, "leave") {
				marks = append(marks, s)
			}
		}
		require.Equal(t, []string{"begin 0 [0,10)", "leave 0"}, marks)
		all := b.tracedSince(0)
		require.Less(t, slices.Index(all, "begin 0 [0,10)"), slices.Index(all, "handle 0/0"))
		require.Less(t, slices.Index(all, "capture 0 to 10"), slices.Index(all, "handle 0/10"))
	})
}

// What another process had begun is handled one record at a time, each marked before, and until it is captured no other partition's record is handled;
// behind it all is as ever.
func TestBegunIsHandledWithCare(t *testing.T) {
	w := newWorld(2, 60)
	w.rows[0].begun = &Mark{From: 0, To: 5}
	run(t, w, func(b *bundle) { seen(b, nil); b.cfg.MaxRecords = 3 }, func(b *bundle) {
		b.assign("g1", 0, 1)
		b.settled()
		all := b.tracedSince(0)
		for o := range 5 {
			at := slices.Index(all, fmt.Sprintf("begin 0 [%d,%d)", o, o+1))
			require.GreaterOrEqual(t, at, 0, "record %d is not marked: %v", o, all)
			var between []string
			for _, s := range all[at+1:] {
				if !strings.HasPrefix(s, "publish") {
					between = append(between, s)
				}
			}
			require.Equal(t, []string{fmt.Sprintf("handle 0/%d", o), "leave 0", fmt.Sprintf("capture 0 to %d", o+1)}, between[:3])
		}
		require.Contains(t, all, "begin 0 [5,8)", "from there on together, marked as after a claim")
		require.Equal(t, 1, b.logs.FilterMessageSnippet("handled with care").Len())
	})
}

// A record over which two processes are gone, alone, is not handled again: it is a dead letter as it is, and what is behind it needs no care.
func TestQuarantined(t *testing.T) {
	w := newWorld(1, 20)
	w.rows[0].care, w.rows[0].begun = Care{To: 20, Step: 1, Attempts: 1}, &Mark{From: 0, To: 1}
	run(t, w, func(b *bundle) { seen(b, nil) }, func(b *bundle) {
		b.assign("g1", 0)
		b.settled()
		require.NotContains(t, b.tracedSince(0), "handle 0/0")
		require.Contains(t, b.tracedSince(0), "begin 0 [1,20)")
		b.lock(func() {
			require.EqualValues(t, 1, b.rows[0].dead)
			m := b.rows[0].outbox[0]
			require.Equal(t, "dlq", m.Topic)
			require.Equal(t, "0/0", string(m.Value))
			require.Equal(t, "k", string(m.Key))
			var class, stage string
			for _, h := range m.Headers {
				switch h.Key {
				case classHeader:
					class = string(h.Value)
				case stageHeader:
					stage = string(h.Value)
				}
			}
			require.Equal(t, []string{"quarantined", "handle"}, []string{class, stage})
			require.Equal(t, Care{}, b.rows[0].care)
		})
		require.Equal(t, 1, b.logs.FilterMessageSnippet("quarantined").Len())
	})
}

// Who gives a partition up, for a transient failure or in a rebalance, takes its mark back: nobody is gone.
func TestMarkIsTakenBack(t *testing.T) {
	failures := 3
	w := newWorld(1, 20)
	w.rows[0].begun = &Mark{From: 0, To: 10}
	run(t, w, func(b *bundle) {
		seen(b, func(r *Record) error {
			if r.Offset == 4 && failures > 0 {
				failures--
				return errors.New("registry away")
			}
			return nil
		})
	}, func(b *bundle) {
		b.assign("g1", 0)
		b.settled()
		begun, left := 0, 0
		for _, s := range b.tracedSince(0) {
			switch {
			case strings.HasPrefix(s, "begin 0 "):
				begun++
			case s == "leave 0":
				left++
			}
		}
		require.Equal(t, 10+1+3, begun, "each of those that were begun, those behind, and the one that failed again")
		require.Equal(t, begun, left)
		b.lock(func() { require.Zero(t, b.rows[0].dead) })
	})
}

// A mark that can't be written keeps the records from the handler; the partition is claimed again.
func TestNoMarkNoHandling(t *testing.T) {
	run(t, newWorld(2, 20), func(b *bundle) { seen(b, nil); b.beginError = errors.New("connection lost") }, func(b *bundle) {
		b.assign("g1", 0, 1)
		b.settled()
		require.Greater(t, len(slices.DeleteFunc(b.tracedSince(0), func(s string) bool { return !strings.HasPrefix(s, "claim") })), 2)
	})
}

// With the setting at 0 nothing is marked and nobody takes care.
func TestNoQuarantine(t *testing.T) {
	w := newWorld(1, 20)
	w.rows[0].care, w.rows[0].begun = Care{To: 20, Step: 1, Attempts: 5}, &Mark{From: 0, To: 1}
	run(t, w, func(b *bundle) { seen(b, nil); b.cfg.QuarantineAfter = 0 }, func(b *bundle) {
		b.assign("g1", 0)
		b.settled()
		for _, s := range b.tracedSince(0) {
			require.False(t, strings.HasPrefix(s, "begin"), s)
		}
		b.lock(func() { require.Zero(t, b.rows[0].dead) })
	})
}

// Two workers of one process: while one takes care the other handles nothing.
func TestTurns(t *testing.T) {
	turns := &Turns{}
	turns.take(true)
	require.False(t, turns.mu.TryRLock(), "another would handle records beside one that is handled with care")
	turns.give(true)
	turns.take(false)
	require.True(t, turns.mu.TryRLock(), "workers that take no care wait for each other")
	require.False(t, turns.mu.TryLock(), "one takes care beside another that handles records")
}

// A capture that hangs is the store's trouble: whoever is killed while it does leaves no mark, and nothing is counted against the record.
func TestNoMarkWhileTheCaptureHangs(t *testing.T) {
	w := newWorld(1, 20)
	w.rows[0].care, w.rows[0].begun = Care{To: 20, Step: 1}, &Mark{From: 0, To: 1}
	run(t, w, func(b *bundle) { seen(b, nil) }, func(b *bundle) {
		gate := make(chan struct{})
		b.lock(func() {
			b.captureHook = func(context.Context, []*Batch) (error, bool) { b.block(gate); return nil, true }
		})
		b.assign("g1", 0)
		time.Sleep(time.Minute)
		b.lock(func() {
			require.True(t, b.capturing)
			require.Contains(t, b.trace, "begin 0 [0,1)")
			require.Nil(t, b.rows[0].begun)
		})
		close(gate)
		b.settled()
	})
}
