package behaviour

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Records that are none of ours, in one partition: it stops before they drain into the dead letters, and the others go on. With the limit raised,
// which takes a restart, each of them is a dead letter, and all is accounted for.
func TestTooManyDeadLetters(t *testing.T) {
	const foreign, clicks, free = 5000, 1200, 100
	b := setup(t)
	known := avro(b.clickID())
	rs := make([]*kgo.Record, 0, foreign+clicks)
	for i := range clicks {
		rs = append(rs, record(int32(i%partitions), i, known))
	}
	for range foreign {
		rs = append(rs, &kgo.Record{Topic: b.cfg.Topics.Input, Partition: 0, Value: []byte(`<order id="12"/>`)})
	}
	b.produce(rs...)
	w := b.start("a", "EXACTLY_DEAD_LETTERS_FREE=100")
	w.says("partition stopped: of the records of the last minute more than 50% would be dead letters")
	b.until("the other partitions have gone on", func() bool {
		return b.scalar(`SELECT count(*) FROM enriched_clicks WHERE source_partition > 0`) == clicks*(partitions-1)/partitions
	})
	require.LessOrEqual(t, b.scalar(`SELECT count(*) FROM dead_letters`), int64(free+clicks/partitions), "the share of what came before, and what is free")
	require.Zero(t, b.scalar(`SELECT count(*) FROM dead_letters WHERE source_partition > 0`))
	w.stop()

	b.start("a", "EXACTLY_DEAD_LETTERS_MAX_SHARE=0")
	report := b.settle()
	require.EqualValues(t, foreign+clicks, report.Totals.Input)
	require.EqualValues(t, foreign, report.Totals.DeadLetters)
}
