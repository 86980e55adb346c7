package conformance

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// rule is one thing the pipeline leans on, and what holds a stack to it.
type rule struct {
	name  string
	leans string // why the pipeline leans on it, one sentence
	holds func(w *world)
	by    []string // the clients it is tried with: both, or neither
}

// A rule is tried with both of the pipeline's Kafka clients, or is about what goes over the wire, whoever sends it.
var (
	both = []string{"confluent", "franz"}
	wire = []string{""}
)

// difference is what a stack is known to do otherwise. It is asserted like the rule itself: where it has gone, the test fails, and the
// entry has to go too.
type difference struct {
	places  []string // stacks, or stack/client where only that client meets it
	rule    string
	point   string // of the rule, see world.is
	instead string // what is observed there
	why     string // and what it means for the pipeline, for doc/protocol.md
}

func (d *difference) on(stack, client string) bool {
	return slices.Contains(d.places, stack) || slices.Contains(d.places, stack+"/"+client)
}

// find is the difference that a stack is known to have at a point of a rule, nil for none.
func find(known []difference, stack, client, rule, point string) *difference {
	for i := range known {
		if d := &known[i]; d.on(stack, client) && d.rule == rule && d.point == point {
			return d
		}
	}
	return nil
}

// judge compares what was observed with the rule, or with the known difference.
func judge(known []difference, stack, client, rule, point, want, got string) error {
	d := find(known, stack, client, rule, point)
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
	result  string
	differs []difference // those that were met
}

// report collects outcomes in the order of the table.
type report struct {
	mu   sync.Mutex
	told map[string]outcome // by rule/client
}

func (r *report) tell(w *world) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.told == nil {
		r.told = map[string]outcome{}
	}
	r.told[w.rule.name+"/"+w.client] = w.outcome()
}

// checkTable finds what is wrong with the tables themselves.
func checkTable(rules []rule, known []difference, stacks []string) []string {
	var wrong []string
	names := map[string]bool{}
	for _, r := range rules {
		if names[r.name] {
			wrong = append(wrong, r.name+" is there twice")
		}
		if r.leans == "" || r.holds == nil || len(r.by) == 0 {
			wrong = append(wrong, r.name+" does not say why, or is not checked")
		}
		names[r.name] = true
	}
	seen := map[string]bool{}
	for _, d := range known {
		if !names[d.rule] {
			wrong = append(wrong, "a difference from a rule that does not exist: "+d.rule)
		}
		if d.why == "" || len(d.places) == 0 {
			wrong = append(wrong, "a difference without a reason, or on no stack: "+d.rule+", "+d.point)
		}
		for _, s := range d.places {
			stack, client, of := strings.Cut(s, "/")
			if !slices.Contains(stacks, stack) || of && !slices.Contains(both, client) {
				wrong = append(wrong, "a difference on a stack, or with a client, that does not exist: "+s)
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
		{places: []string{"embedded", "kafka3/franz"}, rule: "r", point: "p", instead: "other"},
		{places: []string{"embedded"}, rule: "r", point: "same", instead: "want"},
	}
	for _, c := range []struct{ stack, client, point, got, err string }{
		{"kafka", "", "p", "want", ""},
		{"kafka", "", "p", "other", "the rule says"},
		{"embedded", "", "p", "other", ""},
		{"embedded", "franz", "p", "other", ""},
		{"embedded", "", "p", "want", "take the difference out"},
		{"embedded", "", "p", "third", "is known to do"},
		{"embedded", "", "q", "want", ""},
		{"embedded", "", "q", "other", "the rule says"},
		{"embedded", "", "same", "want", "what the rule itself says"},
		{"kafka3", "franz", "p", "other", ""},
		{"kafka3", "franz", "p", "want", "take the difference out"},
		{"kafka3", "confluent", "p", "want", ""},
		{"kafka3", "confluent", "p", "other", "the rule says"},
	} {
		err := judge(known, c.stack, c.client, "r", c.point, "want", c.got)
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
	bad := []rule{{"a", "x", func(*world) {}, wire}, {"a", "x", func(*world) {}, wire}, {name: "b"}}
	odd := []difference{
		{places: []string{"mars"}, rule: "a", point: "p", why: "x"}, {places: []string{"kafka/mars"}, rule: "a", point: "p", why: "x"}, {rule: "c", why: "x"},
		{places: []string{"kafka"}, rule: "a", point: "p", why: "x"}, {places: []string{"kafka"}, rule: "a", point: "p", why: "x"},
	}
	require.Len(t, checkTable(bad, odd, stacks), 7)
}
