package conformance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
)

var membershipRules = []rule{
	{"static-member-returns", "a worker restarted within its session timeout gets its partitions back and disturbs nobody (KIP-345)", staticReturns, both},
	{"static-return-is-quiet", "a worker restarted within its session timeout costs the others no rebalance, whatever it says it owns", staticReturnIsQuiet, wire},
	{"nobodys-is-told", "a partition that no member was given is told, and who leaves by instance id begins the rebalance that gives it out", nobodysIsTold, both},
	{"same-instance-fences", "a second process under one worker id ends the first, which learns of it as a fatal error", sameInstanceFences, both},
	{"removed-by-instance-id", "a worker that is stopped for good leaves by the admin client: librdkafka's static members say no goodbye", removedByInstance, both},
	{"silent-member-loses", "a dead worker's partitions are another's within its session timeout", silentMemberLoses, both},
	{"retained-are-consumed", "a cooperative rebalance takes only what moves: what a worker keeps it reads and publishes throughout (KIP-429)", retainedAreConsumed, both},
	{"revoked-before-assigned", "nobody is given a partition before its owner's callback has returned (guard 3)", revokedBeforeAssigned, both},
	{"callback-at-every-rebalance", "group metadata is taken inside the callback (guard 2): there is one at each rebalance, also where nothing moves, and what it brings is valid", callbackAtEvery, both},
}

func newAdmin(c *config.Config) (*admin.Admin, error) { return admin.New(c, zap.NewNop()) }

func staticReturns(w *world) {
	w.topics(4)
	a := w.joined("a", 4)
	b := w.joined("b", 2)
	a.owns(2)
	mine, theirs, told := a.ownedNow(), b.ownedNow(), len(a.told())
	b.close()
	again := w.joined("b", 2)
	w.is("the same partitions", theirs, again.ownedNow())
	w.write(w.cfg.Topics.Input, mine[0], "x")
	a.takes(1) // the group was never in the way
	w.is("partitions named at the other", false, strings.ContainsAny(fmt.Sprint(a.told()[told:]), "0123"))
	w.is("the other's partitions", mine, a.ownedNow())
	members := w.members()
	w.is("members", 2, len(members))
}

func staticReturnIsQuiet(w *world) {
	w.topics(1)
	first := w.joinRaw("a", 30*time.Second, 0)
	again := &rawMember{w: w, instance: "a", session: 30 * time.Second, assigned: []int32{0}}
	w.is("it joins", "ok", again.join())
	w.is("in the same generation", true, again.generation == first.generation)
	w.is("as another member", true, again.id != first.id)
	w.is("the first's heartbeat", "FENCED_INSTANCE_ID", first.heartbeat())
}

func nobodysIsTold(w *world) {
	w.topics(2)
	nobodys := func() string {
		return ask(w, func(ctx context.Context) (string, error) {
			ps, rests, err := w.adm.Unowned(ctx)
			return fmt.Sprint(ps, " ", rests), err
		})
	}
	r := &rawMember{w: w, instance: "a", session: 30 * time.Second}
	require.Equal(w.t, "ok", r.join())
	w.is("while they are shared out", "[] false", nobodys())
	require.Equal(w.t, "ok", r.sync(0))
	w.is("at rest", "[1] true", nobodys())
	w.leaves("a")
	b := w.join("b")
	b.owns(2)
	w.is("when another has them", "[] true", nobodys())
}

func sameInstanceFences(w *world) {
	w.topics(2)
	first := w.joined("a", 2)
	old := first.stamp()
	second := w.joined("a", 2)
	w.is("the first's error concerns its", "membership", first.fails())
	p := w.producer("a")
	p.begin()
	w.is("the first's stamp", "stale", class(p.offsets(old, offset(0, 1))))
	w.is("abort", "ok", class(p.abort()))
	p.begin()
	w.is("the second's stamp", "ok ok", class(p.offsets(second.stamp(), offset(0, 1)))+" "+class(p.commit()))
}

func removedByInstance(w *world) {
	w.topics(4)
	a := w.joined("a", 4)
	b := w.joined("b", 2)
	a.owns(2)
	b.close()
	members := w.members()
	w.is("members after it has closed", 2, len(members))
	at := time.Now()
	w.leaves("b")
	a.owns(4)
	w.is("well before the session timeout", true, time.Since(at) < session)
	w.leaves("b") // once more is no error
}

