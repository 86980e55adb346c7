package telemetry

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/engine"
)

// ward is a worker's health under a clock of its own.
type ward struct {
	*Metrics
	t  *testing.T
	at time.Time
}

func newWard(t *testing.T) *ward {
	w := &ward{NewMetrics(ours), t, time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC)}
	w.Health.now = func() time.Time { return w.at }
	w.Rebalanced(engine.EvAssigned, 1)
	w.State(3, engine.Claiming)
	w.State(3, engine.Consuming)
	w.pass(time.Second)
	return w
}

// pass is so much time in which the worker's loop goes round and the source is polled, and nothing else happens.
func (w *ward) pass(d time.Duration) {
	w.at = w.at.Add(d)
	w.Queued(0)
	w.Polled(0)
}

func (w *ward) is(live, ready string) {
	w.t.Helper()
	require.Equal(w.t, live, w.Health.Live())
	require.Equal(w.t, ready, w.Health.Ready())
}

// The three questions over HTTP, at each stage of a start.
func TestStart(t *testing.T) {
	m := NewMetrics(ours)
	code := func(path string, want int, says string) {
		t.Helper()
		got, text := get(t, m, path)
		require.Equal(t, want, got, "%s: %s", path, text)
		require.Equal(t, says+"\n", text, path)
	}
	m.Starting("postgres")
	code("/livez", http.StatusOK, "ok")
	code("/healthz", http.StatusOK, "ok")
	code("/startupz", http.StatusServiceUnavailable, "waits for postgres")
	code("/readyz", http.StatusServiceUnavailable, "starting: waits for postgres")
	m.Rebalanced(engine.EvLost, 0)
	code("/startupz", http.StatusServiceUnavailable, "waits for postgres")
	m.Rebalanced(engine.EvAssigned, 0) // more workers than partitions: it has its place
	code("/startupz", http.StatusOK, "ok")
	code("/readyz", http.StatusOK, "ok")
	m.Rebalanced(engine.EvLost, 0)
	code("/readyz", http.StatusServiceUnavailable, "no member of the group")
	code("/startupz", http.StatusOK, "ok")
}

func TestWell(t *testing.T) {
	w := newWard(t)
	w.is("", "")
	w.pass(time.Hour) // nothing to do
	w.is("", "")
	w.Pulse(3, &engine.PartitionPulse{Buffered: 5})
	w.pass(time.Minute)
	w.is("", "")
	w.Offsets(3, 10, 0) // it gets on
	w.pass(90 * time.Second)
	w.is("", "")
}

// Stuck: work, no progress, and no reason for it.
func TestStuck(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(w *ward)
		says string
	}{
		"records that nobody captures": {func(w *ward) { w.Pulse(3, &engine.PartitionPulse{Buffered: 5}) }, "partition 3 is consuming, has work, and has not got on for 2m1s"},
		"a gap that nobody publishes":  {func(w *ward) { w.Offsets(3, 10, 0) }, "partition 3 is consuming, has work, and has not got on for 2m1s"},
		"a claim that never ends":      {func(w *ward) { w.State(3, engine.Looking) }, "partition 3 is looking, has work, and has not got on for 2m1s"},
		"a withdrawal that never ends": {func(w *ward) { w.State(3, engine.Withdrawing) }, "partition 3 is withdrawing, has work, and has not got on for 2m1s"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWard(t)
			w.pass(time.Hour)
			w.Pulse(3, &engine.PartitionPulse{})
			c.do(w)
			w.pass(2 * time.Minute)
			w.is("", "")
			w.pass(time.Second)
			w.is(c.says, c.says)
			w.State(3, engine.Claiming) // it gets on after all
			w.is("", "")
		})
	}
}

func TestLoopStandsStill(t *testing.T) {
	w := newWard(t)
	w.Postgres("it does not answer")
	w.at = w.at.Add(2*time.Minute + time.Second)
	why := "the worker's loop has not gone round for 2m1s"
	w.is(why, why) // whatever is away
}

func TestInputIsNotPolled(t *testing.T) {
	w := newWard(t)
	w.at = w.at.Add(3 * time.Minute)
	w.Queued(0)
	w.Polled(3 * time.Minute)
	why := "the input has not been polled for 3m0s"
	w.is(why, why)
}

// A store that is away: not ready, and alive for as long as it takes, whatever stands still for it.
func TestStoreAway(t *testing.T) {
	for name, c := range map[string]struct {
		away, back func(w *ward)
		ready      string
	}{
		"postgres":   {func(w *ward) { w.Postgres("it does not answer") }, func(w *ward) { w.Postgres("") }, "postgres: it does not answer"},
		"migrations": {func(w *ward) { w.Postgres("it is at migration 1") }, func(w *ward) { w.Postgres("") }, "postgres: it is at migration 1"},
		"kafka":      {func(w *ward) { w.LogEnds(nil) }, func(w *ward) { w.LogEnds(map[int32]int64{3: 1}) }, "kafka: it does not tell where the input ends"},
		"registry":   {func(w *ward) { w.Failed(3, "registry") }, func(w *ward) { w.State(3, engine.Consuming) }, "partition 3 waits: registry"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWard(t)
			w.Offsets(3, 10, 0)
			c.away(w)
			w.is("", c.ready)
			w.pass(time.Hour)
			w.is("", c.ready)
			c.back(w)
			w.State(3, engine.Consuming)
			w.is("", "")
		})
	}
}

// Publishes that end otherwise than committed are a reason, too.
func TestPublishesFail(t *testing.T) {
	w := newWard(t)
	w.Offsets(3, 10, 0)
	for range 10 {
		w.pass(time.Minute)
		w.Transaction(&engine.Transaction{Kind: engine.Publish, Outcome: "aborted"})
		w.is("", "")
	}
	w.pass(3 * time.Minute)
	require.NotEmpty(t, w.Health.Live(), "nobody has tried for three minutes")
}

// What waits for a person is not ready, and no reason to restart.
func TestWaitsForAPerson(t *testing.T) {
	for _, s := range []engine.State{engine.Held, engine.Stopped} {
		w := newWard(t)
		w.State(3, s)
		w.pass(24 * time.Hour)
		w.is("", "partition 3 is "+string(s))
		w.State(3, engine.Unassigned)
		w.is("", "")
	}
}
