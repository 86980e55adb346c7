package now

import "time"

// Rates are of all partitions together, clicks (offsets of the input) a second.
type Rates struct {
	Known        bool
	In           float64 // into the input topic
	Postgres     float64
	Kafka        float64
	InLine       []float64 // a value for each sample kept, the oldest first
	PostgresLine []float64
	KafkaLine    []float64

	PostgresLate Late // how long the oldest click that is not captured has waited
	KafkaLate    Late // likewise, for Kafka
}

// Late is a time, measured by when the input's end was where a sink is now.
type Late struct {
	Known   bool
	AtLeast bool // longer than it has been watched
	For     time.Duration
}

type sums struct{ end, stored, group int64 }

func (s *Sample) sums() (t sums) {
	for i := range s.Report.Partitions {
		p := &s.Report.Partitions[i]
		t.end += max(0, ended(p.StableEnd))
		t.stored += max(0, ended(p.Stored))
		t.group += max(0, published(p))
	}
	return t
}

// over is how long a rate is an average of.
const over = 5 * time.Second

func rates(samples []Sample) Rates {
	var r Rates
	n := len(samples)
	if n < 2 {
		return r
	}
	all := make([]sums, n)
	for i := range samples {
		all[i] = samples[i].sums()
	}
	per := func(i, j int, of func(sums) int64) float64 {
		d := samples[j].At.Sub(samples[i].At).Seconds()
		if d <= 0 {
			return 0
		}
		return max(0, float64(of(all[j])-of(all[i]))/d)
	}
	from := func(j int) int { // the sample that a rate at j is counted from
		i := j - 1
		for i > 0 && samples[j].At.Sub(samples[i].At) < over {
			i--
		}
		return i
	}
	in := func(s sums) int64 { return s.end }
	pg := func(s sums) int64 { return s.stored }
	kafka := func(s sums) int64 { return s.group }
	for j := 1; j < n; j++ {
		i := from(j)
		r.InLine = append(r.InLine, per(i, j, in))
		r.PostgresLine = append(r.PostgresLine, per(i, j, pg))
		r.KafkaLine = append(r.KafkaLine, per(i, j, kafka))
	}
	r.Known = true
	last := len(r.InLine) - 1
	r.In, r.Postgres, r.Kafka = r.InLine[last], r.PostgresLine[last], r.KafkaLine[last]
	r.PostgresLate = late(samples, func(s *Sample, i int) int64 { return ended(s.Report.Partitions[i].Stored) })
	r.KafkaLate = late(samples, func(s *Sample, i int) int64 { return published(&s.Report.Partitions[i]) })
	return r
}

// late is how long ago the input's end passed where the sink is now, of the partition that is latest.
func late(samples []Sample, at func(*Sample, int) int64) Late {
	worst := Late{Known: true}
	now := &samples[len(samples)-1]
	for i := range now.Report.Partitions {
		id, pos := now.Report.Partitions[i].Partition, at(now, i)
		if pos < 0 || now.Report.Partitions[i].StableEnd == nil || pos >= *now.Report.Partitions[i].StableEnd {
			continue
		}
		l := Late{Known: true, AtLeast: true, For: now.At.Sub(samples[0].At)}
		after := now // the oldest sample whose end is above pos
		for j := len(samples) - 1; j >= 0; j-- {
			end := endOf(&samples[j], id)
			if end < 0 {
				break
			}
			if end <= pos { // it was passed between this sample and the next
				l.AtLeast = false
				l.For = now.At.Sub(between(&samples[j], after, end, endOf(after, id), pos))
				break
			}
			after = &samples[j]
		}
		if l.For > worst.For {
			worst = l
		}
	}
	return worst
}

// between is when pos was passed, taking it that records came evenly.
func between(a, b *Sample, from, to, pos int64) time.Time {
	if to <= from {
		return b.At
	}
	return a.At.Add(time.Duration(float64(b.At.Sub(a.At)) * float64(pos-from) / float64(to-from)))
}

func endOf(s *Sample, partition int32) int64 {
	ps := s.Report.Partitions
	if i := int(partition); i < len(ps) && ps[i].Partition == partition { // they are in order, as a rule without holes
		return ended(ps[i].StableEnd)
	}
	for i := range ps {
		if ps[i].Partition == partition {
			return ended(ps[i].StableEnd)
		}
	}
	return -1
}
