package engine

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/outbox"
)

// A drain that takes longer than any max.poll.interval.ms: the consumer is polled all the while, another partition's records go through beside it, and
// when the partition is taken away the callback waits for one transaction, not for the drain.
func TestDrainKeepsPolling(t *testing.T) {
	const (
		rows     = 20_000
		part     = 20          // rows in one transaction
		takes    = time.Second // each transaction
		interval = 5 * time.Minute
	)
	w := newWorld(2, 100)
	w.append(0, rows-100)
	r := w.rows[0] // captured by another worker, which published nothing of it
	r.next, r.seq, r.captured = rows, 1, true
	for _, rec := range w.logs[0] {
		r.outbox = append(r.outbox, outbox.Message{SourceOffset: rec.Offset, Topic: "out", TimestampMs: rec.TimestampMs, Key: rec.Key, Value: fmt.Appendf(nil, "seen %s", rec.Value)})
		r.records = append(r.records, rec.Offset)
	}
	w.offsets[0] = groupOffset{0, true}
	w.publisher.outcome = func([]Item) (Outcome, bool, time.Duration) { return Committed, true, takes }
	run(t, w, func(b *bundle) { b.cfg.DrainRecords = part }, func(b *bundle) {
		b.assign("g1", 0, 1)
		b.settled(1)
		b.lock(func() {
			require.Less(t, b.offsets[0].at, int64(rows/10), "the other partition had to wait for the drain")
		})

		asked := time.Now()
		b.wait(b.revoke("g2", 0))
		require.LessOrEqual(t, time.Since(asked), 2*takes)
		b.assign("g3", 0)
		begin := time.Now()
		for b.check(0) != nil && time.Since(begin) < 10*interval {
			time.Sleep(takes) // of the bubble
		}
		require.NoError(t, b.check(0))
		require.Greater(t, time.Since(begin), 2*interval, "too short a drain to tell")
		b.lock(func() { require.Less(t, b.source.longest, 5*time.Second, "between two polls") })
	})
}
