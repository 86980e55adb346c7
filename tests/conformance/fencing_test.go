package conformance

import (
	"context"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/engine"
)

var fencingRules = []rule{
	{"init-fences", "a take-over initialises the predecessor's transactional id: its transaction is aborted, the group offset stable at once, its commit refused for good", initFences, both},
	{"second-producer-fences-first", "a restarted worker initialises its own transactional id (guard 8): whatever its former process still sends is refused", secondProducerFences, both},
	{"fenced-while-producing", "a fenced worker in the middle of its records is told, one way or another, and its successor is not disturbed", fencedWhileProducing, both},
	{"fenced-stays-fenced", "a fenced worker can't come back with the epoch it had, not even by asking for the next one", fencedStaysFenced, wire},
	{"generation-fences", "offsets sent with a stale generation or by an unknown member are refused (guard 2): a former owner can't move the group offset", generationFences, wire},
	{"broker-does-not-know-owners", "the broker checks member and generation, not who owns a partition: so an old batch is never sent with fresh group metadata (guard 2)", brokerDoesNotKnowOwners, wire},
	{"outsider-is-not-fenced", "with no member and generation -1 nothing is checked: what people's commands rely on, and what no worker may ever send", outsiderIsNotFenced, wire},
	{"stale-stamp-is-told-apart", "group metadata from before a rebalance is refused with an error of its own class: abort, wait for the callback, publish the same bytes again", staleStamp, both},
}

func initFences(w *world) {
	w.topics(1)
	m := w.joined("alive", 1)
	p := w.producer("gone")
	out := w.cfg.Topics.Output
	p.begin()
	p.produce(event(out, "zombie"))
	w.is("offsets sent", "ok", class(p.offsets(m.stamp(), offset(0, 5))))
	w.until("its event is in the log", func() bool { _, hw := w.ends(out); return hw > 0 })
	w.is("pending", "pending", w.group(0))
	fenced := ask(w, func(ctx context.Context) ([]string, error) { return w.adm.FenceAbsent(ctx, []string{"gone", "alive"}) })
	w.is("fenced, members excepted", "[gone]", fenced)
	w.is("group offset at once", "none", w.group(0))
	w.is("its commit", "fatal", class(p.commit()))
	w.is("group offset after its commit", "none", w.group(0))
	w.is("events", "[]", w.committed(out))
}

func secondProducerFences(w *world) {
	w.topics(1)
	m := w.joined("a", 1)
	out := w.cfg.Topics.Output
	first := w.producer("a")
	first.begin()
	first.produce(event(out, "first"))
	w.is("first sends offsets", "ok", class(first.offsets(m.stamp(), offset(0, 1))))
	w.until("its event is in the log", func() bool { _, hw := w.ends(out); return hw > 0 })
	second := w.producer("a")
	w.is("group offset after init", "none", w.group(0))
	second.begin()
	second.produce(event(out, "second"))
	w.is("second commits", "ok ok", class(second.offsets(m.stamp(), offset(0, 2)))+" "+class(second.commit()))
	w.is("first commits", "fatal", class(first.commit()))
	second.begin()
	second.produce(event(out, "third"))
	w.is("second goes on", "ok ok", class(second.offsets(m.stamp(), offset(0, 3)))+" "+class(second.commit()))
	w.is("group offset", "3", w.settled(0))
	w.is("events", "[second third]", w.committed(out))

	third := w.producer("a") // what it does first, it does fenced
	w.producer("a")
	third.begin()
	third.produce(event(out, "fourth"))
	w.is("a fenced producer's offsets", "fatal", class(third.offsets(m.stamp(), offset(0, 9))))
	w.is("events at the end", "[second third]", w.committed(out))
}

func fencedWhileProducing(w *world) {
	w.topics(1)
	m := w.joined("a", 1)
	out := w.cfg.Topics.Output
	first := w.producer("a")
	first.begin()
	first.produce(event(out, "first"))
	w.until("its event is in the log", func() bool { _, hw := w.ends(out); return hw > 0 })
	second := w.producer("a")
	_, at := w.ends(out)
	second.begin()
	second.produce(event(out, "second"))
	w.until("the second's event is in the log", func() bool { _, hw := w.ends(out); return hw > at })
	first.produce(event(out, "more"))
	got := class(first.commit())
	w.is("the first's commit, refused", true, got == "fatal" || got == "abortable")
	if got == "abortable" {
		got = class(first.abort())
	}
	w.is("and its abort, if that comes to it", "fatal", got)
	w.is("the second's commit", "ok ok", class(second.offsets(m.stamp(), offset(0, 1)))+" "+class(second.commit()))
	w.is("events", "[second]", w.committed(out))
}

func fencedStaysFenced(w *world) {
	w.topics(1)
	first := w.pending("a", 0, 3)
	second := w.initProducer("a")
	w.is("same producer id, next epoch", true, second.pid == first.pid && second.epoch > first.epoch)
	w.is("commit", "PRODUCER_FENCED", first.end(true))
	w.is("abort", "PRODUCER_FENCED", first.end(false))
	w.is("add offsets", "PRODUCER_FENCED", first.addOffsets())
	w.is("stage offsets", "refused", refused(first.stage(outsider, 0, 4)))
	w.is("produce", "refused", refused(first.push(w.cfg.Topics.Output, 0, 1)))
	w.is("the rightful one", "ok ok ok", second.addOffsets()+" "+second.stage(outsider, 0, 6)+" "+second.end(true))
	w.is("group offset", "6", w.settled(0))
	w.is("ask for the next epoch", "PRODUCER_FENCED", first.init(first.pid, first.epoch))
	w.is("the rightful one thereafter", "ok", second.addOffsets())
}

