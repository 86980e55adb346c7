package audit

import (
	"fmt"
	"regexp"
	"strconv"
)

// shortfall is what a heal of Kafka's topics could not bring back, or brought back behind later events: its ledger entry vouches for it, with who and
// why, as one vouches for an accepted loss.
type shortfall struct {
	topic    string
	from, to int64
	late     bool // there, but out of order
	seq      int64
	who, why string
	events   int64
}

// A heal says it at the very end of its entry's reason, behind whatever a person wrote.
const ranges = `((?:[\w.-]+ \[\d+,\d+\)(?:, )?)+)`

var (
	shortEnd = regexp.MustCompile(`(?:; not brought back: ` + ranges + `)?(?:; out of order: ` + ranges + `)?\)$`)
	oneRange = regexp.MustCompile(`([\w.-]+) \[(\d+),(\d+)\)`)
)

// shortOf keeps what an entry of a heal says it could not do.
func (p *partition) shortOf(e *entry) {
	said := shortEnd.FindStringSubmatch(e.why)
	if e.kind != "heal" || said == nil {
		return
	}
	for i, list := range said[1:] {
		for _, m := range oneRange.FindAllStringSubmatch(list, -1) {
			from, err1 := strconv.ParseInt(m[2], 10, 64)
			to, err2 := strconv.ParseInt(m[3], 10, 64)
			if err1 == nil && err2 == nil {
				p.short = append(p.short, shortfall{topic: m[1], from: from, to: min(to, e.from), late: i == 1, seq: e.seq, who: e.who, why: e.why})
			}
		}
	}
}

// excused says whether a heal's entry vouches for what is wrong with an event, and counts it. The partition is locked, or nobody else is at it.
func (p *partition) excused(topic string, offset int64, late bool) bool {
	for i := range p.short {
		if s := &p.short[i]; s.topic == topic && s.late == late && s.from <= offset && offset < s.to {
			s.events++
			return true
		}
	}
	return false
}

// excuses are the notes on what was excused.
func (p *partition) excuses(input string) (notes []string) {
	if p.erasedGone > 0 {
		notes = append(notes, fmt.Sprintf("%s/%d: the events of %d records that were erased are in no topic any more", input, p.id, p.erasedGone))
	}
	for i := range p.short {
		s := &p.short[i]
		what := "are not in"
		if s.late {
			what = "stand behind later ones in"
		}
		if s.events > 0 {
			notes = append(notes, fmt.Sprintf("%s/%d: %d events of [%d,%d) %s %s: a heal (seq %d) could not do better, by %s: %s", input, p.id, s.events, s.from, s.to, what, s.topic, s.seq, s.who, s.why))
		}
	}
	return notes
}
