package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/exactly-pipeline/exactly/engine"
)

// flow is what goes through: transactions, and records that are in both sinks.
type flow struct {
	processed    prometheus.Counter
	latency      prometheus.Histogram
	failed       *prometheus.CounterVec
	written      prometheus.Histogram
	transactions *prometheus.CounterVec
	records      prometheus.Histogram
	captureBytes prometheus.Histogram
	messages     prometheus.Histogram
	publishBytes prometheus.Histogram
	fenced       *prometheus.CounterVec
	rebalances   *prometheus.CounterVec
	drained      prometheus.Counter
}

// Who fences us.
const (
	byEpoch      = "epoch"      // a capture was refused: another worker has claimed the partition
	byGeneration = "generation" // a publish was: the group has moved on
	byProducer   = "producer"   // the producer is of no use any more
)

func newFlow(c *catalogue, seconds []float64, classes []string) *flow {
	counts := prometheus.ExponentialBuckets(1, 4, 9)
	bytes := prometheus.ExponentialBuckets(1024, 4, 9)
	f := &flow{
		processed: c.counter("messages_processed_total", "records that this process has brought into both sinks, dead letters included; what another life had captured counts where its gap is drained"),
		latency:   c.histogram("processing_latency_seconds", "from when a record was read until it is in both sinks; observed once a partition and publish, of the record that waited longest", seconds),
		failed:    c.counters("failed_messages_total", "records that became dead letters, by class", "class", classes...),
		written:   c.histogram("db_write_latency_seconds", "Postgres transactions of captures, whatever their outcome", seconds),
		records:   c.histogram("exactly_capture_records", "records in a capture", counts),
		messages:  c.histogram("exactly_publish_messages", "messages in a Kafka transaction", counts),
		drained:   c.counter("exactly_drained_records_total", "records published from the outbox, which another life had captured"),
		fenced: c.counters("exactly_fenced_total",
			"how often this worker was fenced: `epoch` (a partition's capture was refused, another worker has claimed it), `generation` (a publish was refused in a rebalance), `producer` (fenced, fatal, or a commit's outcome unknown)",
			"by", byEpoch, byGeneration, byProducer),
		rebalances: c.counters("exactly_rebalances_total", "rebalance callbacks, of however many partitions: `assigned`, `revoked`, `lost`", "kind",
			string(engine.EvAssigned), string(engine.EvRevoked), string(engine.EvLost)),
		captureBytes: c.histogram("exactly_capture_bytes", "bytes of a capture in memory: input, rows, outbox", bytes),
		publishBytes: c.histogram("exactly_publish_bytes", "bytes of a Kafka transaction in memory", bytes),
	}
	c.define("counter", "exactly_transactions_total", "transactions by what they were for (`capture` in Postgres; `publish` and `drain` in Kafka) and how they ended", "kind", "outcome")
	f.transactions = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "exactly_transactions_total", Help: c.helpOf("exactly_transactions_total")}, []string{"kind", "outcome"})
	for _, o := range []string{engine.CaptureCommitted, engine.CaptureRefused, engine.CaptureUnknown} {
		f.transactions.WithLabelValues(string(engine.Capture), o)
	}
	for _, o := range outcomes() {
		f.transactions.WithLabelValues(string(engine.Publish), o)
		f.transactions.WithLabelValues(string(engine.Drain), o)
	}
	c.reg.MustRegister(f.transactions)
	return f
}

// Transaction implements engine.Observer.
func (m *Metrics) Transaction(t *engine.Transaction) {
	m.transactions.WithLabelValues(string(t.Kind), t.Outcome).Inc()
	took := t.Took.Seconds()
	if t.Kind == engine.Capture {
		m.fenced.WithLabelValues(byEpoch).Add(float64(t.Refused))
		observe(m.capture, took, t.Trace)
		observe(m.written, took, t.Trace)
		if t.Outcome == engine.CaptureCommitted {
			m.flow.records.Observe(float64(t.Records))
			m.captureBytes.Observe(float64(t.Bytes))
		}
		return
	}
	observe(m.publish.WithLabelValues(t.Outcome), took, t.Trace)
	m.messages.Observe(float64(t.Messages))
	m.publishBytes.Observe(float64(t.Bytes))
	switch t.Outcome {
	case engine.StaleStamp.String():
		m.fenced.WithLabelValues(byGeneration).Inc()
	case engine.Lost.String():
		m.fenced.WithLabelValues(byProducer).Inc()
	}
	if t.Outcome != engine.Committed.String() {
		m.Health.trouble()
	}
}

// Landed implements engine.Observer.
func (m *Metrics) Landed(_ int32, l *engine.Landing) {
	m.processed.Add(float64(l.Records))
	if l.Drained {
		m.drained.Add(float64(l.Records))
	}
	if l.Took > 0 {
		observe(m.latency, l.Took.Seconds(), l.Trace)
	}
}

// Rebalanced implements engine.Observer.
func (m *Metrics) Rebalanced(k engine.EventKind, partitions int) {
	m.Health.rebalanced(k)
	if k != engine.EvLost || partitions > 0 { // a client that can't join loses nothing, at each try
		m.rebalances.WithLabelValues(string(k)).Inc()
	}
}

// Claimed implements engine.Observer.
func (m *Metrics) Claimed(partition int32, c *engine.Claim) {
	var at time.Time
	if c.Head != nil {
		at, _ = time.Parse(time.RFC3339Nano, c.Head.At) // zero: not known
	}
	m.claimed(partition, c.Epoch, at)
}

// Pulse implements engine.Observer.
func (m *Metrics) Pulse(partition int32, p *engine.PartitionPulse) {
	m.Health.pulse(partition, p.Buffered)
	m.full(partition, p.Full)
}

// Polled implements engine.Observer.
func (m *Metrics) Polled(ago time.Duration) { m.Health.polled(ago) }
