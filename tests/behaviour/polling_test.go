package behaviour

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
)

// A worker polls whatever happens behind it: captures that hang for longer than max.poll.interval, publishing that does, and a gap whose drain takes
// longer. It keeps its membership, and its partitions.
func TestPollsWhateverHappens(t *testing.T) {
	const interval = session + time.Second
	for _, client := range []string{"confluent", "franz"} {
		t.Run(client, func(t *testing.T) {
			b := setup(t, "EXACTLY_KAFKA_CLIENT="+client, "EXACTLY_KAFKA_MAX_POLL_INTERVAL="+interval.String(), "EXACTLY_BATCH_DRAIN_RECORDS=20")
			b.generate(600)
			a := b.start("a", failpoint(fp.PublishProduced+"=hold@3"))
			b.until("a holds its transaction", func() bool { b.generate(60); return b.hit(fp.PublishProduced) })
			rebalances := a.rebalances()
			held := time.Now()

			tx, err := b.db.Begin(b.ctx)
			require.NoError(t, err)
			_, err = tx.Exec(b.ctx, "LOCK TABLE enriched_clicks IN ACCESS EXCLUSIVE MODE")
			require.NoError(t, err)
			locked := time.Now()
			b.generate(600)
			b.until("captures hang longer than the interval", func() bool { return time.Since(locked) > interval+2*time.Second })
			require.NoError(t, tx.Rollback(b.ctx))
			b.generate(6000)
			b.until("all is captured, none of it published", func() bool { return b.stored() == b.sent })
			b.until("publishing hangs longer than the interval", func() bool { return time.Since(held) > interval+2*time.Second })
			require.Equal(t, rebalances, a.rebalances(), "its membership ended")

			a.kill()
			w := b.start("b")
			w.says("draining the gap")
			drained := time.Now()
			b.until("the gap is drained", func() bool { return b.published() == b.sent })
			t.Logf("the drain took %v", time.Since(drained))
			require.Equal(t, 1, w.rebalances(), "once, to be assigned them all")
			require.NotContains(t, string(w.log.Bytes()), "rebalance: lost")
			b.settle()
		})
	}
}

// rebalances is how many a worker was told of that gave it or took from it something.
func (w *worker) rebalances() int { return bytes.Count(w.log.Bytes(), []byte("rebalance: ")) }
