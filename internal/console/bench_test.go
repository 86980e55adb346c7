package console

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/wait"
)

// enough is what a view may take.
const enough = 200 * time.Millisecond

// bigLedger is a million entries over 96 partitions that cover 50 million clicks, 20,000 dead letters and some deeds. The hashes are not real.
const bigLedger = `
INSERT INTO partition_offsets (source_id, source_partition, next_offset, epoch, ledger_seq, ledger_head, worker)
	SELECT s.source_id, p, 10416 * 50, 1, 10416, '\x00', 'one' FROM sources s, generate_series(0, 95) p;
INSERT INTO offset_ledger (source_id, source_partition, seq, kind, from_offset, to_offset, records, rows, events, hash, prev_hash, worker, committed_at, captured_at)
	SELECT s.source_id, p, n, CASE WHEN n % 5000 = 0 THEN 'hold' ELSE 'capture' END, (n - 1) * 50, n * 50, 50, 50, 50, decode(md5(n::text), 'hex'), decode(md5((n - 1)::text), 'hex'), 'one',
		now() - (10416 - n) * interval '8 seconds', now() - (10416 - n) * interval '8 seconds'
	FROM sources s, generate_series(0, 95) p, generate_series(1, 10416) n;
INSERT INTO dead_letters (source_id, source_partition, source_offset, error_class, error_stage, error_message, key, value, headers, created_at)
	SELECT s.source_id, n % 96, n * 20, (ARRAY['decode', 'invalid', 'not_avro'])[n % 3 + 1], 'decode', 'no', 'k', 'v', '\x00', now() - n * interval '3 seconds' FROM sources s, generate_series(1, 20000) n;
ANALYZE offset_ledger, partition_offsets, dead_letters;`

// Each view over a long ledger: what is read is by index and bounded, so that it takes less than a fifth of a second.
func BenchmarkViews(b *testing.B) {
	w := setup(b, "EXACTLY_TOPICS_PARTITIONS=96")
	_, err := w.db.Exec(w.ctx, bigLedger)
	require.NoError(b, err)
	for name, path := range map[string]string{
		"now": "/", "ledger-hour": "/ledger?over=1h", "ledger-all": "/ledger?over=all", "chain": "/ledger/50?seq=5000", "letters-24h": "/letters?since=24h", "record": "/record?q=50/250010", "user": "/record?q=77",
		"trace": "/record?q=4bf92f3577b34da6a3ce929d0e0e4736", "audit": "/audit",
	} {
		b.Run(name, func(b *testing.B) {
			v := w.browser()
			code, page := v.get(path) // connections are made
			require.Equal(b, http.StatusOK, code, page)
			var worst time.Duration
			for range b.N {
				w.console.looks.kept, w.console.groups.kept = nil, nil // as if nobody had looked lately
				began := time.Now()
				code, _ := v.get(path)
				worst = max(worst, time.Since(began))
				require.Equal(b, http.StatusOK, code)
				_ = wait.For(w.ctx, 20*time.Millisecond) // the guard has a limit for us, too
			}
			b.ReportMetric(float64(worst.Microseconds())/1000, "worst-ms")
			if worst > enough {
				b.Errorf("%s: %v", name, worst)
			}
		})
	}
}
