package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/exactly-pipeline/exactly/engine"
)

// trace is what happened, as a hash, and in words where somebody wants to read it.
type trace struct {
	h       uint64
	verbose bool
	text    *strings.Builder
}

func newTrace(verbose bool) trace {
	return trace{h: 14695981039346656037, verbose: verbose, text: &strings.Builder{}}
}

// mix is FNV-1a, a word at a time.
func (t *trace) mix(v uint64) { t.h = (t.h ^ v) * 1099511628211 }

func (t *trace) hash() uint64   { return t.h }
func (t *trace) String() string { return t.text.String() }

func (t *trace) line(at time.Duration, l string) {
	fmt.Fprintf(t.text, "%12.6f %s\n", at.Seconds(), l)
}

// say notes one thing that happened to w (nil: to the world).
func (s *sim) say(w *worker, what string, a, b int64) {
	t := &s.trace
	t.mix(uint64(s.now))
	if w != nil {
		t.mix(uint64(w.n))
	}
	for i := 0; i < len(what); i++ {
		t.mix(uint64(what[i]))
	}
	t.mix(uint64(a))
	t.mix(uint64(b))
	if t.verbose {
		name := "world"
		if w != nil {
			name = w.name()
		}
		t.line(s.now, fmt.Sprintf("%-6s %s %d %d", name, what, a, b))
	}
}

// detail adds words to a trace that is kept; they are not in the hash.
func (s *sim) detail(format string, a ...any) {
	if s.trace.verbose {
		s.trace.line(s.now, "         "+fmt.Sprintf(format, a...))
	}
}

// note is a change of a partition's state in a worker.
type note struct {
	w     *worker
	part  int32
	state engine.State
}

func (s *sim) noted(n note) {
	if n.w.dead {
		return
	}
	n.w.states[n.part] = n.state
	s.truth.changed = true
	s.say(n.w, string(n.state), int64(n.part), 0)
	if n.state == engine.Draining {
		s.drains(n.part)
	}
	if n.state == engine.Stopped {
		s.halted |= 1 << n.part
	}
	if n.state == engine.Stopped && s.p.disaster == nil {
		s.broke("false alarm", "partition %d: %s stopped it, and nothing is wrong that a person would have to mend", n.part, n.w.name())
	}
}
