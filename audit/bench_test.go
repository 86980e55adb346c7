package audit

import (
	"flag"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/outbox"
)

var benchRecords = flag.Int("audit.records", 100_000, "clicks that BenchmarkRun audits")

// BenchmarkRun audits a large state; go test -bench Run -run '^$' -benchtime 1x ./audit -audit.records 1000000.
func BenchmarkRun(b *testing.B) {
	w := newWorld(b)
	w.exec(`SELECT exactly_make_time_partitions('2026-01-01', '2026-01-02')`)
	const chunk = 50_000
	for from := 0; from < *benchRecords; from += chunk {
		n := min(chunk, *benchRecords-from)
		w.input, w.rows, w.outbox = w.input[:0], w.rows[:0], w.outbox[:0]
		var recs []*kgo.Record
		for i := range n {
			part := int32(i % 2)
			c := w.click(int64(from + i))
			r := w.inputRecord(part, int64(from+i), c)
			in := inputRec{part: part, offset: int64((from + i) / 2), key: r.Key, value: r.Value, click: c}
			w.capture(&in)
			recs = append(recs, r)
		}
		require.NoError(b, w.cl.ProduceSync(w.ctx, recs...).FirstErr())
		_, err := w.db.CopyFrom(w.ctx, pgx.Identifier{"enriched_clicks"}, []string{"source_id", "source_partition", "source_offset", "user_id", "session_id", "timestamp", "url", "ip", "country", "geo_build", "captured_at"},
			pgx.CopyFromSlice(len(w.rows), func(i int) ([]any, error) {
				r := &w.rows[i]
				return []any{r.source, r.part, r.offset, r.click.UserID, r.click.SessionID, time.UnixMilli(r.click.TimestampMs), r.click.URL, netip.MustParseAddr(r.click.IP), r.country, r.geo, r.at}, nil
			}))
		require.NoError(b, err)
		_, err = w.db.CopyFrom(w.ctx, pgx.Identifier{"outbox"}, []string{"source_id", "source_partition", "source_offset", "seq", "topic", "partition", "timestamp", "key", "value", "headers", "created_at"},
			pgx.CopyFromSlice(len(w.outbox), func(i int) ([]any, error) {
				m := &w.outbox[i]
				return []any{1, m.part, m.SourceOffset, m.Seq, m.Topic, m.Partition, m.TimestampMs, m.Key, m.Value, outbox.AppendHeaders(nil, m.Headers), m.at}, nil
			}))
		require.NoError(b, err)
		require.NoError(b, w.cl.ProduceSync(w.ctx, records(w.outbox)...).FirstErr())
	}
	w.rows, w.outbox = nil, nil
	for part := range int32(2) {
		n := int64(*benchRecords / 2)
		w.ledger = append(w.ledger, ledger.Entry{SourceID: 1, Partition: part, Seq: 1, Kind: ledger.Capture, To: n, Records: n, Rows: n, Events: n, CommittedAt: day1})
		w.offsets[part] = &offsetsRow{next: n}
		w.group[part] = n
	}
	w.seal()
	w.store(ownHash)
	runtime.GC()
	for b.Loop() {
		rep, err := Run(w.ctx, w.opts)
		require.NoError(b, err)
		require.True(b, rep.Clean(), sentences(rep))
	}
	b.ReportMetric(float64(*benchRecords)*float64(b.N)/b.Elapsed().Seconds(), "clicks/s")
}
