package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// walk is one way through the machine, with what a faithful shell would still owe it: the completions of the actions asked for, and
// the release of a revoke whose callback waits.
type walk struct {
	p       Partition
	pending []Event // completions under way, of the current life
	publish []int64 // captured, not yet published: up to here, in order
	drain   bool    // a part of the gap is on its way
	owed    bool    // a revoked or lost callback waits for its release
	path    []string
}

func (w *walk) clone() *walk {
	c := *w
	c.pending, c.publish, c.path = slices.Clone(w.pending), slices.Clone(w.publish), slices.Clone(w.path)
	return &c
}

// key is the state without what only counts: lives and attempts.
func (w *walk) key() string {
	p := w.p
	var kinds []string
	for _, e := range w.pending {
		kinds = append(kinds, string(e.Kind))
	}
	slices.Sort(kinds)
	return fmt.Sprint(p.State, p.Assigned, p.producerUp, p.Epoch, p.Doubt, p.Next, p.Published, p.Floor, p.Captured, p.Reason != "",
		kinds, w.publish, w.drain, w.owed)
}

// claims and looks are what the stores may say: small numbers are enough for every comparison in the machine.
func claims() []Claim {
	var out []Claim
	for next := range int64(3) {
		for floor := range next + 1 {
			out = append(out, Claim{Epoch: 1, Next: next, Floor: floor}, Claim{Epoch: 1, Next: next, Floor: floor, Captured: true, Predecessors: []string{"a"}},
				Claim{Epoch: 2, Next: next, Floor: floor, Captured: true})
		}
	}
	return out
}

func looks() []Look {
	out := []Look{{LogEnd: 9, EpochEnd: -1}, {LogEnd: 0, EpochEnd: -1}, {LogStart: 2, LogEnd: 9, EpochEnd: -1}, {LogEnd: 9, EpochEnd: 1}, {Changed: "recreated"}}
	for o := range int64(4) {
		out = append(out, Look{HasOffset: true, Ours: true, Offset: o, LogEnd: 9, EpochEnd: -1}, Look{HasOffset: true, Offset: o, LogEnd: 9, EpochEnd: -1})
	}
	return out
}

// possible are the events that may come now.
func (w *walk) possible() []Event {
	var out []Event
	for _, e := range w.pending {
		switch e.Kind {
		case EvClaimed:
			for _, c := range claims() {
				out = append(out, Event{Kind: EvClaimed, Life: e.Life, Claim: c})
			}
			out = append(out, Event{Kind: EvUnclaimed, Life: e.Life}, Event{Kind: EvHeld, Life: e.Life, Why: "held"}, Event{Kind: EvFailed, Life: e.Life})
		case EvLooked:
			for _, l := range looks() {
				out = append(out, Event{Kind: EvLooked, Life: e.Life, Look: l})
			}
			out = append(out, Event{Kind: EvUnstable, Life: e.Life}, Event{Kind: EvFailed, Life: e.Life})
		case EvScanned:
			for to := range int64(4) {
				out = append(out, Event{Kind: EvScanned, Life: e.Life, To: to})
			}
			out = append(out, Event{Kind: EvFailed, Life: e.Life})
		case EvFenced, EvStarted:
			out = append(out, e, Event{Kind: EvFailed, Life: e.Life})
		default:
			out = append(out, e)
		}
	}
	life := w.p.Life
	if w.drain {
		for to := min(w.p.Published+1, w.p.Next); to <= w.p.Next; to++ { // an empty gap sets a group offset that was gone
			out = append(out, Event{Kind: EvPublished, Life: life, To: to})
		}
	}
	if len(w.publish) > 0 {
		out = append(out, Event{Kind: EvPublished, Life: life, To: w.publish[0]})
	}
	if w.p.State == Consuming {
		out = append(out, Event{Kind: EvRefused, Life: life})
		if w.p.Next < 4 {
			out = append(out, Event{Kind: EvCaptured, Life: life, To: w.p.Next + 1})
		}
	}
	if w.p.State != Unassigned { // the source reports an error, a capture's outcome is unknown, a topic was recreated: at any time
		out = append(out, Event{Kind: EvFailed, Life: life}, Event{Kind: EvBroken, Life: life, Why: "recreated"})
	}
	switch { // the callback holds the poll until the release, so that nothing else of the group's comes before it
	case w.owed:
	case w.p.Assigned:
		out = append(out, Event{Kind: EvRevoked}, Event{Kind: EvLost}, Event{Kind: EvAssigned})
	default:
		out = append(out, Event{Kind: EvAssigned}, Event{Kind: EvRevoked})
	}
	if w.p.producerUp {
		out = append(out, Event{Kind: EvProducerLost})
	} else {
		out = append(out, Event{Kind: EvProducerReady})
	}
	return out
}

