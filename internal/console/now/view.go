package now

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/exactly-pipeline/exactly/internal/offsets"
)

// View is what is shown of this moment.
type View struct {
	At      time.Time // of the last look that went well; zero: there was none
	Age     time.Duration
	Err     string // why there is no newer one
	Failing time.Duration
	Group   string
	Topic   string
	Notes   []string
	Strips  []Strip
	Span    int64 // offsets from the left to the right edge of every strip
	Rates   Rates
	Lag     int64 // of all partitions
	Gap     int64
	Paused  []Paused
	Events  []Event // the newest first
	Workers []Worker
}

// Strip is one partition.
type Strip struct {
	Partition          int32
	End, Stored, Group int64 // -1: there is none
	Pending            bool  // an open transaction is about to move the group offset
	Gap, Lag           int64
	Owner, Assigned    string
	Epoch              int64
	State              string // for people
	Tone               string // good, busy, warn, bad, idle
	Why                string // of states that need a word
	Taken              bool   // claimed within the last seconds
}

// Paused is why a partition does not go on.
type Paused struct {
	Partitions []int32
	State      string
	Why        string
}

// Worker is a member of the group, or an owner that is none any more.
type Worker struct {
	Name       string
	Partitions int
	Member     bool
}

// view makes what is shown of what is known. mu is held.
func (w *Watcher) view(now time.Time) *View {
	v := &View{}
	if w.err != nil {
		v.Err, v.Failing = w.err.Error(), now.Sub(w.failing)
	}
	for i := len(w.events) - 1; i >= 0; i-- {
		v.Events = append(v.Events, w.events[i])
	}
	n := len(w.samples)
	if n == 0 {
		return v
	}
	s := &w.samples[n-1]
	v.At, v.Age, v.Group, v.Topic, v.Notes = s.At, now.Sub(s.At), s.Report.Group, s.Report.Topic, s.Report.Notes
	v.Rates = rates(w.samples)
	for i := range s.Report.Partitions {
		p := &s.Report.Partitions[i]
		strip := w.strip(p, s.At, len(v.Notes) > 0)
		v.Strips = append(v.Strips, strip)
		v.Span = max(v.Span, behind(p))
		v.Lag += max(0, strip.Lag)
		v.Gap += max(0, strip.Gap)
	}
	v.Span = round(v.Span)
	v.Paused, v.Workers = paused(v.Strips), workers(s.Report)
	return v
}

func (w *Watcher) strip(p *offsets.Position, at time.Time, blocked bool) Strip {
	s := Strip{Partition: p.Partition, End: ended(p.StableEnd), Stored: ended(p.Stored), Group: published(p), Pending: p.Pending, Owner: p.Owner, Assigned: p.Assigned}
	if p.Epoch != nil {
		s.Epoch = *p.Epoch
	}
	if p.Lag != nil {
		s.Lag = *p.Lag
	}
	if s.Stored >= 0 && s.Group >= 0 {
		s.Gap = s.Stored - s.Group
	}
	for i := len(w.events) - 1; i >= 0 && at.Sub(w.events[i].At) < takeoverSeen; i-- {
		s.Taken = s.Taken || w.events[i].Partition == p.Partition && w.events[i].Kind == "claimed"
	}
	still := at.Sub(w.moved[p.Partition]).Truncate(time.Second)
	switch {
	case p.Stored == nil:
		s.State, s.Tone = "not started", "idle"
	case p.State == "held":
		s.State, s.Tone, s.Why = "held", "bad", fmt.Sprintf("by %s since %s: %s", p.HeldBy, p.HeldSince.Format("15:04:05 UTC"), p.HeldWhy)
	case len(odd(p, still)) > 0:
		s.State, s.Tone, s.Why = "stopped", "bad", strings.Join(odd(p, still), "; ")
	case blocked:
		s.State, s.Tone, s.Why = "stopped", "bad", "see the note above"
	case p.Assigned == "":
		s.State, s.Tone, s.Why = "no owner", "warn", "no member of the group has it"
	case len(p.Claimants) > 0:
		s.State, s.Tone, s.Why = "taking over", "busy", p.Claimants[len(p.Claimants)-1]+" publishes what Kafka is owed"
	case p.Owner != "" && p.Assigned != p.Owner:
		s.State, s.Tone, s.Why = "taking over", "busy", p.Assigned+" is to claim it"
	case behind(p) > 0 && still >= 3*time.Second:
		s.State, s.Tone = fmt.Sprintf("still for %s", still), "warn"
		s.Why = p.Assigned + " has it and does not move it: is it frozen, or a store away?"
	case behind(p) > 0 || at.Sub(w.came[p.Partition]) < 5*time.Second:
		s.State, s.Tone = "at work", "good"
	default:
		s.State, s.Tone = "up to date", "good"
	}
	return s
}

// odd is what stops a partition until a person has decided. Between the first capture and the first publish there is no group offset either.
func odd(p *offsets.Position, still time.Duration) (why []string) {
	for _, n := range p.Notes {
		first := n == "group offset gone" && still < 3*time.Second
		if !first && !strings.HasPrefix(n, "held by") && !strings.HasPrefix(n, "handled with care") {
			why = append(why, n)
		}
	}
	return why
}

// round is the next number of 1, 2, 5 and zeros, 100 at least.
func round(n int64) int64 {
	for step := int64(100); ; step *= 10 {
		for _, f := range []int64{1, 2, 5} {
			if n <= f*step {
				return f * step
			}
		}
	}
}

// paused gathers partitions that stand for the same reason.
func paused(strips []Strip) (out []Paused) {
	for i := range strips {
		s := &strips[i]
		if s.Tone != "bad" && s.Tone != "warn" {
			continue
		}
		why := s.Why
		if j := slices.IndexFunc(out, func(p Paused) bool { return p.State == s.State && p.Why == why }); j >= 0 {
			out[j].Partitions = append(out[j].Partitions, s.Partition)
			continue
		}
		out = append(out, Paused{[]int32{s.Partition}, s.State, why})
	}
	return out
}

func workers(rep *offsets.Report) (out []Worker) {
	note := func(name string, member bool) {
		if name == "" {
			return
		}
		i := slices.IndexFunc(out, func(w Worker) bool { return w.Name == name })
		if i < 0 {
			out = append(out, Worker{Name: name})
			i = len(out) - 1
		}
		if member {
			out[i].Member = true
			out[i].Partitions++
		}
	}
	for i := range rep.Partitions {
		note(rep.Partitions[i].Assigned, true)
	}
	for i := range rep.Partitions {
		note(rep.Partitions[i].Owner, false)
	}
	slices.SortFunc(out, func(a, b Worker) int { return strings.Compare(a.Name, b.Name) })
	return out
}
