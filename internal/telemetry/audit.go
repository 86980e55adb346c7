package telemetry

import (
	"context"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/exactly-pipeline/exactly/audit"
)

// AuditMetrics are those of an audit that goes on (`exactly audit --follow`).
type AuditMetrics struct {
	*catalogue
	findings *prometheus.GaugeVec
	through  *prometheus.GaugeVec
	unproven *prometheus.GaugeVec
	rounds   *prometheus.CounterVec
	took     prometheus.Gauge
	clean    prometheus.Gauge
}

// NewAuditMetrics makes and registers them. All series but those of a partition exist from the start.
func NewAuditMetrics(build string) *AuditMetrics {
	c := newCatalogue()
	m := &AuditMetrics{
		catalogue: c,
		findings:  c.gauges("exactly_audit_findings", "findings of the last round, by class", "class"),
		through:   c.gauges("exactly_audit_verified_through", "the source offset below which everything is proven in both sinks", "partition"),
		unproven:  c.gauges("exactly_audit_unproven_records", "stored offset less that: captured, and not proven yet", "partition"),
		rounds:    c.counters("exactly_audit_rounds_total", "rounds by how they ended: `clean`, `found`, `failed` (a store was away)", "outcome", "clean", "found", "failed"),
		took:      c.gauge("exactly_audit_round_seconds", "how long the last round took"),
		clean:     c.gauge("exactly_audit_last_clean_timestamp_seconds", "when a round last found nothing, Unix time; 0: never"),
	}
	for _, class := range audit.Classes {
		m.findings.WithLabelValues(string(class))
	}
	c.gauges("exactly_build_info", "1; the labels say which program runs", "version", "worker").WithLabelValues(build, "").Set(1)
	m.reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Round notes how a round ended. r is nil if it could not be done.
func (m *AuditMetrics) Round(r *audit.Report) {
	if r == nil {
		m.rounds.WithLabelValues("failed").Inc()
		return
	}
	outcome := "found"
	if r.Clean() {
		outcome = "clean"
		m.clean.Set(float64(r.At.UnixMilli()) / 1000)
	}
	m.rounds.WithLabelValues(outcome).Inc()
	for c, n := range r.Found {
		m.findings.WithLabelValues(string(c)).Set(float64(n))
	}
	for i := range r.Partitions {
		p := &r.Partitions[i]
		label := strconv.Itoa(int(p.Partition))
		m.through.WithLabelValues(label).Set(float64(p.Verified))
		m.unproven.WithLabelValues(label).Set(float64(max(0, p.Stored-p.Verified)))
	}
	m.took.Set(r.Took.Round(time.Millisecond).Seconds())
}

// Serve answers as Metrics.Serve does; it is always well.
func (m *AuditMetrics) Serve(ctx context.Context, addr string) error {
	return serve(ctx, addr, m.reg, well{}, nil)
}
