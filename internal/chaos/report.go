package chaos

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/exactly-pipeline/exactly/audit"
)

// The verdicts.
const (
	Held     = "held"      // nothing was lost, doubled or different, nothing was stuck, every fault struck, every bar was met
	Broken   = "broken"    // the data are not what they have to be
	Missed   = "missed"    // the data are, but a fault did not strike, a recovery did not come about, or a bar was missed
	NotKnown = "not known" // it could not be decided
)

// Report is what a run says.
type Report struct {
	Verdict    string    `json:"verdict"`
	Why        []string  `json:"why"` // of any other verdict than held
	Seed       uint64    `json:"seed"`
	Began      time.Time `json:"began"`
	TookMs     int64     `json:"took_ms"`
	ScheduleMs int64     `json:"schedule_ms"` // until the schedule and the generator had ended
	What       string    `json:"what"`
	Versions   []Version `json:"versions"`
	SessionMs  int64     `json:"session_timeout_ms"`
	Workers    int       `json:"workers"`
	Partitions int       `json:"partitions"` // of the input, at the end

	Generated int64 `json:"clicks_generated"`
	Invalid   int64 `json:"clicks_broken_on_purpose"`

	Lost      int64 `json:"lost"`
	Doubled   int64 `json:"doubled"`
	Different int64 `json:"different"`
	Other     int64 `json:"otherwise_wrong"`
	Undecided int64 `json:"undecided"`
	Stuck     int64 `json:"stuck"` // faults not recovered from, and what the audit found owed or waiting

	Kinds      []KindCount `json:"kinds"`
	Points     []KindCount `json:"failpoints"`
	Takeover   Spread      `json:"takeover"`           // after a worker's sudden end, with all else in order
	TakeoverIn Spread      `json:"takeover_amid_more"` // the same, with something else struck at the same time: a store, the network, another worker
	BarMs      int64       `json:"takeover_bar_ms"`    // of Takeover at p99
	LongestMs  int64       `json:"longest_standstill_ms"`

	Faults  []*Fault      `json:"faults"`
	Samples []Sample      `json:"samples"`
	Notes   []string      `json:"notes"`
	Audit   *audit.Report `json:"audit"`

	unknown []string
}

// KindCount is one kind's faults and their recoveries.
type KindCount struct {
	Name      string `json:"name"`
	Planned   int    `json:"planned"`
	Struck    int    `json:"struck"` // confirmed
	Recovered Spread `json:"recovered"`
}

// Spread is how long something took, in ms.
type Spread struct {
	N      int   `json:"n"`
	Median int64 `json:"median_ms"`
	P99    int64 `json:"p99_ms"`
	Worst  int64 `json:"worst_ms"`
}

// Sample is one second: how many clicks were sent, captured and published by its end.
type Sample struct {
	S         int   `json:"s"`
	Sent      int64 `json:"sent"`
	Captured  int64 `json:"captured"`
	Published int64 `json:"published"`
}

func (c *Chaos) report() *Report {
	return &Report{
		Seed: c.opt.Seed, Began: c.begun.UTC(), What: c.opt.What, Versions: append(slices.Clone(c.opt.Versions), Version{"Go", runtime.Version()}),
		SessionMs: c.cfg.Kafka.SessionTimeout.Milliseconds(), BarMs: (c.cfg.Kafka.SessionTimeout + c.opt.Takeover).Milliseconds(), Why: []string{}, Notes: []string{},
	}
}

func (r *Report) undecided(format string, a ...any) {
	r.unknown = append(r.unknown, fmt.Sprintf(format, a...))
}

func (r *Report) finish(c *Chaos) *Report {
	r.TookMs = time.Since(c.begun).Milliseconds()
	r.Faults, r.Samples = c.faults, c.watch.samples(c.begun)
	c.watch.mu.Lock()
	r.LongestMs = c.watch.longest.Milliseconds()
	c.watch.mu.Unlock()
	c.mu.Lock()
	r.Notes = append(r.Notes, c.notes...)
	r.Workers = len(c.workers)
	c.mu.Unlock()
	r.Partitions = len(c.watch.last().Positions)
	r.count()
	r.judge()
	return r
}

