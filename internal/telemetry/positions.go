package telemetry

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// positions tell how far each partition of this worker is: in Postgres, in Kafka, and against the log's end.
type positions struct {
	id                       Identity
	gap, lag, end, consumers *prometheus.GaugeVec
	partitions               prometheus.Gauge

	at  sync.Mutex
	of  map[int32]*position
	now func() time.Time
}

// position is one partition's.
type position struct {
	stored, group int64
	told          bool      // the two are known
	owed          []owed    // captures that are not published, the oldest first
	ledger        time.Time // when its newest ledger entry was written; zero: not known
	epoch         int64
	full          bool
}

// owed is up to where something was captured, and when this worker knew.
type owed struct {
	to int64
	at time.Time
}

// maxOwed bounds them: where more captures wait, the newer ones count as one.
const maxOwed = 256

func newPositions(c *catalogue, id Identity) *positions {
	return &positions{
		id: id, of: map[int32]*position{}, now: time.Now,
		gap: c.gauges("exactly_gap_records", "stored offset less group offset, what Kafka is owed", "partition"),
		lag: c.gauges("exactly_lag_records", "log end less stored offset, what waits to be captured; looked at every five seconds, and gone while Kafka does not answer", "partition"),
		end: c.gauges("exactly_log_end_offset", "where the input's log ends; how fast it moves is how fast clicks arrive", "partition"),
		consumers: c.gauges("kafka_consumer_lag", "log end less the group's committed offset, as Kafka's own tools tell it: lag and gap together; markers of producers' transactions count, so it need not reach 0",
			"topic", "partition", "group"),
		partitions: c.gauge("exactly_input_partitions", "how many partitions the input has, whoever owns them"),
	}
}

// known is what is known of a partition; the lock is held.
func (p *positions) known(partition int32) *position {
	o := p.of[partition]
	if o == nil {
		o = &position{}
		p.of[partition] = o
	}
	return o
}

// moved: one of the two offsets has.
func (p *positions) moved(partition int32, stored, group int64) {
	p.at.Lock()
	defer p.at.Unlock()
	o, at := p.known(partition), p.now()
	switch captured := stored > o.stored; {
	case !o.told: // what is owed already is no younger than the newest entry of the ledger
		if !o.ledger.IsZero() {
			at = o.ledger
		}
		o.owed = append(o.owed, owed{stored, at})
	case captured && len(o.owed) >= maxOwed:
		o.ledger, o.owed[len(o.owed)-1].to = at, stored
	case captured:
		o.ledger, o.owed = at, append(o.owed, owed{stored, at})
	}
	o.stored, o.group, o.told = stored, group, true
	done := 0
	for done < len(o.owed) && o.owed[done].to <= group {
		done++
	}
	o.owed = append(o.owed[:0], o.owed[done:]...)
	p.gap.WithLabelValues(label(partition)).Set(float64(stored - group))
}

// claimed: a partition is ours, its newest ledger entry was written at that time.
func (p *positions) claimed(partition int32, epoch int64, ledger time.Time) {
	p.at.Lock()
	defer p.at.Unlock()
	o := p.known(partition)
	o.epoch, o.ledger = epoch, ledger
}

func (p *positions) full(partition int32, full bool) {
	p.at.Lock()
	defer p.at.Unlock()
	p.known(partition).full = full
}

// ends takes where the input's partitions end; nil: nobody can say, and no lag is better than an old one. Partitions of other workers are left
// to them.
func (p *positions) ends(ends map[int32]int64) {
	p.at.Lock()
	defer p.at.Unlock()
	if ends == nil {
		p.lag.Reset()
		p.end.Reset()
		p.consumers.Reset()
		return
	}
	p.partitions.Set(float64(len(ends)))
	for partition, o := range p.of {
		end, ok := ends[partition]
		if !ok || !o.told { // claimed, and where it stands is not known yet
			continue
		}
		id := label(partition)
		p.end.WithLabelValues(id).Set(float64(end))
		p.lag.WithLabelValues(id).Set(float64(max(end-o.stored, 0))) // the end is the older look of the two
		p.consumers.WithLabelValues(p.id.Topic, id, p.id.Group).Set(float64(max(end-o.group, 0)))
	}
}

// forget drops what is known of a partition that is another worker's now.
func (p *positions) forget(partition int32) {
	p.at.Lock()
	defer p.at.Unlock()
	delete(p.of, partition)
	for _, v := range []*prometheus.GaugeVec{p.gap, p.lag, p.end, p.consumers} {
		v.DeletePartialMatch(prometheus.Labels{"partition": label(partition)})
	}
}
