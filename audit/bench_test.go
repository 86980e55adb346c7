package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/outbox"
)

var benchRecords = flag.Int("audit.records", 100_000, "clicks that BenchmarkRun audits")

const (
	benchEntry = 4_000 // clicks a ledger entry
	benchEnv   = "EXACTLY_AUDIT_BENCH"
)

// benchOptions is what the auditing process is told.
type benchOptions struct {
	Brokers                                      []string
	DSN, RegistryURL, Group, Input, Output, DLQ_ string
}

type benchResult struct {
	Took    time.Duration
	CPU     time.Duration
	RSSKiB  int64
	Clean   bool
	Input   int64
	Verdict string
}

// benchMain audits in a process of its own, so that memory and CPU are the audit's and not the embedded broker's.
func benchMain(options string) int {
	var o benchOptions
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		panic(err)
	}
	debug.SetMemoryLimit(MemoryLimit)
	rep, err := Run(context.Background(), Options{Brokers: o.Brokers, DSN: o.DSN, RegistryURL: o.RegistryURL, Group: o.Group, Input: o.Input, Output: o.Output, DLQ: o.DLQ_})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	_ = json.NewEncoder(os.Stdout).Encode(benchResult{rep.Took, time.Duration(u.Utime.Nano() + u.Stime.Nano()), u.Maxrss, rep.Clean(), rep.Totals.Input, rep.Verdict})
	return 0
}

// BenchmarkRun audits a large state: make bench-audit CLICKS=10000000.
func BenchmarkRun(b *testing.B) {
	w := newWorld(b)
	w.ctx = context.Background()
	w.exec(`SELECT exactly_make_time_partitions('2026-01-01', '2026-01-02')`)
	for part := range int32(2) {
		w.offsets[part] = &offsetsRow{}
	}
	for from := 0; from < *benchRecords; from += 2 * benchEntry {
		benchLoad(b, w, from)
	}
	w.rows, w.outbox = nil, nil
	for part := range int32(2) {
		w.group[part] = w.offsets[part].next
	}
	w.seal()
	w.store(ownHash)
	told, err := json.Marshal(benchOptions{w.opts.Brokers, w.opts.DSN, w.opts.RegistryURL, w.opts.Group, w.opts.Input, w.opts.Output, w.opts.DLQ})
	require.NoError(b, err)
	var res benchResult
	for b.Loop() {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), benchEnv+"="+string(told))
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, os.Stderr
		require.NoError(b, cmd.Run())
		require.NoError(b, json.Unmarshal(out.Bytes(), &res))
		require.True(b, res.Clean, res.Verdict)
	}
	require.LessOrEqual(b, res.RSSKiB, int64(300<<10), "KiB of memory")
	if *benchRecords >= 10_000_000 { // fewer are told too much by what an audit costs however little there is
		require.LessOrEqual(b, res.Took, time.Duration(float64(3*time.Minute)*float64(res.Input)/10_000_000), "3 minutes for 10 million clicks")
	}
	b.ReportMetric(float64(res.Input)/res.Took.Seconds(), "clicks/s")
	b.ReportMetric(10_000_000/float64(res.Input)*res.Took.Seconds(), "s/10M")
	b.ReportMetric(res.CPU.Seconds(), "cpu-s")
	b.ReportMetric(float64(res.RSSKiB)/1024, "MiB")
}

// benchLoad writes one entry's clicks to each of the two partitions.
func benchLoad(b *testing.B, w *world, from int) {
	w.input, w.rows, w.outbox = w.input[:0], w.rows[:0], w.outbox[:0]
	n := min(2*benchEntry, *benchRecords-from)
	recs := make([]*kgo.Record, 0, n)
	for i := range n {
		part := int32(i % 2)
		c := w.click(int64(from + i))
		r := w.inputRecord(part, int64(from+i), c)
		w.capture(&inputRec{part: part, offset: int64((from + i) / 2), key: r.Key, value: r.Value, ms: r.Timestamp.UnixMilli(), click: c})
		recs = append(recs, r)
	}
	require.NoError(b, w.cl.ProduceSync(w.ctx, recs...).FirstErr())
	_, err := w.db.CopyFrom(w.ctx, pgx.Identifier{"enriched_clicks"}, []string{"source_id", "source_partition", "source_offset", "user_id", "session_id", "timestamp", "url", "ip", "country", "geo_build", "captured_at"},
		pgx.CopyFromSlice(len(w.rows), func(i int) ([]any, error) {
			r := &w.rows[i]
			return []any{r.source, r.part, r.offset, r.click.UserID, r.click.SessionID, time.UnixMilli(r.click.TimestampMs), r.click.URL, netip.MustParseAddr(r.click.IP), r.country, r.geo, r.at}, nil
		}))
	require.NoError(b, err)
	_, err = w.db.CopyFrom(w.ctx, pgx.Identifier{"outbox"}, []string{"source_id", "source_partition", "source_offset", "seq", "topic", "partition", "timestamp", "key", "value", "headers", "created_at", "salt", "record_hash"},
		pgx.CopyFromSlice(len(w.outbox), func(i int) ([]any, error) {
			m := &w.outbox[i]
			return []any{1, m.part, m.SourceOffset, m.Seq, m.Topic, m.Partition, m.TimestampMs, m.Key, m.Value, outbox.AppendHeaders(nil, m.Headers), m.at, m.salt[:], m.record[:]}, nil
		}))
	require.NoError(b, err)
	require.NoError(b, w.cl.ProduceSync(w.ctx, records(w.outbox)...).FirstErr())
	for part, o := range w.offsets {
		o.seq++
		e := ledger.Entry{SourceID: 1, Partition: part, Seq: o.seq, Kind: ledger.Capture, From: o.next, To: int64((from + n + 1 - int(part)) / 2), CommittedAt: day1}
		e.Records = e.To - e.From
		e.Rows, e.Events, e.Digest = e.Records, e.Records, w.digest(&e)
		o.next = e.To
		w.ledger = append(w.ledger, e)
	}
}