// refused forgets which of its errors the broker has chosen: librdkafka takes all of them for the end of a producer or of a transaction.
func refused(code string) string {
	switch code {
	case "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH", "INVALID_TXN_STATE", "INVALID_PRODUCER_ID_MAPPING":
		return "refused"
	}
	return code
}

func generationFences(w *world) {
	w.topics(1)
	m := w.joinRaw("", 30*time.Second, 0)
	old := m.generation
	require.Equal(w.t, "ok", m.join())
	require.Equal(w.t, "ok", m.sync(0))
	w.is("another generation", true, m.generation > old)
	o := w.initProducer("a")
	require.Equal(w.t, "ok", o.addOffsets())
	w.is("former generation", "ILLEGAL_GENERATION", o.stage(as{m.id, old, ""}, 0, 3))
	w.is("generation to come", "ILLEGAL_GENERATION", o.stage(as{m.id, m.generation + 1, ""}, 0, 3))
	w.is("unknown member", "UNKNOWN_MEMBER_ID", o.stage(as{"nobody", m.generation, ""}, 0, 3))
	w.is("nothing was staged", "none", w.group(0))
	w.is("member and generation", "ok", o.stage(as{m.id, m.generation, ""}, 0, 4))
	w.is("commit", "ok", o.end(true))
	w.is("group offset", "4", w.settled(0))
	require.Equal(w.t, "ok", o.addOffsets())
	w.is("member without generation", "ILLEGAL_GENERATION", o.stage(as{m.id, -1, ""}, 0, 5))
	w.is("generation without member", "UNKNOWN_MEMBER_ID", o.stage(as{"", m.generation, ""}, 0, 5))
	w.is("abort", "ok", o.end(false))
}

func brokerDoesNotKnowOwners(w *world) {
	w.topics(2)
	m := w.joinRaw("me", 30*time.Second, 0)
	o := w.initProducer("a")
	require.Equal(w.t, "ok", o.addOffsets())
	w.is("a partition that is somebody else's", "ok", o.stage(as{m.id, m.generation, "me"}, 1, 8))
	w.is("another's instance id", "UNKNOWN_MEMBER_ID", o.stage(as{m.id, m.generation, "other"}, 0, 8))
	w.is("an instance id with a former member id", "FENCED_INSTANCE_ID", o.stage(as{"former", m.generation, "me"}, 0, 8))
	w.is("commit", "ok", o.end(true))
	w.is("group offset", "8", w.settled(1))
}

func outsiderIsNotFenced(w *world) {
	w.topics(1)
	w.joinRaw("", 30*time.Second, 0)
	o := w.initProducer("a")
	require.Equal(w.t, "ok", o.addOffsets())
	w.is("no member, generation -1", "ok", o.stage(outsider, 0, 3))
	w.is("commit", "ok", o.end(true))
	w.is("group offset", "3", w.settled(0))
}

func staleStamp(w *world) {
	w.topics(2)
	a := w.joined("a", 2)
	before := a.stamp()
	p := w.producer("a")
	out := w.cfg.Topics.Output
	b := w.joined("b", 1)
	a.owns(1)
	mine := a.ownedNow()[0]
	p.begin()
	p.produce(event(out, "e"))
	w.is("stamp of before", "stale", class(p.offsets(before, offset(mine, 1))))
	w.is("abort", "ok", class(p.abort()))
	p.begin()
	p.produce(event(out, "e"))
	w.is("stamp of the last callback", "ok ok", class(p.offsets(a.stamp(), offset(mine, 1)))+" "+class(p.commit()))
	w.is("events", "[e]", w.committed(out))

	theirs := b.ownedNow()[0]
	last := b.stamp()
	b.close()
	w.leaves("b")
	q := w.producer("b")
	q.begin()
	w.is("stamp of one that has left", "stale", class(q.offsets(last, offset(theirs, 1))))
	w.is("its abort", "ok", class(q.abort()))
	w.is("no stamp at all", "stale", class(q.offsets(engine.Stamp(nil), offset(theirs, 1))))
	w.is("group offsets", "map[0:none 1:1]", normal(map[int32]string{mine: w.settled(mine), theirs: w.settled(theirs)}, mine))
}

// normal renames the partitions so that mine is 1 and the other 0: who gets which is the assignor's business.
func normal(m map[int32]string, mine int32) string {
	return fmt.Sprint(map[int32]string{0: m[1-mine], 1: m[mine]})
}

// leaves removes an instance from the group, as a worker does for itself when it is stopped.
func (w *world) leaves(instance string) {
	w.t.Helper()
	cfg := w.cfg
	cfg.Worker.ID = instance
	a, err := newAdmin(&cfg)
	require.NoError(w.t, err)
	defer a.Close()
	ask(w, func(ctx context.Context) (struct{}, error) { return struct{}{}, a.Leave(ctx) })
}
