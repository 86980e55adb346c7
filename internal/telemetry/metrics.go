package telemetry

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/exactly-pipeline/exactly/engine"
)

// Identity says whose metrics they are.
type Identity struct {
	Build, Worker string
	Topic, Group  string // the input, and who reads it

	StuckAfter time.Duration // a partition with work and without progress for so long, and no store away, is stuck; 0: two minutes
}

// Metrics are the worker's. It implements engine.Observer.
type Metrics struct {
	*catalogue
	*positions
	*flow
	*stores
	Health *Health

	records   prometheus.Counter
	rows      prometheus.Counter
	dead      prometheus.Counter
	published prometheus.Counter
	handle    prometheus.Histogram
	capture   prometheus.Histogram
	publish   *prometheus.HistogramVec
	queued    prometheus.Gauge
	state     *prometheus.GaugeVec
	events    map[engine.EventKind]prometheus.Counter
	classes   *prometheus.CounterVec
	failures  *prometheus.CounterVec
	waiting   *prometheus.GaugeVec
	careful   prometheus.Counter

	mu      sync.Mutex
	states  map[int32]engine.State
	class   *bounded
	reasons *bounded

	console http.Handler // below /console/; nil: there is none
}

// Console has Serve answer below /console/ as well.
func (m *Metrics) Console(h http.Handler) { m.console = h }

// counted are the events of partitions that tell of membership or of trouble. The others happen at every capture.
var counted = []engine.EventKind{
	engine.EvAssigned, engine.EvRevoked, engine.EvLost, engine.EvHeld, engine.EvUnstable, engine.EvFenced, engine.EvScanned,
	engine.EvRefused, engine.EvFailed, engine.EvBroken, engine.EvProducerLost,
}

// How many values the labels take that a handler chooses.
const (
	maxClasses = 64
	maxReasons = 16
)

// outcomes of publishes.
func outcomes() (out []string) {
	for o := engine.Committed; o <= engine.Lost; o++ {
		out = append(out, o.String())
	}
	return out
}