// answers is what each action reports when it is done.
var answers = map[ActionKind]EventKind{
	DoClaim: EvClaimed, DoLook: EvLooked, DoStart: EvStarted, DoFence: EvFenced, DoScan: EvScanned, DoWithdraw: EvWithdrawn, DoRetry: EvRetry, DoStop: EvRetry,
}

// step takes one event and checks what must hold of every step.
func (w *walk) step(t *testing.T, e Event) {
	before := w.p
	if e.Kind == EvRevoked || e.Kind == EvLost {
		w.owed = true
	}
	i := slices.IndexFunc(w.pending, func(x Event) bool {
		return x.Kind == e.Kind || x.Kind == EvClaimed && (e.Kind == EvUnclaimed || e.Kind == EvHeld) || x.Kind == EvLooked && e.Kind == EvUnstable
	})
	if i >= 0 && e.Life != 0 {
		w.pending = slices.Delete(w.pending, i, i+1)
	}
	if e.Kind == EvPublished && before.State == Consuming {
		w.publish = w.publish[1:]
	}
	actions := w.p.Step(e)
	w.path = append(w.path, fmt.Sprintf("%s %v -> %s %v", e.Kind, e.To, w.p.State, actions))
	fail := func(format string, a ...any) {
		t.Helper()
		require.Fail(t, fmt.Sprintf(format, a...), "the way there:\n%s", strings.Join(w.path, "\n"))
	}
	if w.p.Life != before.Life { // what was under way under the old life is stale now
		w.pending, w.publish, w.drain = nil, nil, false
	}
	for _, a := range actions {
		if a.Life != w.p.Life {
			fail("%s of life %d, the partition is in %d", a, a.Life, w.p.Life)
		}
		if k, ok := answers[a.Kind]; ok {
			w.pending = append(w.pending, Event{Kind: k, Life: a.Life})
		}
		switch a.Kind {
		case DoConsume:
			if w.p.Published != w.p.Next || a.From != w.p.Next || w.p.State != Consuming {
				fail("consume from %d with published %d, next %d", a.From, w.p.Published, w.p.Next)
			}
			w.drain = false
		case DoDrain:
			if a.From > a.To || a.To != w.p.Next || w.p.State != Draining {
				fail("drain [%d,%d), next %d", a.From, a.To, w.p.Next)
			}
			w.drain = true
		case DoPublish:
			if before.State != Consuming || w.p.State != Consuming {
				fail("publish while %s", before.State)
			}
			w.publish = append(w.publish, w.p.Next)
		case DoRelease:
			if !w.owed {
				fail("a release nobody waits for")
			}
			if w.p.State != Unassigned || w.p.Assigned {
				fail("released while %s", w.p.State)
			}
			w.owed = false
		}
	}
	if w.p.Published > w.p.Next && w.p.Epoch != 0 && (w.p.State == Consuming || w.p.State == Draining) {
		fail("Kafka is ahead of Postgres: %d > %d", w.p.Published, w.p.Next)
	}
	if why := w.stuck(); why != "" {
		fail("stuck: %s", why)
	}
}

