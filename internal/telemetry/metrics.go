package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/exactly-pipeline/exactly/engine"
)

// Metrics are the worker's. It implements engine.Observer.
type Metrics struct {
	reg       *prometheus.Registry
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
	*positions

	mu     sync.Mutex
	states map[int32]engine.State

	console http.Handler // below /console/; nil: there is none
}

// Console has Serve answer below /console/ as well.
func (m *Metrics) Console(h http.Handler) { m.console = h }

// counted are the events of partitions that tell of membership or of trouble. The others happen at every capture.
var counted = []engine.EventKind{
	engine.EvAssigned, engine.EvRevoked, engine.EvLost, engine.EvHeld, engine.EvUnstable, engine.EvFenced, engine.EvScanned,
	engine.EvRefused, engine.EvFailed, engine.EvBroken, engine.EvProducerLost,
}

// NewMetrics makes and registers them. All series but those of a partition exist from the start, with 0: the first error must be a
// rise, not a series that was never there.
func NewMetrics(build, worker string) *Metrics {
	seconds := prometheus.ExponentialBuckets(0.001, 2, 15)
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &Metrics{
		reg:       prometheus.NewRegistry(),
		records:   counter("exactly_captured_records_total", "Records captured in Postgres."),
		rows:      counter("exactly_captured_rows_total", "Rows captured in Postgres."),
		dead:      counter("exactly_dead_letters_total", "Dead letters captured."),
		published: counter("exactly_published_messages_total", "Messages committed to Kafka, drains included."),
		handle: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "exactly_handle_seconds",
			Help: "What the handler takes over a record: one in 64.", Buckets: prometheus.ExponentialBuckets(0.000_000_5, 4, 12)}),
		capture: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "exactly_capture_seconds", Help: "Postgres transactions.", Buckets: seconds}),
		publish: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "exactly_publish_seconds", Help: "Kafka transactions.", Buckets: seconds}, []string{"outcome"}),
		queued:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "exactly_in_flight_bytes", Help: "Bytes prepared and not yet published."}),
		state: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "exactly_partition_state", Help: "1 for the state a partition is in."},
			[]string{"partition", "state"}),
		events: map[engine.EventKind]prometheus.Counter{},
		classes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "exactly_dead_letters_by_class_total",
			Help: "Dead letters captured, by what was wrong."}, []string{"class"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "exactly_transient_failures_total",
			Help: "Transient failures of partitions, by what was in trouble."}, []string{"reason"}),
		waiting: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "exactly_partition_waiting",
			Help: "1 while a partition is not at work because of a transient failure, by what was in trouble."}, []string{"partition", "reason"}),
		careful: counter("exactly_careful_claims_total", "Partitions taken with care: who had them before was gone in the middle of records it had begun."),

		positions: newPositions(),
		states:    map[int32]engine.State{},
	}
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "exactly_build_info", Help: "1; the labels say which program runs, as which worker."},
		[]string{"version", "worker"})
	info.WithLabelValues(build, worker).Set(1)
	events := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "exactly_partition_events_total",
		Help: "What happened to partitions: assigned, revoked or lost in rebalances, refused captures, failures, …"}, []string{"event"})
	for _, k := range counted {
		m.events[k] = events.WithLabelValues(string(k))
	}
	for _, c := range []string{engine.ClassPanic, engine.ClassRefused, engine.ClassQuarantined} {
		m.classes.WithLabelValues(c)
	}
	for _, r := range []string{engine.ReasonPostgres, engine.ReasonKafka, engine.ReasonHandler} {
		m.failures.WithLabelValues(r)
	}
	for o := engine.Committed; o <= engine.Lost; o++ {
		m.publish.WithLabelValues(o.String())
	}
	m.reg.MustRegister(m.records, m.rows, m.dead, m.published, m.handle, m.capture, m.publish, m.queued, m.state, info, events,
		m.classes, m.failures, m.waiting, m.careful, m.gap, m.lag, m.end, m.partitions, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// State implements engine.Observer.
func (m *Metrics) State(partition int32, s engine.State) {
	p := strconv.Itoa(int(partition))
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

// Captured implements engine.Observer.
func (m *Metrics) Captured(records, rows, dead int64, took time.Duration) {
	m.records.Add(float64(records))
	m.rows.Add(float64(rows))
	m.dead.Add(float64(dead))
	m.capture.Observe(took.Seconds())
}

// Dead implements engine.Observer.
func (m *Metrics) Dead(class string, n int64) { m.classes.WithLabelValues(class).Add(float64(n)) }

// Failed implements engine.Observer.
func (m *Metrics) Failed(partition int32, reason string) {
	p := strconv.Itoa(int(partition))
	m.failures.WithLabelValues(reason).Inc()
	m.waiting.DeletePartialMatch(prometheus.Labels{"partition": p})
	m.waiting.WithLabelValues(p, reason).Set(1)
}

// Handled is told by engine.Measured. Failures are counted by Failed and Dead, which know what becomes of them.
func (m *Metrics) Handled(took time.Duration, _ error) {
	if took > 0 {
		m.handle.Observe(took.Seconds())
	}
}

// Published implements engine.Observer.
func (m *Metrics) Published(messages int64, took time.Duration, o engine.Outcome) {
	m.published.Add(float64(messages))
	m.publish.WithLabelValues(o.String()).Observe(took.Seconds())
}

// Queued implements engine.Observer.
func (m *Metrics) Queued(bytes int) { m.queued.Set(float64(bytes)) }

// Careful implements engine.Observer.
func (m *Metrics) Careful(int32) { m.careful.Inc() }

// trouble says which partitions are not at work, and why not.
func (m *Metrics) trouble() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p, s := range m.states {
		if s == engine.Stopped || s == engine.Held {
			return fmt.Sprintf("partition %d is %s", p, s)
		}
	}
	return ""
}

// Serve answers /metrics, /healthz (the process is up), /readyz (no partition is stopped or held) and /debug/pprof on addr until ctx
// is done.
func (m *Metrics) Serve(ctx context.Context, addr string) error {
	return serve(ctx, addr, m.reg, m.trouble, m.console)
}

func serve(ctx context.Context, addr string, reg *prometheus.Registry, trouble func() string, console http.Handler) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("http.addr: %w (set EXACTLY_HTTP_ADDR to another address, or to nothing)", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := trouble(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	if console != nil {
		mux.Handle("/console/", console)
	}
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		c, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = srv.Shutdown(c) // the process ends
	}()
	go func() {
		if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			_ = l.Close()
		}
	}()
	return nil
}
