package telemetry

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// stores are what a worker asks besides Postgres and Kafka: the registry and the geo database.
type stores struct {
	requests *prometheus.CounterVec
	took     prometheus.Histogram
	dropped  prometheus.Counter
}

// How requests to the registry end.
const (
	registryOK       = "ok"
	registryNotFound = "not found"
	registryError    = "error" // it answers with another status
	registryAway     = "away"  // it does not answer, or refuses us
)

func newStores(c *catalogue) *stores {
	c.define("gauge", geoBuilt, "when the geo database was built, Unix time")
	c.define("counter", geoLookedUp, "look-ups of addresses in the geo database, by whether it had a country: `found`, `none`", "outcome")
	return &stores{
		requests: c.counters("exactly_registry_requests_total", "requests to the schema registry, by how they ended: `ok`, `not found`, `error` (another status), `away` (no answer, or refused)",
			"outcome", registryOK, registryNotFound, registryError, registryAway),
		took:    c.histogram("exactly_registry_request_seconds", "how long the schema registry takes to answer", prometheus.ExponentialBuckets(0.001, 2, 13)),
		dropped: c.counter("exactly_log_lines_dropped_total", "log lines left out, being too many of one text in a second (`log.burst`)"),
	}
}

// Dropped counts a log line that was left out.
func (s *stores) Dropped() { s.dropped.Inc() }

// Registry is next, with each request counted.
func (s *stores) Registry(next http.RoundTripper) http.RoundTripper { return &watchedRegistry{next, s} }

type watchedRegistry struct {
	next http.RoundTripper
	s    *stores
}

func (r *watchedRegistry) RoundTrip(req *http.Request) (*http.Response, error) {
	start := time.Now()
	res, err := r.next.RoundTrip(req)
	r.s.took.Observe(time.Since(start).Seconds())
	outcome := registryAway
	switch {
	case err != nil:
	case res.StatusCode == http.StatusNotFound:
		outcome = registryNotFound
	case res.StatusCode >= http.StatusBadRequest:
		outcome = registryError
	default:
		outcome = registryOK
	}
	r.s.requests.WithLabelValues(outcome).Inc()
	return res, err
}

// CloseIdleConnections is asked for by http.Client.
func (r *watchedRegistry) CloseIdleConnections() {
	if c, ok := r.next.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// Geo tells of the geo database in use: when it was built, and how many look-ups found a country, and none.
func (m *Metrics) Geo(built time.Time, lookups func() (found, none int64)) {
	m.reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: geoBuilt, Help: m.helpOf(geoBuilt)}, func() float64 { return float64(built.Unix()) }),
		&geoLookups{prometheus.NewDesc(geoLookedUp, m.helpOf(geoLookedUp), []string{"outcome"}, nil), lookups},
	)
}

const (
	geoBuilt    = "exactly_geo_database_build_timestamp_seconds"
	geoLookedUp = "exactly_geo_lookups_total"
)

type geoLookups struct {
	desc *prometheus.Desc
	of   func() (found, none int64)
}

// Describe implements prometheus.Collector.
func (g *geoLookups) Describe(out chan<- *prometheus.Desc) { out <- g.desc }

// Collect implements prometheus.Collector.
func (g *geoLookups) Collect(out chan<- prometheus.Metric) {
	found, none := g.of()
	out <- prometheus.MustNewConstMetric(g.desc, prometheus.CounterValue, float64(found), "found")
	out <- prometheus.MustNewConstMetric(g.desc, prometheus.CounterValue, float64(none), "none")
}