// count sums the faults up.
func (r *Report) count() {
	kinds, points := map[string]*KindCount{}, map[string]*KindCount{}
	var times = map[*KindCount][]int64{}
	var alone, amid []int64
	add := func(m map[string]*KindCount, all *[]*KindCount, name string, f *Fault) {
		k := m[name]
		if k == nil {
			k = &KindCount{Name: name}
			m[name] = k
			*all = append(*all, k)
		}
		k.Planned++
		if f.Confirmed != "" {
			k.Struck++
		}
		if f.Recovered {
			times[k] = append(times[k], f.TookMs)
		}
	}
	var ks, ps []*KindCount
	for _, f := range r.Faults {
		add(kinds, &ks, string(f.Kind), f)
		if f.Point != "" {
			add(points, &ps, f.Point, f)
		}
		if f.TakeoverMs > 0 && (f.Kind == KillAt || f.Kind == KillAny || f.Kind == Memory) {
			if len(f.Beside) > 0 {
				amid = append(amid, f.TakeoverMs)
			} else {
				alone = append(alone, f.TakeoverMs)
			}
		}
		if f.Confirmed != "" && !f.Recovered {
			r.Stuck++
		}
	}
	sum := func(all []*KindCount) (out []KindCount) {
		slices.SortFunc(all, func(a, b *KindCount) int { return cmp.Compare(a.Name, b.Name) })
		for _, k := range all {
			k.Recovered = spread(times[k])
			out = append(out, *k)
		}
		return out
	}
	r.Kinds, r.Points = sum(ks), sum(ps)
	r.Takeover, r.TakeoverIn = spread(alone), spread(amid)
}

// spread takes the nearest ranks.
func spread(ms []int64) Spread {
	if len(ms) == 0 {
		return Spread{}
	}
	slices.Sort(ms)
	rank := func(q float64) int64 { return ms[int(math.Ceil(q*float64(len(ms))))-1] }
	return Spread{N: len(ms), Median: rank(0.5), P99: rank(0.99), Worst: ms[len(ms)-1]}
}

// judge decides on the verdict. What can't be decided is never a pass, and what is wrong is wrong whatever else can't be decided.
func (r *Report) judge() {
	var broken, missed []string
	if a := r.Audit; a != nil {
		r.Lost, r.Doubled, r.Different, r.Undecided = a.Found[audit.Missing], a.Found[audit.Duplicate], a.Found[audit.Different], a.Found[audit.Undecided]
		r.Stuck += a.Found[audit.Gap]
		for _, class := range audit.Classes {
			n := a.Found[class]
			switch class {
			case audit.Undecided:
				if n > 0 {
					r.undecided("%d events are hidden by an open transaction", n)
				}
			case audit.Missing, audit.Duplicate, audit.Different, audit.Gap:
			default:
				r.Other += n
			}
			if n > 0 && class != audit.Undecided {
				broken = append(broken, fmt.Sprintf("the audit found %d %s", n, strings.ReplaceAll(string(class), "_", " ")))
			}
		}
		if r.Generated > a.Totals.Input {
			broken = append(broken, fmt.Sprintf("%d clicks were acknowledged by Kafka, %d were captured", r.Generated, a.Totals.Input))
		}
		if a.Totals.Input == 0 {
			r.undecided("nothing was captured: nothing is proved")
		}
	} else if len(r.unknown) == 0 {
		r.undecided("nothing was audited")
	}
	for _, f := range r.Faults {
		switch {
		case f.Failed != "":
			missed = append(missed, fmt.Sprintf("fault %d (%s): %s", f.N, f.plan(), f.Failed))
		case f.Confirmed == "":
			missed = append(missed, fmt.Sprintf("fault %d (%s) was not seen to strike", f.N, f.plan()))
		}
	}
	if r.Takeover.N == 0 && r.Kills() > 0 { // nothing measured is no bar met
		missed = append(missed, "no takeover could be measured with all else in order")
	}
	if r.Takeover.P99 > r.BarMs {
		missed = append(missed, fmt.Sprintf("takeover took %.1f s at p99, more than %.1f s", seconds(r.Takeover.P99), seconds(r.BarMs)))
	}
	r.Why = append(append(append(r.Why, broken...), r.unknown...), missed...)
	switch {
	case len(broken) > 0:
		r.Verdict = Broken
	case len(r.unknown) > 0:
		r.Verdict = NotKnown
	case len(missed) > 0:
		r.Verdict = Missed
	default:
		r.Verdict = Held
	}
}

func seconds(ms int64) float64 { return float64(ms) / 1000 }

// Struck counts the confirmed faults of some kinds.
func (r *Report) Struck(kinds ...Kind) int {
	n := 0
	for _, f := range r.Faults {
		if f.Confirmed != "" && slices.Contains(kinds, f.Kind) {
			n++
		}
	}
	return n
}

// Kills counts the workers that were ended by SIGKILL, by faults that are that.
func (r *Report) Kills() int {
	n := 0
	for _, f := range r.Faults {
		n += f.SIGKILLs
	}
	return n
}

// samples are the states at whole seconds.
func (w *watch) samples(begun time.Time) []Sample {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := []Sample{}
	for _, s := range w.states {
		at := int(s.At.Sub(begun) / time.Second)
		sent, stored, published := s.Sums()
		sample := Sample{at, sent, stored, published}
		if n := len(out); n > 0 && out[n-1].S == at {
			out[n-1] = sample
			continue
		}
		out = append(out, sample)
	}
	return out
}
