package telemetry

import (
	"flag"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/ledger"
)

var rewrite = flag.Bool("rewrite", false, "write doc/metrics.md anew")

// doc/metrics.md is what the program says.
func TestReference(t *testing.T) {
	const path = "../../doc/metrics.md"
	if *rewrite {
		require.NoError(t, os.WriteFile(path, []byte(Reference()), 0o600))
	}
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, Reference(), string(b), "go test ./internal/telemetry -run TestReference -args -rewrite")
}

// What the reference tells is what is exported: the same names, types and labels, once everything has happened.
func TestReferenceIsWhatIsExported(t *testing.T) {
	m := NewMetrics(ours)
	m.State(1, engine.Consuming)
	m.Claimed(1, &engine.Claim{Epoch: 3, Head: &ledger.Head{At: "2026-01-31T10:00:00.123456Z"}})
	m.Offsets(1, 10, 5)
	m.LogEnds(map[int32]int64{1: 20})
	m.Failed(1, "registry")
	m.Geo(time.Unix(5, 0), func() (int64, int64) { return 7, 8 })
	families, err := m.reg.Gather()
	require.NoError(t, err)
	exported := map[string]*dto.MetricFamily{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "go_") && !strings.HasPrefix(f.GetName(), "process_") {
			exported[f.GetName()] = f
		}
	}
	require.Len(t, exported, len(m.defs))
	for _, d := range m.defs {
		f := exported[d.name]
		require.NotNil(t, f, d.name)
		require.Equal(t, strings.ToUpper(d.kind), f.GetType().String(), d.name)
		require.Equal(t, d.help, f.GetHelp(), d.name)
		require.Equal(t, d.kind == "counter", strings.HasSuffix(d.name, "_total"), "%s: counters, and nothing else, end in _total", d.name)
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		require.ElementsMatch(t, d.labels, labels, d.name)
	}
}

// Captures and publishes: durations, sizes, outcomes, fencing, and what is in both sinks.
func TestTransactions(t *testing.T) {
	m := NewMetrics(ours)
	m.Transaction(&engine.Transaction{Kind: engine.Capture, Outcome: engine.CaptureCommitted, Records: 30, Bytes: 5000, Refused: 2, Took: 3 * time.Millisecond})
	m.Transaction(&engine.Transaction{Kind: engine.Capture, Outcome: engine.CaptureRefused, Refused: 1, Took: time.Millisecond})
	m.Transaction(&engine.Transaction{Kind: engine.Publish, Outcome: "committed", Messages: 31, Bytes: 900, Took: time.Millisecond})
	m.Transaction(&engine.Transaction{Kind: engine.Publish, Outcome: "stale stamp"})
	m.Transaction(&engine.Transaction{Kind: engine.Drain, Outcome: "lost"})
	m.Landed(0, &engine.Landing{Records: 30, Took: 100 * time.Millisecond})
	m.Landed(1, &engine.Landing{Records: 4, Drained: true})
	m.Dead("schema", 2)
	m.Rebalanced(engine.EvAssigned, 6)
	m.Rebalanced(engine.EvLost, 0)
	got := scrape(t, m)
	for _, line := range []string{
		`exactly_transactions_total{kind="capture",outcome="committed"} 1`, `exactly_transactions_total{kind="capture",outcome="refused"} 1`,
		`exactly_transactions_total{kind="capture",outcome="unknown"} 0`, `exactly_transactions_total{kind="publish",outcome="stale stamp"} 1`,
		`exactly_transactions_total{kind="drain",outcome="lost"} 1`, `exactly_fenced_total{by="epoch"} 3`, `exactly_fenced_total{by="generation"} 1`,
		`exactly_fenced_total{by="producer"} 1`, `exactly_capture_seconds_count 2`, `db_write_latency_seconds_count 2`, `exactly_capture_records_sum 30`,
		`exactly_capture_bytes_sum 5000`, `exactly_publish_messages_sum 31`, `exactly_publish_bytes_sum 900`, `messages_processed_total 34`,
		`exactly_drained_records_total 4`, `processing_latency_seconds_count 1`, `failed_messages_total{class="schema"} 2`,
		`exactly_rebalances_total{kind="assigned"} 1`, `exactly_rebalances_total{kind="lost"} 0`,
	} {
		require.Contains(t, got, line)
	}
}

