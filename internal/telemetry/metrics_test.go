package telemetry

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/engine"
)

var ours = Identity{Build: "v1", Worker: "w1", Topic: "in", Group: "g"}

// ask asks a listener of m's for a path, and returns the body.
func ask(t *testing.T, m *Metrics, path string, h http.Header) string {
	t.Helper()
	_, body := answer(t, m.Serve, path, h)
	return body
}

func get(t *testing.T, m *Metrics, path string) (int, string) {
	t.Helper()
	return answer(t, m.Serve, path, nil)
}

// answer is that of a listener which serve makes.
func answer(t *testing.T, serve func(context.Context, string) error, path string, h http.Header) (int, string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0") // a free port
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	require.NoError(t, serve(ctx, addr))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, http.NoBody)
	require.NoError(t, err)
	req.Header = h
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(b)
}

// scrape is /metrics, the series of this program alone.
func scrape(t *testing.T, m *Metrics) []string {
	t.Helper()
	code, text := get(t, m, "/metrics")
	require.Equal(t, http.StatusOK, code)
	var own []string
	for _, line := range strings.Split(text, "\n") {
		if line != "" && line[0] != '#' && !strings.HasPrefix(line, "go_") && !strings.HasPrefix(line, "process_") {
			own = append(own, line)
		}
	}
	return own
}

// The gap is known as soon as the engine tells it, the lag once the log's end is, and a partition that goes takes its series along.
func TestPositions(t *testing.T) {
	m := NewMetrics(ours)
	m.State(3, engine.Consuming)
	m.State(4, engine.Consuming)
	m.Offsets(3, 120, 100)
	m.Offsets(4, 50, 50)
	got := scrape(t, m)
	require.Contains(t, got, `exactly_gap_records{partition="3"} 20`)
	require.Contains(t, got, `exactly_gap_records{partition="4"} 0`)
	require.NotContains(t, strings.Join(got, "\n"), "exactly_lag_records{")

	m.LogEnds(map[int32]int64{3: 150, 4: 40, 5: 7}) // 4: looked at before the last capture; 5: another worker's
	got = scrape(t, m)
	require.Contains(t, got, `exactly_lag_records{partition="3"} 30`)
	require.Contains(t, got, `exactly_lag_records{partition="4"} 0`)
	require.Contains(t, got, `exactly_log_end_offset{partition="3"} 150`)
	require.Contains(t, got, `exactly_input_partitions 3`)
	require.Contains(t, got, `kafka_consumer_lag{group="g",partition="3",topic="in"} 50`)
	require.NotContains(t, strings.Join(got, "\n"), `partition="5"`)

	m.LogEnds(nil) // Kafka is away
	got = scrape(t, m)
	require.NotContains(t, strings.Join(got, "\n"), "exactly_lag_records{")
	require.Contains(t, got, `exactly_gap_records{partition="3"} 20`)
	require.Contains(t, got, `exactly_input_partitions 3`)

	m.LogEnds(map[int32]int64{3: 150, 4: 60})
	m.State(3, engine.Unassigned)
	got = scrape(t, m)
	require.NotContains(t, strings.Join(got, "\n"), `partition="3"`)
	require.Contains(t, got, `exactly_lag_records{partition="4"} 10`)
	m.LogEnds(map[int32]int64{3: 150, 4: 60})
	require.NotContains(t, strings.Join(scrape(t, m), "\n"), `partition="3"`, "a partition given up comes back")
}

// Every series of trouble is there from the start: a rate of something that was never seen is no zero.
func TestSeriesAreThereFromTheStart(t *testing.T) {
	m := NewMetrics(ours)
	got := scrape(t, m)
	require.Contains(t, got, `exactly_build_info{version="v1",worker="w1"} 1`)
	for _, k := range counted {
		require.Contains(t, got, `exactly_partition_events_total{event="`+string(k)+`"} 0`)
	}
	for _, o := range []string{"committed", "aborted", "stale stamp", "lost"} {
		require.Contains(t, got, `exactly_publish_seconds_count{outcome="`+o+`"} 0`)
	}
	m.Event(1, engine.EvRefused)
	m.Event(1, engine.EvCaptured) // happens at every capture: not counted
	m.Transaction(&engine.Transaction{Kind: engine.Publish, Outcome: "lost", Took: time.Millisecond})
	got = scrape(t, m)
	require.Contains(t, got, `exactly_partition_events_total{event="refused"} 1`)
	require.Contains(t, got, `exactly_publish_seconds_count{outcome="lost"} 1`)
	require.NotContains(t, strings.Join(got, "\n"), `event="captured"`)
}
