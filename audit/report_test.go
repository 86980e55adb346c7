package audit

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/ledger"
)

// Up to where all is proven is noted, and a note never goes back or past what was found.
func TestMark(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	owed(w)
	w.store(ownHash)
	w.opts.Mark, w.opts.Program = true, "v1"
	marks := func() (out []int64) {
		rows, err := w.db.Query(w.ctx, `SELECT verified_from, verified_through, ledger_seq FROM exactly_verified_through ORDER BY source_partition`)
		require.NoError(t, err)
		for rows.Next() {
			var from, through, seq int64
			require.NoError(t, rows.Scan(&from, &through, &seq))
			out = append(out, from, through, seq)
		}
		require.NoError(t, rows.Err())
		return out
	}
	rep := w.audit()
	require.True(t, rep.Clean(), sentences(rep))
	require.EqualValues(t, 9, rep.Partitions[0].Verified, "9 and 10 are owed")
	require.EqualValues(t, 6, rep.Partitions[1].Verified)
	require.Equal(t, []int64{0, 9, 4, 0, 6, 2}, marks())
	w.exec(`UPDATE enriched_clicks SET url = 'x' WHERE source_partition = 1 AND source_offset = 4`)
	rep = w.audit()
	require.EqualValues(t, 0, rep.Partitions[1].Verified, "a stretch is proven whole or not")
	require.Equal(t, []int64{0, 9, 4, 0, 6, 2}, marks())
	require.Equal(t, []Coverage{{0, 6, "doubtful"}}, rep.Partitions[1].Coverage)
}

// A time is that of captures, by the database's clock.
func TestSinceUntil(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.unpublish(0, 1)
	w.unpublish(0, 10)
	w.store(ownHash)
	w.exec(`SET session_replication_role = replica`)
	w.exec(`UPDATE offset_ledger SET captured_at = '2026-01-01 12:00+00'::timestamptz + (least(seq, 4) - 1) * interval '1 day' WHERE source_partition = 0`)
	day := func(d int) time.Time { return time.Date(2026, 1, d, 0, 0, 0, 0, time.UTC) }
	for _, c := range []struct {
		since, until time.Time
		input        int64
		want         []string
	}{
		{day(3), time.Time{}, 4 + 6, []string{"missing events 0@10"}},
		{day(2), day(4), 3 + 2, []string{"missing events 0@1"}},
		{day(3), day(4), 2, []string{}},
		{time.Time{}, day(2), 0, []string{}},
	} {
		w.opts.Since, w.opts.Until = c.since, c.until
		rep := w.audit()
		require.Equal(t, c.want, said(rep), sentences(rep))
		p0 := rep.Partitions[0]
		require.Equal(t, p0.Input, p0.Rows+p0.DeadLetters)
	}
}

func TestLocate(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	owed(w)
	w.store(ownHash)
	for offset, state := range map[int64]string{
		1: "once in Postgres and once in Kafka", 8: "once in Postgres and once in Kafka", 9: "once in Postgres, still owed to Kafka", 4: "no such record", 50: "waiting",
	} {
		l, err := Locate(w.ctx, w.opts, 0, offset)
		require.NoError(t, err)
		require.Contains(t, l.State, state, "offset %d", offset)
		if offset != 8 && offset != 1 {
			continue
		}
		require.Len(t, l.Entries, 1)
		require.Len(t, l.Outbox, 1)
		require.Equal(t, "is the input's", l.Outbox[0].Record)
		require.Len(t, append(l.Events, l.DLQ...), 1)
		require.Equal(t, offset == 8, len(l.DeadLetters) == 1)
		require.Equal(t, offset == 1, len(l.Rows) == 1)
	}
	w.exec(`UPDATE outbox SET record_hash = sha256('x') WHERE source_partition = 0 AND source_offset = 1`)
	l, err := Locate(w.ctx, w.opts, 0, 1)
	require.NoError(t, err)
	require.Equal(t, "is NOT the input's", l.Outbox[0].Record)
}

// The page needs nothing from elsewhere, and what people wrote into it is text.
func TestHTML(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.ledger[1].Kind, w.ledger[1].Why = ledger.AcceptLoss, "<script>alert(1)</script> expired"
	w.ledger[1].Who = "ada@example.org"
	w.seal()
	w.store(ownHash)
	rep := w.audit()
	require.True(t, rep.Clean(), sentences(rep))
	var b bytes.Buffer
	require.NoError(t, rep.WriteHTML(&b))
	page := b.String()
	for _, s := range []string{"ada@example.org", "accept loss", "&lt;script&gt;", rep.Partitions[0].LedgerHead, "<svg", "of the 13 input records"} {
		require.Contains(t, page, s)
	}
	require.NotContains(t, page, "<script")
	require.Empty(t, regexp.MustCompile(`(src|href)=|url\(|@import`).FindString(page))
	require.Less(t, strings.Count(page, "\n"), 400)
	_, err := json.Marshal(rep)
	require.NoError(t, err)
}

func TestProgress(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.store(ownHash)
	var mu sync.Mutex
	var seen []Progress
	w.opts.Watch = func(p Progress) { mu.Lock(); defer mu.Unlock(); seen = append(seen, p) }
	w.audit()
	mu.Lock()
	defer mu.Unlock()
	require.NotEmpty(t, seen)
	require.NotEmpty(t, seen[0].Stage)
	for _, p := range seen {
		require.LessOrEqual(t, p.Share, 1.0)
	}
}

// Of very many deeds the newest are in the report, and every one by which something is in neither sink.
func TestManyDeeds(t *testing.T) {
	t.Parallel()
	r := newRun(Options{MaxFindings: 1})
	const all = 5*mostDeeds/2 + 7
	for i := range int64(all) {
		e := &entry{seq: i + 1, kind: "hold"}
		switch i {
		case 3:
			e.kind = "accept_loss"
		case 12_000:
			e.kind = "reset"
		}
		r.deed(e)
	}
	rep := r.report()
	require.EqualValues(t, all, rep.DeedsAll)
	require.Len(t, rep.Deeds, mostDeeds+2)
	require.EqualValues(t, 4, rep.Deeds[0].Seq)
	require.EqualValues(t, 12_001, rep.Deeds[1].Seq)
	require.EqualValues(t, all-mostDeeds+1, rep.Deeds[2].Seq)
	require.EqualValues(t, all, rep.Deeds[mostDeeds+1].Seq)
}
