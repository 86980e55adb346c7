package behaviour

import (
	"testing"

	"github.com/stretchr/testify/require"

	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
)

const counting = "EXACTLY_COUNTS_ENABLED=true"

// counted requires that the counts are those of the rows there are, window by window and country by country, by a query of the test's own.
func (b *bundle) counted() {
	b.t.Helper()
	require.Zero(b.t, b.scalar(`SELECT count(*) FROM (SELECT date_trunc('minute', "timestamp") AS window_start, country, count(*) AS clicks FROM enriched_clicks GROUP BY 1, 2) r
		FULL JOIN click_counts_total c USING (window_start, country) WHERE r.clicks IS DISTINCT FROM c.clicks`), "windows and countries that differ")
	require.Equal(b.t, b.scalar(`SELECT count(*) FROM enriched_clicks`), b.scalar(`SELECT sum(clicks)::bigint FROM click_counts`))
}

// A worker killed on either side of a capture's commit, and inside of it: every row is counted once, dead letters are not, and clicks that come months late
// count in their own windows.
func TestCountedBesideKills(t *testing.T) {
	for _, point := range []string{fp.CaptureCopied, fp.CaptureCommitSent, fp.CaptureCommitted} {
		t.Run(point, func(t *testing.T) {
			b := setup(t, counting)
			a := b.start("a", failpoint(point+"=kill@2"))
			a.says("consuming")
			b.start("b").says("rebalance: assigned")
			b.feed("a is dead", a.ended)
			a.killed(point)
			late := avro(b.clickID())
			for i := range 100 {
				b.produce(record(int32(i%partitions), i, late))
			}
			r := b.settle()
			b.counted()
			require.Equal(t, r.Totals.Rows, r.Totals.Counted)
			require.Positive(t, r.Totals.DeadLetters, "none of them was counted, and there was none")
			require.EqualValues(t, 100, b.scalar(`SELECT sum(clicks)::bigint FROM click_counts_total WHERE window_start = to_timestamp(1769817600)`))
		})
	}
}

// Switched off and on again, the counts are of what came since, partition by partition, and say so. Clicks that are replayed count.
func TestCountsSwitchedOffAndOn(t *testing.T) {
	b := setup(t, counting)
	run := func(n int, with ...string) {
		t.Helper()
		b.generate(n)
		w := b.start("a", with...)
		b.settle()
		w.stop()
	}
	run(clicks / 20)
	b.counted()
	was := b.scalar(`SELECT sum(clicks)::bigint FROM click_counts`)
	run(clicks/20, "EXACTLY_COUNTS_ENABLED=false")
	require.Equal(t, was, b.scalar(`SELECT sum(clicks)::bigint FROM click_counts`))
	before := b.scalar(`SELECT count(*) FROM enriched_clicks`)
	run(clicks / 20)
	require.Equal(t, b.scalar(`SELECT count(*) FROM enriched_clicks`)-before, b.scalar(`SELECT sum(clicks)::bigint FROM click_counts`))
	require.EqualValues(t, partitions, b.scalar(`SELECT count(*) FROM partition_offsets WHERE counted_from > 0 AND counted_to = next_offset`))

	_, err := b.db.Exec(b.ctx, `ALTER TABLE enriched_clicks ADD CONSTRAINT not_these CHECK (source_offset % 97 <> 13 OR source_id <> 1) NOT VALID`)
	require.NoError(t, err)
	run(clicks / 20)
	_, err = b.db.Exec(b.ctx, `ALTER TABLE enriched_clicks DROP CONSTRAINT not_these`)
	require.NoError(t, err)
	b.start("b")
	replayed := b.replay("--wait", "90s")
	require.Positive(t, replayed.Captured)
	require.EqualValues(t, replayed.Captured, b.scalar(`SELECT sum(clicks)::bigint FROM click_counts WHERE source_id = 2`))
	b.replaysPublished(replayed.Captured)
	r := b.audit(true)
	require.Equal(t, b.scalar(`SELECT count(*) FROM enriched_clicks`)-before, r.Totals.Counted)
	_, err = b.db.Exec(b.ctx, `UPDATE click_counts SET clicks = clicks + 1 WHERE (window_start, country, source_partition) = (SELECT window_start, country, source_partition FROM click_counts WHERE source_id = 2 LIMIT 1) AND source_id = 2`)
	require.NoError(t, err)
	out, code := b.try("audit")
	require.Equal(t, 3, code, out)
	require.Contains(t, out, "counts of replays")
}
