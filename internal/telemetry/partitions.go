package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/exactly-pipeline/exactly/engine"
)

// partitions are the metrics that are worked out when they are asked for: ages, and why partitions are paused. It implements
// prometheus.Collector.
type partitions struct {
	m                                 *Metrics
	age, drain, epoch, ledger, paused *prometheus.Desc
}

// Why a partition is paused, besides the reasons of transient failures.
const (
	pausedHeld      = "held"
	pausedStopped   = "stopped"
	pausedProducer  = "no-producer"
	pausedFull      = "backpressure"
	pausedClaimed   = "taken over" // on its way from assigned to consuming
	pausedWithdrawn = "given up"   // on its way out
)

var pausedReasons = []string{pausedHeld, pausedStopped, pausedProducer, pausedFull, pausedClaimed, pausedWithdrawn,
	engine.ReasonPostgres, engine.ReasonKafka, engine.ReasonHandler}

func newPartitions(m *Metrics) *partitions {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		m.define("gauge", name, help, labels...)
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &partitions{m,
		desc("exactly_gap_age_seconds", "how long the oldest capture that Kafka is owed has been waiting; 0: nothing is owed", "partition"),
		desc("exactly_drain_remaining_records", "what is left of a gap that another life left, in offsets; 0: nothing is being drained", "partition"),
		desc("exactly_partition_epoch", "the epoch under which this worker has the partition; it rises with each claim", "partition"),
		desc("exactly_ledger_age_seconds", "how long ago the partition's newest ledger entry was written", "partition"),
		desc("exactly_paused_partitions", "partitions of this worker that are not fetched, by reason: `held`, `stopped`, `no-producer`, `backpressure` (enough is buffered), "+
			"`taken over` (on its way to work), `given up`, and the reasons of transient failures", "reason"),
	}
}

// Describe implements prometheus.Collector.
func (p *partitions) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{p.age, p.drain, p.epoch, p.ledger, p.paused} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (p *partitions) Collect(out chan<- prometheus.Metric) {
	states, waiting := p.m.Health.standing()
	gauge := func(d *prometheus.Desc, v float64, l string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, l)
	}
	full := map[int32]bool{}
	p.m.at.Lock()
	now := p.m.now()
	for id, o := range p.m.of {
		full[id] = o.full
		if _, ours := states[id]; !ours {
			continue
		}
		gauge(p.age, o.age(now), label(id))
		left := 0.0
		if states[id] == engine.Draining {
			left = float64(max(o.stored-o.group, 0))
		}
		gauge(p.drain, left, label(id))
		gauge(p.epoch, float64(o.epoch), label(id))
		if !o.ledger.IsZero() {
			gauge(p.ledger, max(now.Sub(o.ledger), 0).Seconds(), label(id)) // Postgres' clock may be ahead
		}
	}
	p.m.at.Unlock()
	count := map[string]int{}
	for _, r := range pausedReasons {
		count[r] = 0
	}
	for id, s := range states {
		if why := pausedBy(s, waiting[id], full[id]); why != "" {
			count[why]++
		}
	}
	for r, n := range count {
		gauge(p.paused, float64(n), r)
	}
}

func (o *position) age(now time.Time) float64 {
	if len(o.owed) == 0 {
		return 0
	}
	return max(now.Sub(o.owed[0].at), 0).Seconds()
}

// pausedBy says why a partition is paused; "": it is not.
func pausedBy(s engine.State, waiting string, full bool) string {
	switch {
	case s == engine.Held:
		return pausedHeld
	case s == engine.Stopped:
		return pausedStopped
	case s == engine.Consuming && full:
		return pausedFull
	case s == engine.Consuming:
		return ""
	case waiting != "":
		return waiting
	case s == engine.NoProducer:
		return pausedProducer
	case s == engine.Withdrawing:
		return pausedWithdrawn
	}
	return pausedClaimed
}