// stuck says why nothing that is under way can ever take the partition further.
func (w *walk) stuck() string {
	pending := func(k EventKind) bool {
		return slices.ContainsFunc(w.pending, func(e Event) bool { return e.Kind == k && e.Life == w.p.Life })
	}
	waits := map[State]EventKind{
		Claiming: EvClaimed, Looking: EvLooked, Starting: EvStarted, Fencing: EvFenced, Scanning: EvScanned, Withdrawing: EvWithdrawn,
		Waiting: EvRetry, Held: EvRetry, Stopped: EvRetry,
	}
	switch k, ok := waits[w.p.State]; {
	case ok && !pending(k):
		return fmt.Sprintf("%s, and no %s will come", w.p.State, k)
	case w.owed && w.p.State != Withdrawing:
		return fmt.Sprintf("a rebalance waits for the release, and the partition is %s", w.p.State)
	case w.p.State == Draining && !w.drain:
		return "draining, and nothing of the gap is on its way"
	case w.p.State == NoProducer && w.p.producerUp:
		return "waits for a producer that is there"
	case w.p.State == Unassigned && w.p.Assigned:
		return "assigned, and nobody claims it"
	}
	return ""
}

// TestEveryState walks from the first state to every state that can be reached, by every event that may come there. A stale event
// of every kind is tried in each of them.
func TestEveryState(t *testing.T) {
	start := &walk{p: *NewPartition(7)}
	seen := map[string]bool{start.key(): true}
	steps := 0
	for queue := []*walk{start}; len(queue) > 0; queue = queue[1:] {
		w := queue[0]
		ignoresStale(t, w)
		for _, e := range w.possible() {
			next := w.clone()
			next.step(t, e)
			steps++
			if k := next.key(); !seen[k] {
				seen[k] = true
				queue = append(queue, next)
			}
		}
	}
	t.Logf("%d states, %d steps", len(seen), steps)
	require.Greater(t, len(seen), 300, "the walk did not get far")
}

// lived are the events that carry a life.
var lived = []EventKind{
	EvClaimed, EvUnclaimed, EvHeld, EvLooked, EvUnstable, EvFenced, EvStarted, EvScanned, EvCaptured, EvRefused, EvPublished, EvFailed,
	EvBroken, EvWithdrawn, EvRetry,
}

func ignoresStale(t *testing.T, w *walk) {
	t.Helper()
	for _, k := range lived {
		p := w.p
		actions := p.Step(Event{Kind: k, Life: p.Life - 1, To: 1, Look: Look{HasOffset: true}, Claim: Claim{Epoch: 9}})
		require.Empty(t, actions, "stale %s while %s", k, w.p.State)
		require.Equal(t, w.p, p, "stale %s while %s", k, w.p.State)
	}
}

// TestAnyEventAnywhere: whatever comes in whatever state, even what no shell would send, the machine neither panics nor breaks the order.
func TestAnyEventAnywhere(t *testing.T) {
	var events []Event
	for _, k := range lived {
		for to := range int64(3) {
			events = append(events, Event{Kind: k, To: to, Why: "x"})
		}
	}
	for _, c := range claims()[:6] {
		events = append(events, Event{Kind: EvClaimed, Claim: c})
	}
	for _, l := range looks() {
		events = append(events, Event{Kind: EvLooked, Look: l})
	}
	for _, k := range []EventKind{EvAssigned, EvRevoked, EvLost, EvProducerLost, EvProducerReady, "nonsense"} {
		events = append(events, Event{Kind: k})
	}
	key := func(p Partition) string {
		p.Life, p.Attempts, p.Reason = 0, 0, ""
		return fmt.Sprint(p)
	}
	start := *NewPartition(7)
	seen := map[string]bool{key(start): true}
	for queue := []Partition{start}; len(queue) > 0; queue = queue[1:] {
		for _, e := range events {
			p := queue[0]
			e.Life = p.Life
			was := p.State
			for _, a := range p.Step(e) {
				switch a.Kind {
				case DoConsume:
					require.Equal(t, p.Next, p.Published)
				case DoDrain:
					require.LessOrEqual(t, a.From, a.To)
				case DoPublish:
					require.Equal(t, Consuming, was)
				}
			}
			if k := key(p); !seen[k] && p.Next < 4 {
				seen[k] = true
				queue = append(queue, p)
			}
			if e.Kind == EvRevoked || e.Kind == EvLost { // given up, whatever it was doing
				if p.State != Unassigned {
					a := p.Step(Event{Kind: EvWithdrawn, Life: p.Life})
					require.Equal(t, []Action{{Kind: DoRelease, Life: p.Life}}, a, "%s while %s", e.Kind, was)
				}
				require.Equal(t, Unassigned, p.State)
			}
		}
	}
	t.Logf("%d states", len(seen))
}
