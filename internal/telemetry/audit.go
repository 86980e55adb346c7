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
	reg      *prometheus.Registry
	findings *prometheus.GaugeVec
	through  *prometheus.GaugeVec
	unproven *prometheus.GaugeVec
	rounds   *prometheus.CounterVec
	took     prometheus.Gauge
	clean    prometheus.Gauge
}

// NewAuditMetrics makes and registers them. All series but those of a partition exist from the start.
func NewAuditMetrics(build string) *AuditMetrics {
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	m := &AuditMetrics{
		reg:      prometheus.NewRegistry(),
		findings: gauge("exactly_audit_findings", "Findings of the last round.", "class"),
		through:  gauge("exactly_audit_verified_through", "Source offset below which everything is proven in both sinks.", "partition"),
		unproven: gauge("exactly_audit_unproven_records", "Stored offset less the offset that everything is proven below.", "partition"),
		rounds:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "exactly_audit_rounds_total", Help: "Rounds by how they ended."}, []string{"outcome"}),
		took:     prometheus.NewGauge(prometheus.GaugeOpts{Name: "exactly_audit_round_seconds", Help: "How long the last round took."}),
		clean:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "exactly_audit_last_clean_timestamp_seconds", Help: "When a round last found nothing, Unix time; 0: never."}),
	}
	for _, c := range audit.Classes {
		m.findings.WithLabelValues(string(c))
	}
	for _, o := range []string{"clean", "found", "failed"} {
		m.rounds.WithLabelValues(o)
	}
	info := gauge("exactly_build_info", "1; the labels say which program runs.", "version", "worker")
	info.WithLabelValues(build, "").Set(1)
	m.reg.MustRegister(m.findings, m.through, m.unproven, m.rounds, m.took, m.clean, info, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
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

// Serve answers as Metrics.Serve does; it is always ready.
func (m *AuditMetrics) Serve(ctx context.Context, addr string) error {
	return serve(ctx, addr, m.reg, func() string { return "" }, nil)
}