// Who asks for OpenMetrics, as Prometheus does, gets the trace of a transaction along.
func TestExemplars(t *testing.T) {
	m := NewMetrics(ours)
	trace := strings.Repeat("ab", 16)
	m.Transaction(&engine.Transaction{Kind: engine.Capture, Outcome: engine.CaptureCommitted, Took: 3 * time.Millisecond, Trace: trace})
	m.Transaction(&engine.Transaction{Kind: engine.Publish, Outcome: "committed", Took: 3 * time.Millisecond, Trace: trace})
	m.Landed(0, &engine.Landing{Records: 1, Took: 3 * time.Millisecond, Trace: trace})
	res := ask(t, m, "/metrics", http.Header{"Accept": {"application/openmetrics-text; version=1.0.0"}})
	for _, name := range []string{"exactly_capture_seconds", "db_write_latency_seconds", "exactly_publish_seconds", "processing_latency_seconds"} {
		require.Regexp(t, `(?m)^`+name+`_bucket\{.*le="0.004"\} 1 # \{trace_id="`+trace+`"\} 0.003`, res, name)
	}
	require.NotContains(t, ask(t, m, "/metrics", nil), trace, "the older format has none")
}

// However many classes and reasons a handler makes up, and however often partitions come and go, there are only so many series.
func TestCardinalityIsBounded(t *testing.T) {
	m := NewMetrics(ours)
	before := len(scrape(t, m))
	for i := range 1000 {
		p := int32(i)
		m.State(p, engine.Claiming)
		m.Claimed(p, &engine.Claim{Epoch: int64(i)})
		m.Dead(fmt.Sprint("class ", i), 1)
		m.Failed(p, fmt.Sprint("reason ", i))
		m.State(p, engine.Consuming)
		m.Offsets(p, 10, 5)
		m.LogEnds(map[int32]int64{p: 20})
		m.Pulse(p, &engine.PartitionPulse{Full: true})
		m.State(p, engine.Unassigned)
	}
	got := scrape(t, m)
	require.Contains(t, got, fmt.Sprintf(`failed_messages_total{class="other"} %d`, 1000-(maxClasses-3)))
	require.NotContains(t, strings.Join(got, "\n"), `partition="`, "a partition that is gone leaves series behind")
	require.LessOrEqual(t, len(got)-before, 2*(maxClasses-3+1)+maxReasons-3+1+maxReasons)
}

// Ages: of what is owed, the oldest; of the ledger, the newest entry, whoever wrote it.
func TestAges(t *testing.T) {
	m := NewMetrics(ours)
	at := time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC)
	m.now = func() time.Time { return at }
	says := func(lines ...string) {
		t.Helper()
		got := scrape(t, m)
		for _, l := range lines {
			require.Contains(t, got, l)
		}
	}
	m.State(2, engine.Claiming)
	m.Claimed(2, &engine.Claim{Epoch: 9, Head: &ledger.Head{At: "2026-01-31T09:59:00Z"}})
	m.State(2, engine.Draining)
	m.Offsets(2, 100, 40) // another's
	says(`exactly_gap_age_seconds{partition="2"} 60`, `exactly_ledger_age_seconds{partition="2"} 60`, `exactly_partition_epoch{partition="2"} 9`,
		`exactly_drain_remaining_records{partition="2"} 60`, `exactly_paused_partitions{reason="taken over"} 1`)
	m.Offsets(2, 100, 100)
	m.State(2, engine.Consuming)
	says(`exactly_gap_age_seconds{partition="2"} 0`, `exactly_drain_remaining_records{partition="2"} 0`, `exactly_paused_partitions{reason="taken over"} 0`)
	m.Offsets(2, 110, 100)
	at = at.Add(5 * time.Second)
	m.Offsets(2, 120, 100)
	at = at.Add(time.Second)
	says(`exactly_gap_age_seconds{partition="2"} 6`, `exactly_ledger_age_seconds{partition="2"} 1`)
	m.Offsets(2, 120, 110)
	says(`exactly_gap_age_seconds{partition="2"} 1`)
	for i := range int64(3 * maxOwed) {
		m.Offsets(2, 121+i, 110)
	}
	require.LessOrEqual(t, len(m.of[2].owed), maxOwed)
	m.Offsets(2, 120+3*maxOwed, 120+3*maxOwed)
	says(`exactly_gap_age_seconds{partition="2"} 0`)
}

// Each partition that is not fetched is counted once, under why.
func TestPaused(t *testing.T) {
	m := NewMetrics(ours)
	for i, s := range []engine.State{engine.Held, engine.Stopped, engine.NoProducer, engine.Consuming, engine.Consuming, engine.Fencing, engine.Withdrawing, engine.Waiting} {
		m.State(int32(i), s)
	}
	m.Pulse(4, &engine.PartitionPulse{Full: true})
	m.Failed(7, engine.ReasonKafka)
	got := scrape(t, m)
	for _, why := range []string{"held", "stopped", "no-producer", "backpressure", "taken over", "given up", "kafka"} {
		require.Contains(t, got, fmt.Sprintf(`exactly_paused_partitions{reason=%q} 1`, why))
	}
	require.Contains(t, got, `exactly_paused_partitions{reason="postgres"} 0`)
}
