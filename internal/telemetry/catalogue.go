package telemetry

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// definition is one metric as the reference tells of it.
type definition struct {
	name, kind, help string
	labels           []string
}

// catalogue makes metrics and remembers them: what is exported and what the reference says is one list.
type catalogue struct {
	reg  *prometheus.Registry
	defs []definition
}

func newCatalogue() *catalogue { return &catalogue{reg: prometheus.NewRegistry()} }

func (c *catalogue) define(kind, name, help string, labels ...string) {
	c.defs = append(c.defs, definition{name, kind, help, labels})
}

func (c *catalogue) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	c.define("gauge", name, help, labels...)
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	c.reg.MustRegister(v)
	return v
}

func (c *catalogue) gauge(name, help string) prometheus.Gauge {
	c.define("gauge", name, help)
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	c.reg.MustRegister(g)
	return g
}

// counters has a series for each of values from the start, where the one label's values are known: the first error must be a rise, not a series
// that was never there.
func (c *catalogue) counters(name, help, label string, values ...string) *prometheus.CounterVec {
	c.define("counter", name, help, label)
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	for _, value := range values {
		v.WithLabelValues(value)
	}
	c.reg.MustRegister(v)
	return v
}

func (c *catalogue) counter(name, help string) prometheus.Counter {
	c.define("counter", name, help)
	n := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	c.reg.MustRegister(n)
	return n
}

func (c *catalogue) histogram(name, help string, buckets []float64) prometheus.Histogram {
	c.define("histogram", name, help)
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	c.reg.MustRegister(h)
	return h
}

func (c *catalogue) histograms(name, help string, buckets []float64, label string, values ...string) *prometheus.HistogramVec {
	c.define("histogram", name, help, label)
	v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{label})
	for _, value := range values {
		v.WithLabelValues(value)
	}
	c.reg.MustRegister(v)
	return v
}

// helpOf is the help of what was defined.
func (c *catalogue) helpOf(name string) string {
	return c.defs[slices.IndexFunc(c.defs, func(d definition) bool { return d.name == name })].help
}

// observe notes a value, and the trace in which it came about, if there is one.
func observe(o prometheus.Observer, v float64, trace string) {
	if e, ok := o.(prometheus.ExemplarObserver); ok && trace != "" {
		e.ObserveWithExemplar(v, prometheus.Labels{"trace_id": trace})
		return
	}
	o.Observe(v)
}

// bounded keeps the values of a label that an application chooses to a number: a label that takes whatever comes would be a series for each.
type bounded struct {
	most int
	seen map[string]bool
}

// other stands for the values beyond that number.
const other = "other"

func newBounded(most int, known ...string) *bounded {
	b := &bounded{most: most, seen: map[string]bool{}}
	for _, k := range known {
		b.seen[k] = true
	}
	return b
}

func (b *bounded) of(value string) string {
	if b.seen[value] {
		return value
	}
	if len(b.seen) >= b.most {
		return other
	}
	b.seen[value] = true
	return value
}

// Reference is the text of doc/metrics.md: every metric of a worker and of an audit that goes on, as the program has it.
func Reference() string {
	var b strings.Builder
	b.WriteString(`# Metrics

Made from the program (internal/telemetry): ` + "`go test ./internal/telemetry -run TestReference -args -rewrite`" + ` writes it anew. What to do about them is in
[operations.md](operations.md#alerts). Beside these there are those of Go's runtime (` + "`go_…`" + `) and of the process (` + "`process_…`" + `).

Labels take few values: partitions are those this worker owns, and go with them; error classes and reasons are at most ` + fmt.Sprint(maxClasses) + ` and ` + fmt.Sprint(maxReasons) + `,
what comes beyond is ` + "`" + other + "`" + `. Asked for OpenMetrics, as Prometheus does, histograms of transactions have exemplars: a trace id, where traces are on.
`)
	for _, part := range []struct {
		title string
		defs  []definition
	}{
		{"Of a worker", NewMetrics(Identity{}).defs},
		{"Of `exactly audit --follow`", NewAuditMetrics("").defs},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n| metric | type | labels | what it means |\n|---|---|---|---|\n", part.title)
		defs := slices.Clone(part.defs)
		slices.SortFunc(defs, func(a, b definition) int { return strings.Compare(a.name, b.name) })
		for _, d := range defs {
			labels := ""
			if len(d.labels) > 0 {
				labels = "`" + strings.Join(d.labels, "`, `") + "`"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", d.name, d.kind, labels, d.help)
		}
	}
	return b.String()
}
