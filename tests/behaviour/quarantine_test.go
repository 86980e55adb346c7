package behaviour

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
)

// A record that ends the process each time it is handled, among good ones, in two partitions of six: processes are started again, as a supervisor does it,
// and within a few of them the two are dead letters, alone and as they came, and all else is through. Handed in again it ends a few more, and is a
// dead letter again.
func TestQuarantine(t *testing.T) {
	const n = 6000
	b := setup(t)
	known := avro(b.clickID())
	var rs []*kgo.Record
	for i := range n {
		r := record(int32(i%partitions), i, known)
		if i == 1000 || i == 1001+partitions*100 {
			r.Key, r.Headers = []byte(poison), []kgo.RecordHeader{{Key: "of", Value: []byte("somebody")}}
		}
		rs = append(rs, r)
	}
	b.produce(rs...)
	arm := failpoint(fp.HandleRecord + "=kill:" + poison)
	var w *worker
	die := func(until func() bool, most int) int {
		for deaths := 0; ; deaths++ {
			require.LessOrEqual(t, deaths, most, "the records go on ending processes")
			if w == nil || w.ended() {
				w = b.start("a", arm)
			}
			b.until("it has ended, or is through", func() bool { return w.ended() || until() })
			if !w.ended() {
				return deaths
			}
			w.killed(fp.HandleRecord)
		}
	}
	deaths := die(func() bool { return b.stored() == b.sent }, 20)
	t.Logf("%d processes have died of two records", deaths)
	require.GreaterOrEqual(t, deaths, 4, "each has ended two alone")
	report := b.settle()
	require.EqualValues(t, n, report.Totals.Input)
	require.EqualValues(t, 2, report.Totals.DeadLetters)
	require.EqualValues(t, 2, b.scalar(`SELECT count(*) FROM dead_letters WHERE error_class = 'quarantined' AND error_stage = 'handle' AND key = $1`, []byte(poison)))
	for _, at := range []int{1000, 1001 + partitions*100} {
		require.EqualValues(t, 1, b.scalar(`SELECT count(*) FROM dead_letters WHERE source_partition = $1 AND source_offset = $2 AND value = $3`,
			at%partitions, at/partitions, rs[at].Value), "record %d", at)
	}
	require.Contains(t, b.exactly("dlq", "list", "--class", "quarantined"), "gone 2 times before it was captured")

	// A replay goes the same way. The input is worked on meanwhile.
	more := record(3, n, known)
	b.produce(more)
	require.Contains(t, b.exactly("dlq", "replay", "--class", "quarantined", "--reason", "hope"), "2")
	deaths = die(func() bool {
		return b.scalar(`SELECT count(*) FROM exactly_dead_letters WHERE error_class = 'quarantined' AND attempt = 1`) == 2 && b.published() == b.sent
	}, 20)
	t.Logf("%d more have died of their replay", deaths)
	require.Positive(t, deaths)
	b.replaysPublished(0)
	report = b.audit(true)
	require.EqualValues(t, n+1, report.Totals.Input)
	require.EqualValues(t, 2, b.scalar(`SELECT count(DISTINCT value) FROM dead_letters WHERE key = $1 AND value IS NOT NULL`, []byte(poison)), "a replay changes what was sent")

	// Mended: what was too much for one version is read by the next.
	w.stop()
	b.start("a")
	out := b.exactly("dlq", "replay", "--class", "quarantined", "--reason", "mended", "--wait", "90s")
	require.Contains(t, out, "2 captured", out)
	require.EqualValues(t, 2, b.scalar(`SELECT count(*) FROM enriched_clicks e JOIN replay_captures c USING (source_id, source_partition, source_offset)`))
}

// Workers that are killed in the middle of their work, one of them in its first batch, cost nobody a record.
func TestKilledIsNotQuarantined(t *testing.T) {
	b := setup(t)
	b.generate(clicks / 4)
	b.start("a", failpoint(fp.CaptureCopied+"=kill")).killed(fp.CaptureCopied)
	for range 4 {
		before := b.stored()
		b.generate(clicks / 20)
		w := b.start("a")
		b.until("it gets on", func() bool { return b.stored() > before })
		w.kill()
	}
	b.start("a")
	r := b.settle()
	require.EqualValues(t, b.sent, r.Totals.Input)
	require.Zero(t, b.scalar(`SELECT count(*) FROM dead_letters WHERE error_class = 'quarantined'`))
}