// NewMetrics makes and registers them. All series but those of a partition exist from the start, with 0.
func NewMetrics(id Identity) *Metrics {
	c := newCatalogue()
	seconds := prometheus.ExponentialBuckets(0.001, 2, 15)
	known := []string{engine.ClassPanic, engine.ClassRefused, engine.ClassQuarantined}
	reasons := []string{engine.ReasonPostgres, engine.ReasonKafka, engine.ReasonHandler}
	m := &Metrics{
		catalogue: c,
		records:   c.counter("exactly_captured_records_total", "records captured in Postgres by this process, dead letters included"),
		rows:      c.counter("exactly_captured_rows_total", "rows captured in Postgres by this process"),
		dead:      c.counter("exactly_dead_letters_total", "dead letters captured by this process"),
		published: c.counter("exactly_published_messages_total", "messages committed to Kafka, dead letters and drained gaps included"),
		handle: c.histogram("exactly_handle_seconds", "what the handler takes over a record (decode, validate, enrich, encode); one record in 64 is timed",
			prometheus.ExponentialBuckets(0.000_000_5, 4, 12)),
		capture: c.histogram("exactly_capture_seconds", "Postgres transactions of captures", seconds),
		publish: c.histograms("exactly_publish_seconds",
			"Kafka transactions that ended `committed`, `aborted`, with a `stale stamp` (refused in a rebalance), or `lost` (unknown, fenced, fatal)", seconds, "outcome", outcomes()...),
		queued:   c.gauge("exactly_in_flight_bytes", "bytes prepared and not yet published"),
		state:    c.gauges("exactly_partition_state", "1 for the state each partition of this worker is in; the states are in [protocol.md](protocol.md#one-partitions-life)", "partition", "state"),
		events:   map[engine.EventKind]prometheus.Counter{},
		classes:  c.counters("exactly_dead_letters_by_class_total", "dead letters by class: `panic`, `refused`, `quarantined` (see [failures.md](failures.md#dead-letters)), and the handler's own", "class", known...),
		failures: c.counters("exactly_transient_failures_total", "how often a partition gave up for a while because `postgres`, `kafka`, the `registry` or another part of the `handler` was in trouble", "reason", reasons...),
		waiting:  c.gauges("exactly_partition_waiting", "1 from such a failure until the partition is at work again; nothing of it is dropped meanwhile", "partition", "reason"),
		careful: c.counter("exactly_careful_claims_total",
			"partitions taken with care: who had them before was gone in the middle of records it had begun; more than one a day without workers being killed means [a record that kills them](failures.md#a-record-that-kills-the-worker), or too little memory"),
		states: map[int32]engine.State{}, class: newBounded(maxClasses, known...), reasons: newBounded(maxReasons, reasons...),
	}
	c.gauges("exactly_build_info", "1; the labels say which version runs, as which worker", "version", "worker").WithLabelValues(id.Build, id.Worker).Set(1)
	kinds := make([]string, len(counted))
	for i, k := range counted {
		kinds[i] = string(k)
	}
	events := c.counters("exactly_partition_events_total", "counted once a partition: `assigned`, `revoked`, `lost` (rebalances), `held`, `unstable` and `predecessors-fenced` (take-overs), "+
		"`scanned` (the group offset was gone), `refused` (fenced at a capture), `failed` (a store was away, tried again), `broken` (stopped for a person), "+
		"`producer-lost` (fenced, fatal, or a commit's outcome unknown)", "event", kinds...)
	for _, k := range counted {
		m.events[k] = events.WithLabelValues(string(k))
	}
	m.positions = newPositions(c, id)
	m.flow = newFlow(c, seconds, known)
	m.stores = newStores(c)
	m.Health = newHealth(id.StuckAfter)
	m.reg.MustRegister(newPartitions(m), collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func label(partition int32) string { return strconv.Itoa(int(partition)) }

// State implements engine.Observer.
func (m *Metrics) State(partition int32, s engine.State) {
	p := label(partition)
	m.Health.state(partition, s)
	m.mu.Lock()
	defer m.mu.Unlock()
	if was, ok := m.states[partition]; ok {
		m.state.DeleteLabelValues(p, string(was))
	}
	delete(m.states, partition)
	if s == engine.Consuming || s == engine.Unassigned {
		m.waiting.DeletePartialMatch(prometheus.Labels{"partition": p})
	}
	if s == engine.Unassigned {
		m.forget(partition)
		return
	}
	m.states[partition] = s
	m.state.WithLabelValues(p, string(s)).Set(1)
}

// Event implements engine.Observer.
func (m *Metrics) Event(_ int32, k engine.EventKind) {
	if c := m.events[k]; c != nil {
		c.Inc()
	}
}

// Offsets implements engine.Observer.
func (m *Metrics) Offsets(partition int32, stored, group int64) {
	m.Health.offsets(partition, stored, group)
	m.moved(partition, stored, group)
}

// LogEnds takes where the input's partitions end now; nil: nobody can say.
func (m *Metrics) LogEnds(ends map[int32]int64) {
	m.Health.kafka(ends != nil)
	m.ends(ends)
}

// Captured implements engine.Observer. What it took, Transaction tells.
func (m *Metrics) Captured(records, rows, dead int64, _ time.Duration) {
	m.records.Add(float64(records))
	m.rows.Add(float64(rows))
	m.dead.Add(float64(dead))
}

// Dead implements engine.Observer.
func (m *Metrics) Dead(class string, n int64) {
	m.mu.Lock()
	class = m.class.of(class)
	m.mu.Unlock()
	m.classes.WithLabelValues(class).Add(float64(n))
	m.failed.WithLabelValues(class).Add(float64(n))
}

// Failed implements engine.Observer.
func (m *Metrics) Failed(partition int32, reason string) {
	m.mu.Lock()
	reason = m.reasons.of(reason)
	m.mu.Unlock()
	p := label(partition)
	m.failures.WithLabelValues(reason).Inc()
	m.waiting.DeletePartialMatch(prometheus.Labels{"partition": p})
	m.waiting.WithLabelValues(p, reason).Set(1)
	m.Health.failed(partition, reason)
}

// Handled is told by engine.Measured. Failures are counted by Failed and Dead, which know what becomes of them.
func (m *Metrics) Handled(took time.Duration, _ error) {
	if took > 0 {
		m.handle.Observe(took.Seconds())
	}
}

// Published implements engine.Observer. What it took, Transaction tells.
func (m *Metrics) Published(messages int64, _ time.Duration, _ engine.Outcome) {
	m.published.Add(float64(messages))
}

// Queued implements engine.Observer.
func (m *Metrics) Queued(bytes int) {
	m.queued.Set(float64(bytes))
	m.Health.beats()
}

// Careful implements engine.Observer.
func (m *Metrics) Careful(int32) { m.careful.Inc() }

// Serve answers /metrics, /livez, /readyz, /startupz and /healthz (as /livez, its older name) on addr until ctx is done.
func (m *Metrics) Serve(ctx context.Context, addr string) error {
	return serve(ctx, addr, m.reg, m.Health, m.console)
}

// Starting says what the start waits for now.
func (m *Metrics) Starting(what string) { m.Health.Starting(what) }

// Postgres takes what a look at the database found; "": all is well with it.
func (m *Metrics) Postgres(trouble string) { m.Health.Postgres(trouble) }
