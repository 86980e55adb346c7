package audit

import (
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/ledger"
)

// counted is a consistent world whose rows are counted, those of partition 0 from offset 3 on: 7, 9 and 10; of partition 1 all five.
func countedWorld(t *testing.T) *world {
	w := consistent(t)
	w.store(ownHash)
	w.exec(`UPDATE partition_offsets SET counted_from = CASE source_partition WHEN 0 THEN 3 ELSE 0 END, counted_to = next_offset, counted_window_s = 60`)
	w.exec(`INSERT INTO click_counts (window_start, country, source_id, source_partition, clicks) VALUES ('2026-01-01Z', 'DE', 1, 0, 3), ('2026-01-01Z', 'DE', 1, 1, 5),
		('2025-01-01Z', 'DE', 1, 1, 0)`)
	return w
}

func TestCounts(t *testing.T) {
	t.Parallel()
	const zero, one = `miscounted counts 0@-1`, `miscounted counts 1@-1`
	for name, c := range map[string]struct {
		sql  []string
		want []string
		says string
	}{
		"as they are":           {nil, []string{}, ""},
		"one more":              {[]string{`UPDATE click_counts SET clicks = clicks + 1 WHERE source_partition = 0`}, []string{zero, zero}, `window 2026-01-01T00:00:00Z, country "DE": 4 clicks, 3 rows`},
		"one less":              {[]string{`UPDATE click_counts SET clicks = 4 WHERE source_partition = 1 AND clicks > 0`}, []string{one, one}, "they add up to 4, the ledger says 5 rows of [0,6)"},
		"a count gone":          {[]string{`DELETE FROM click_counts WHERE source_partition = 1 AND clicks > 0`}, []string{one, one}, "0 clicks, 5 rows"},
		"another window":        {[]string{`UPDATE click_counts SET window_start = window_start + interval '1 minute' WHERE source_partition = 0`}, []string{zero, zero}, "window 2026-01-01T00:01:00Z"},
		"no window's beginning": {[]string{`UPDATE click_counts SET window_start = window_start + interval '1 second' WHERE source_partition = 0`}, []string{zero, zero}, "window 2026-01-01T00:00:01Z"},
		"another country":       {[]string{`UPDATE click_counts SET country = 'LI' WHERE source_partition = 0`}, []string{zero, zero}, `country "LI": 3 clicks, 0 rows`},
		"another partition": {[]string{`UPDATE click_counts SET clicks = 2 WHERE source_partition = 0`, `UPDATE click_counts SET clicks = 6 WHERE source_partition = 1 AND clicks > 0`},
			[]string{zero, zero, one, one}, "6 clicks, 5 rows"},
		"counted from elsewhere":   {[]string{`UPDATE partition_offsets SET counted_from = 0 WHERE source_partition = 0`}, []string{zero, zero}, "3 clicks, 6 rows"},
		"counted less than said":   {[]string{`UPDATE partition_offsets SET counted_to = 9 WHERE source_partition = 0`}, []string{zero, zero}, "3 clicks, 1 rows"},
		"counted ahead":            {[]string{`UPDATE partition_offsets SET counted_to = 12 WHERE source_partition = 0`}, []string{zero}, "up to offset 12, and the stored offset is 11"},
		"nothing said":             {[]string{`UPDATE partition_offsets SET counted_to = NULL WHERE source_partition = 0`}, []string{zero}, "3 clicks are counted, and nothing says which"},
		"a row beside what counts": {[]string{`UPDATE enriched_clicks SET country = 'LI' WHERE source_partition = 0 AND source_offset = 7`}, []string{"different rows 0@7", zero, zero}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := countedWorld(t)
			for _, s := range c.sql {
				w.exec(s)
			}
			rep := w.audit()
			require.Equal(t, c.want, said(rep), sentences(rep))
			require.Contains(t, sentences(rep), c.says)
			require.Equal(t, len(c.want) > 0, rep.Found[Miscounted] > 0)
			if c.sql == nil {
				require.EqualValues(t, 8, rep.Totals.Counted)
				require.Contains(t, fmt.Sprint(rep.Notes), "partition 0: clicks are counted from source offset 3 on")
				require.NotContains(t, fmt.Sprint(rep.Notes), "partition 1: clicks")
			}
		})
	}
}

// Only what is asked for: a part of the time has no counts of its own, a partition has.
func TestCountsOfAPart(t *testing.T) {
	t.Parallel()
	w := countedWorld(t)
	w.exec(`UPDATE click_counts SET clicks = clicks + 1`)
	w.opts.Since = day1.Add(-time.Hour)
	require.Zero(t, w.audit().Found[Miscounted])
	one := int32(1)
	w.opts.Since, w.opts.Partition = time.Time{}, &one
	require.Contains(t, said(w.audit()), "miscounted counts 1@-1")
	require.NotContains(t, said(w.audit()), "miscounted counts 0@-1")
}

// Blanked rows have no country any more, and are counted: the window's sum has to be right, and no country may have less than the rows that are left.
func TestCountsOfErased(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sql  string
		want []string
	}{
		"as they are":     {`UPDATE click_counts SET clicks = clicks WHERE source_partition = 0`, []string{}},
		"not one country": {`INSERT INTO click_counts VALUES ('2026-01-01Z', 'LI', 1, 0, 1)`, []string{"miscounted counts 0@-1", "miscounted counts 0@-1", "miscounted counts 0@-1"}},
		"one less":        {`UPDATE click_counts SET clicks = 1 WHERE source_partition = 0`, []string{"miscounted counts 0@-1", "miscounted counts 0@-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := countedWorld(t)
			w.erase(7, 8)
			w.exec(c.sql)
			rep := w.audit()
			got := said(rep)
			if len(c.want) == 0 {
				require.Empty(t, got, sentences(rep))
			} else {
				require.Subset(t, got, c.want[:1], sentences(rep))
				require.EqualValues(t, len(got), rep.Found[Miscounted], sentences(rep))
			}
		})
	}
}

// Pruned rows are counted all the same: the sum has to be the ledger's, and no window may have less than the rows that are left.
func TestCountsOfPruned(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sql  string
		want int64
	}{
		"as they are":              {`UPDATE click_counts SET clicks = clicks WHERE source_partition = 0`, 0},
		"one more":                 {`UPDATE click_counts SET clicks = clicks + 1 WHERE source_partition = 0`, 1},
		"too few for what is left": {`WITH x AS (INSERT INTO click_counts VALUES ('2020-01-01Z', 'DE', 1, 0, 2)) UPDATE click_counts SET clicks = 1 WHERE source_partition = 0`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := countedWorld(t)
			d := sha256.Sum256([]byte("enriched_clicks_20260101 1 0 0 9 7 11"))
			seq := w.deed(ledger.Prune, d[:])
			w.exec(`INSERT INTO pruned (table_name, time_partition, source_id, source_partition, from_offset, to_offset, records, published, ledger_seq, who, why)
				VALUES ('enriched_clicks', 'enriched_clicks_20260101', 1, 0, 0, 9, 7, 11, $1, 'ada', 'old')`, seq)
			w.exec(`DROP TABLE enriched_clicks_20260101`)
			w.exec(c.sql)
			rep := w.audit()
			require.Equal(t, c.want, rep.Found[Miscounted], sentences(rep))
			require.Contains(t, fmt.Sprint(rep.Notes), "partition 0: rows below source offset 9 were pruned")
		})
	}
}
