package telemetry

import (
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// positions tell how far each partition of this worker is: in Postgres, in Kafka, and against the log's end.
type positions struct {
	gap, lag, end *prometheus.GaugeVec
	partitions    prometheus.Gauge

	at     sync.Mutex
	stored map[int32]int64
}

func newPositions() *positions {
	gauge := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, []string{"partition"})
	}
	return &positions{
		gap:        gauge("exactly_gap_records", "Stored offset less group offset: captured in Postgres and owed to Kafka, in offsets of the input."),
		lag:        gauge("exactly_lag_records", "Log end less stored offset: waiting to be captured, in offsets of the input."),
		end:        gauge("exactly_log_end_offset", "End of the input partition's log."),
		partitions: prometheus.NewGauge(prometheus.GaugeOpts{Name: "exactly_input_partitions", Help: "Partitions of the input topic, whoever owns them."}),
		stored:     map[int32]int64{},
	}
}

// Offsets implements engine.Observer.
func (p *positions) Offsets(partition int32, stored, group int64) {
	p.at.Lock()
	defer p.at.Unlock()
	p.stored[partition] = stored
	p.gap.WithLabelValues(strconv.Itoa(int(partition))).Set(float64(stored - group))
}

// LogEnds takes where the input's partitions end now; nil: nobody can say, and no lag is better than an old one. Partitions of other
// workers are left to them.
func (p *positions) LogEnds(ends map[int32]int64) {
	p.at.Lock()
	defer p.at.Unlock()
	if ends == nil {
		p.lag.Reset()
		p.end.Reset()
		return
	}
	p.partitions.Set(float64(len(ends)))
	for partition, stored := range p.stored {
		end, ok := ends[partition]
		if !ok {
			continue
		}
		id := strconv.Itoa(int(partition))
		p.end.WithLabelValues(id).Set(float64(end))
		p.lag.WithLabelValues(id).Set(float64(max(end-stored, 0))) // the end is the older look of the two
	}
}

// forget drops what is known of a partition that is another worker's now.
func (p *positions) forget(partition int32) {
	p.at.Lock()
	defer p.at.Unlock()
	delete(p.stored, partition)
	for _, v := range []*prometheus.GaugeVec{p.gap, p.lag, p.end} {
		v.DeleteLabelValues(strconv.Itoa(int(partition)))
	}
}
