package audit

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// counted is what is counted of one source partition.
type counted struct {
	from, to, window int64 // source offsets [from, to), in windows of so many seconds; -1, -1, 0: nothing is
	clicks           int64 // sum of its counts
	rows             int64 // the ledger's, of the entries in that range
	pruned           int64 // rows of offsets below are gone; of the input's source as the ledger vouches for
}

// countsKey names a source partition; counts are the replays', too.
type countsKey struct {
	source    int16
	partition int32
}

// whole says whether everything there is is looked at: counts are of no time.
func (r *run) whole() bool { return r.earlier == nil && r.opts.Since.IsZero() && r.opts.Until.IsZero() }

// readCounts reads what is counted and what it comes to, before the ledger, which says how many rows that should be.
func (r *run) readCounts(ctx context.Context) error {
	if !r.whole() {
		return nil
	}
	rows, _ := r.pg.main.Query(ctx, `SELECT source_id, source_partition, coalesce(counted_from, -1), coalesce(counted_to, -1), coalesce(counted_window_s, 0), next_offset,
		coalesce((SELECT sum(clicks) FROM click_counts c WHERE (c.source_id, c.source_partition) = (p.source_id, p.source_partition)), 0)::bigint,
		coalesce((SELECT max(to_offset) FROM pruned d WHERE (d.source_id, d.source_partition) = (p.source_id, p.source_partition) AND table_name = 'enriched_clicks'), 0)
		FROM partition_offsets p JOIN sources USING (source_id)
		WHERE (source_id = $1 OR group_id = $2 AND retired_at IS NULL) AND ($3::int IS NULL OR source_id = $1 AND source_partition = $3)`, r.source, r.opts.Group+"-replay", r.opts.Partition)
	var k countsKey
	var c counted
	var next int64
	_, err := pgx.ForEachRow(rows, []any{&k.source, &k.partition, &c.from, &c.to, &c.window, &next, &c.clicks, &c.pruned}, func() error {
		switch {
		case c.to < 0 && c.clicks != 0:
			r.miscounted(k, "%d clicks are counted, and nothing says which", c.clicks)
		case c.to > next:
			r.miscounted(k, "clicks are said to be counted up to offset %d, and the stored offset is %d", c.to, next)
		}
		if c.to >= 0 {
			one := c
			r.counts[k] = &one
			r.totals.Counted += c.clicks
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("click_counts: %w", err)
	}
	return nil
}

// countEntry adds the rows of an entry that stands for a capture.
func (r *run) countEntry(e *entry) {
	if c := r.counts[countsKey{r.source, e.partition}]; c != nil && e.from >= c.from && e.to <= c.to {
		c.rows += e.rows
	}
}

func (r *run) miscounted(k countsKey, format string, a ...any) {
	of, partition := "", k.partition
	if k.source != r.source {
		of, partition = fmt.Sprintf(" of replays, their partition %d", k.partition), -1
	}
	r.found(Miscounted, Counts, partition, -1, nil, "counts"+of+": "+format, a...)
}

// countsSQL names every window and country whose count can't be: below the rows that are there, or above them where none has been removed or blanked. A
// blanked row has its time and no country: of a window with such rows, the sum must be right.
const countsSQL = `WITH at AS (
		SELECT * FROM unnest($1::smallint[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::boolean[]) AS u (source_id, source_partition, since, until, secs, pruned)
	), there AS (
		SELECT source_id, source_partition, date_bin(make_interval(secs => at.secs), e."timestamp", 'epoch'::timestamptz) AS window_start, e.country,
			count(*) FILTER (WHERE e.user_id <> 0) AS sure, count(*) FILTER (WHERE e.user_id = 0) AS blank
		FROM enriched_clicks e JOIN at USING (source_id, source_partition) WHERE e.source_offset >= at.since AND e.source_offset < at.until GROUP BY 1, 2, 3, 4
	), both_of AS (
		SELECT source_id, source_partition, window_start, country, coalesce(clicks, 0) AS clicks, coalesce(sure, 0) AS sure, coalesce(sum(blank) OVER w, 0) AS blanks,
			coalesce(sum(clicks) OVER w, 0) AS all_clicks, coalesce(sum(sure + blank) OVER w, 0) AS all_rows
		FROM there FULL JOIN (SELECT * FROM click_counts WHERE clicks <> 0) c USING (source_id, source_partition, window_start, country)
		WINDOW w AS (PARTITION BY source_id, source_partition, window_start)
	)
	SELECT source_id, source_partition, window_start, country, clicks, sure, all_clicks::bigint, all_rows::bigint, blanks > 0 AND clicks >= sure
	FROM both_of JOIN at USING (source_id, source_partition)
	WHERE clicks < sure OR NOT at.pruned AND (blanks = 0 AND clicks > sure OR blanks > 0 AND all_clicks <> all_rows)
	ORDER BY 1, 2, 3, 4`

// checkCounts holds the counts against the rows and the ledger. Postgres counts the rows itself, in the snapshot.
func (r *run) checkCounts(ctx context.Context) error {
	if len(r.counts) == 0 {
		return nil
	}
	var sources []int16
	var partitions []int32
	var from, to, window []int64
	var pruned []bool
	for _, k := range slices.SortedFunc(maps.Keys(r.counts), func(a, b countsKey) int { return cmp.Or(int(a.source-b.source), int(a.partition-b.partition)) }) {
		c := r.counts[k]
		if p := r.parts[k.partition]; p != nil && k.source == r.source {
			c.pruned = p.prunedRows()
			a, _ := r.base(k.partition)
			if c.clicks != c.rows && a.to <= c.from {
				r.miscounted(k, "they add up to %d, the ledger says %d rows of [%d,%d)", c.clicks, c.rows, c.from, c.to)
			}
			if c.from > p.begin {
				r.note("partition %d: clicks are counted from source offset %d on; windows have none of what came before", k.partition, c.from)
			}
			if c.pruned > c.from {
				r.note("partition %d: rows below source offset %d were pruned: their counts are held against the ledger as a sum, not window by window", k.partition, c.pruned)
			}
		}
		sources, partitions, from, to = append(sources, k.source), append(partitions, k.partition), append(from, c.from), append(to, c.to)
		window, pruned = append(window, max(c.window, 1)), append(pruned, c.pruned > c.from)
	}
	rows, _ := r.pg.main.Query(ctx, countsSQL, sources, partitions, from, to, window, pruned)
	var k countsKey
	var at time.Time
	var country string
	var clicks, sure, all, allRows int64
	var blank bool
	_, err := pgx.ForEachRow(rows, []any{&k.source, &k.partition, &at, &country, &clicks, &sure, &all, &allRows, &blank}, func() error {
		if blank {
			r.miscounted(k, "window %s: %d clicks, %d rows", at.UTC().Format(time.RFC3339), all, allRows)
		} else {
			r.miscounted(k, "window %s, country %q: %d clicks, %d rows", at.UTC().Format(time.RFC3339), country, clicks, sure)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("click_counts: %w", err)
	}
	return nil
}