func silentMemberLoses(w *world) {
	w.topics(2)
	silent := w.joinRaw("silent", 2*time.Second, 0, 1)
	at := time.Now()
	a := w.join("a")
	a.owns(2)
	w.is("not before its session timeout", true, time.Since(at) > time.Second)
	w.is("within a few", true, time.Since(at) < patience/2)
	w.is("its heartbeat then", "UNKNOWN_MEMBER_ID", silent.heartbeat())
	members := w.members()
	_, there := members["silent"]
	w.is("still a member", false, there)
}

func retainedAreConsumed(w *world) {
	w.topics(4)
	a := w.joined("a", 4)
	late := &rawMember{w: w, instance: "late", session: 30 * time.Second}
	require.Equal(w.t, "ok", late.join())
	require.Contains(w.t, []string{"ok", "REBALANCE_IN_PROGRESS"}, late.sync()) // a may have been quick to join again
	a.owns(2)
	// What a gave up goes to the other in a second rebalance, which waits for the other to join: it takes its time.
	w.until("the second rebalance has begun", func() bool { return late.heartbeat() == "REBALANCE_IN_PROGRESS" })
	kept := a.ownedNow()
	w.is("nothing yet for the other", 0, len(late.assigned))
	for _, p := range kept {
		w.write(w.cfg.Topics.Input, p, "meanwhile")
	}
	a.takes(2)
	p := w.producer("a")
	p.begin()
	w.is("a publish in the middle of it", "ok ok", class(p.offsets(a.stamp(), offset(kept[0], 1)))+" "+class(p.commit()))
	require.Equal(w.t, "ok", late.join())
	require.Equal(w.t, "ok", late.sync())
	w.is("what the other is given", 2, len(late.assigned))
	named := 0
	for _, c := range a.told()[1:] {
		for _, p := range kept {
			named += strings.Count(c, fmt.Sprint(p))
		}
	}
	w.is("callbacks that name what was kept", 0, named)
}

func revokedBeforeAssigned(w *world) {
	w.topics(4)
	a := w.joined("a", 4)
	p := w.producer("a")
	p.begin()
	p.produce(event(w.cfg.Topics.Output, "last"))
	var b atomic.Pointer[member]
	var early atomic.Bool
	var results []string
	a.mu.Lock()
	a.onRevoke = func(ps []int32, s engine.Stamp) {
		if len(ps) == 0 || len(results) > 0 {
			return // only the first that takes something is watched
		}
		var os []string
		for _, q := range ps { // the last publish of what is given up
			os = append(os, class(p.offsets(s, offset(q, 1))))
		}
		results = append(slices.Compact(os), class(p.commit()))
		w.soonOrNever(func() bool { m := b.Load(); return m != nil && len(m.ownedNow()) > 0 }, &early)
	}
	a.mu.Unlock()
	m := w.join("b")
	b.Store(m)
	m.owns(2)
	a.owns(2)
	a.mu.Lock()
	got := fmt.Sprint(results)
	a.mu.Unlock()
	w.is("the last publish, inside the callback", "[ok ok]", got)
	w.is("assigned before the callback had returned", false, early.Load())
	w.is("the group offset of what was given up", "1", w.settled(m.ownedNow()[0]))
	w.is("what the two own", "[0 1 2 3]", fmt.Sprint(slices.Sorted(slices.Values(append(a.ownedNow(), m.ownedNow()...)))))
}

// soonOrNever watches for half a second whether something happens that must not.
func (w *world) soonOrNever(happens func() bool, it *atomic.Bool) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 50 {
		<-tick.C
		if happens() {
			it.Store(true)
			return
		}
	}
}

func callbackAtEvery(w *world) {
	w.topics(1)
	a := w.joined("a", 1)
	told := len(a.told())
	p := w.producer("a")
	valid := func() string {
		p.begin()
		return class(p.offsets(a.stamp(), offset(0, 1))) + " " + class(p.commit())
	}
	b := w.join("b") // there is nothing for it
	// A client may tell of nothing revoked before it tells of nothing assigned: the last word has the metadata that is valid.
	assigned := func(m *member, since int) bool { return slices.Contains(m.told()[since:], "assigned ") }
	w.until("a callback although nothing moves", func() bool { return assigned(a, told) })
	w.until("and one at the other", func() bool { return assigned(b, 0) })
	told = len(a.told())
	w.is("partitions that are named", 0, strings.Count(fmt.Sprint(a.told()[1:]), "0"))
	w.is("stamp with two members", "ok ok", valid())
	b.close()
	w.leaves("b")
	w.until("a callback when one leaves", func() bool { return assigned(a, told) })
	w.is("stamp when one has left", "ok ok", valid())
	w.is("still its partition", "[0]", a.ownedNow())
}
