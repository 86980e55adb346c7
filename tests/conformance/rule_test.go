package conformance

import (
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// rule is one thing the pipeline leans on, and what holds a stack to it.
type rule struct {
	name  string
	leans string // why the pipeline leans on it, one sentence
	holds func(w *world)
}

// difference is what a stack is known to do otherwise. It is asserted like the rule itself: where it has gone, the test fails, and the
// entry has to go too.
type difference struct {
	stacks  []string
	rule    string
	point   string // of the rule, see world.is
	instead string // what is observed there
	why     string // and what it means for the pipeline, for doc/protocol.md
}

func (d *difference) on(stack string) bool {
	for _, s := range d.stacks {
		if s == stack {
			return true
		}
	}
	return false
}

// find is the difference that a stack is known to have at a point of a rule, nil for none.
func find(known []difference, stack, rule, point string) *difference {
	for i := range known {
		if d := &known[i]; d.on(stack) && d.rule == rule && d.point == point {
			return d
		}
	}
	return nil
}

// judge compares what was observed with the rule, or with the known difference.
func judge(known []difference, stack, rule, point, want, got string) error {
	d := find(known, stack, rule, point)
	switch {
	case d == nil && got == want:
		return nil
	case d == nil:
		return fmt.Errorf("%s: %s: the rule says %q, %s does %q", rule, point, want, stack, got)
	case d.instead == want:
		return fmt.Errorf("%s: %s: differs has what the rule itself says, %q", rule, point, want)
	case got == d.instead:
		return nil
	case got == want:
		return fmt.Errorf("%s: %s: %s now does as the rule says, %q: take the difference out of the table, and out of doc/protocol.md", rule, point, stack, want)
	default:
		return fmt.Errorf("%s: %s: the rule says %q, %s is known to do %q, but does %q", rule, point, want, stack, d.instead, got)
	}
}

// outcome is what a run says of one rule, for the list at its end.
type outcome struct {
	rule    *rule
	result  string
	differs []string // the points of known differences that were met
}

// report collects outcomes in the order of the table.
type report struct {
	mu   sync.Mutex
	told map[string]outcome
}

func (r *report) tell(o outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told == nil {
		r.told = map[string]outcome{}
	}
	r.told[o.rule.name] = o
}

// checkTable finds what is wrong with the tables themselves.
func checkTable(rules []rule, known []difference, stacks []string) []string {
	var wrong []string
	names := map[string]bool{}
	for _, r := range rules {
		if names[r.name] {
			wrong = append(wrong, r.name+" is there twice")
		}
		if r.leans == "" || r.holds == nil {
			wrong = append(wrong, r.name+" does not say why, or is not checked")
		}
		names[r.name] = true
	}
	seen := map[string]bool{}
	for _, d := range known {
		if !names[d.rule] {
			wrong = append(wrong, "a difference from a rule that does not exist: "+d.rule)
		}
		if d.why == "" || len(d.stacks) == 0 {
			wrong = append(wrong, "a difference without a reason, or on no stack: "+d.rule+", "+d.point)
		}
		for _, s := range d.stacks {
			known := false
			for _, k := range stacks {
				known = known || s == k
			}
			if !known {
				wrong = append(wrong, "a difference on a stack that does not exist: "+s)
			}
			if key := s + "/" + d.rule + "/" + d.point; seen[key] {
				wrong = append(wrong, "two differences at one point: "+key)
			} else {
				seen[key] = true
			}
		}
	}
	return wrong
}

// The judge can fail, in each of the ways there are.
func TestJudge(t *testing.T) {
	known := []difference{
		{stacks: []string{"embedded"}, rule: "r", point: "p", instead: "other"},
		{stacks: []string{"embedded"}, rule: "r", point: "same", instead: "want"},
	}
	for _, c := range []struct{ stack, point, got, err string }{
		{"kafka", "p", "want", ""},
		{"kafka", "p", "other", "the rule says"},
		{"embedded", "p", "other", ""},
		{"embedded", "p", "want", "take the difference out"},
		{"embedded", "p", "third", "is known to do"},
		{"embedded", "q", "want", ""},
		{"embedded", "q", "other", "the rule says"},
		{"embedded", "same", "want", "what the rule itself says"},
	} {
		err := judge(known, c.stack, "r", c.point, "want", c.got)
		if c.err == "" {
			require.NoError(t, err, "%+v", c)
		} else {
			require.ErrorContains(t, err, c.err, "%+v", c)
		}
	}
}

// The tables are sound, and what is unsound in one is found.
func TestTables(t *testing.T) {
	require.Empty(t, checkTable(allRules(), differs, stacks))
	bad := []rule{{name: "a", leans: "x", holds: func(*world) {}}, {name: "a", leans: "x", holds: func(*world) {}}, {name: "b"}}
	odd := []difference{
		{stacks: []string{"mars"}, rule: "a", point: "p", why: "x"}, {rule: "c", why: "x"},
		{stacks: []string{"kafka"}, rule: "a", point: "p", why: "x"}, {stacks: []string{"kafka"}, rule: "a", point: "p", why: "x"},
	}
	require.Len(t, checkTable(bad, odd, stacks), 6)
}
