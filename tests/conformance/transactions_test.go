package conformance

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/internal/admin"
)

var transactionRules = []rule{
	{"commit-is-whole", "a publish is one transaction: events, dead letters and the input offset are there together or not at all", commitIsWhole, both},
	{"abort-leaves-nothing", "after an abort the same bytes are published again (guard 7), by the same producer: none of the first may be seen", abortLeavesNothing, both},
	{"short-answers-hide-aborted", "the audit and workers read what was aborted along with the rest, and drop it by what the answer says: one that ends early must say it, too", shortAnswers, both},
	{"read-committed-waits", "the scan of the outputs and the audit read to a stable end: nothing behind an open transaction is seen before it", readCommittedWaits, both},
	{"retried-end-keeps-its-word", "a commit that is sent again after a lost answer is the same commit; it never becomes an abort, nor ends another transaction", retriedEnd, wire},
	{"timeout-aborts", "a worker that died holds up the group offset and the readers of the outputs no longer than its transaction timeout", timeoutAborts, both},
	{"offset-keeps-metadata", "the group offset carries `exactly/1 <epoch> <ledger seq>` and the leader epoch: a reset by hand is told from ours", offsetKeepsMetadata, both},
}

func commitIsWhole(w *world) {
	w.topics(2)
	m := w.joined("a", 2)
	p := w.producer("a")
	out, dlq := w.cfg.Topics.Output, w.cfg.Topics.DLQ
	p.begin()
	p.produce(event(out, "e1"), event(dlq, "d1"), event(out, "e2"))
	w.is("offsets sent", "ok", class(p.offsets(m.stamp(), offset(0, 5), offset(1, 7))))
	w.until("the records are in the logs", func() bool { return len(w.reads(out, kgo.ReadUncommitted(), 2)) >= 2 })
	w.is("group offset before", "pending pending", w.group(0)+" "+w.group(1))
	lso, hw := w.ends(out)
	w.is("a stable end before the events", true, lso == 0 && hw == 2)
	w.is("commit", "ok", class(p.commit()))
	w.is("group offset after", "5 7", w.settled(0)+" "+w.settled(1))
	w.is("events and dead letters after", "[e1 e2] [d1]", fmt.Sprint(w.committed(out), w.committed(dlq)))
}

// ends are the last stable offset and the high watermark of partition 0.
func (w *world) ends(topic string) (lso, hw int64) {
	w.t.Helper()
	s, err := w.kadm.ListCommittedOffsets(w.soon(), topic)
	require.NoError(w.t, err)
	require.NoError(w.t, s.Error())
	e, err := w.kadm.ListEndOffsets(w.soon(), topic)
	require.NoError(w.t, err)
	require.NoError(w.t, e.Error())
	return s[topic][0].Offset, e[topic][0].Offset
}

func abortLeavesNothing(w *world) {
	w.topics(1)
	m := w.joined("a", 1)
	p := w.producer("a")
	out := w.cfg.Topics.Output
	p.begin()
	p.produce(event(out, "first"))
	w.is("first commit", "ok ok", class(p.offsets(m.stamp(), offset(0, 1)))+" "+class(p.commit()))
	p.begin()
	p.produce(event(out, "same"))
	w.is("second, offsets sent", "ok", class(p.offsets(m.stamp(), offset(0, 2))))
	w.is("abort", "ok", class(p.abort()))
	w.is("group offset after the abort", "1", w.settled(0))
	w.is("events after the abort", "[first]", w.committed(out))
	p.begin()
	p.produce(event(out, "same"))
	w.is("the same again", "ok ok", class(p.offsets(m.stamp(), offset(0, 2)))+" "+class(p.commit()))
	w.is("group offset at the end", "2", w.settled(0))
	w.is("events at the end", "[first same]", w.committed(out))
}

// shortAnswers reads in answers that end at the request's limit, the partition's, or both.
func shortAnswers(w *world) {
	w.topics(1)
	p := w.producer("a")
	out := w.cfg.Topics.Output
	want := []string{}
	for i := range 12 {
		noise := make([]byte, 1000)
		_, _ = rand.Read(noise) // does not compress
		value := fmt.Sprintf("%d %x", i, noise)
		_, before := w.ends(out)
		p.begin()
		p.produce(event(out, value))
		if i%2 == 0 {
			w.until("its record is in the log", func() bool { _, hw := w.ends(out); return hw > before })
			w.is("abort", "ok", class(p.abort()))
		} else {
			w.is("commit", "ok", class(p.commit()))
			want = append(want, fmt.Sprint(i))
		}
		w.until("the marker is in the log", func() bool { lso, hw := w.ends(out); return lso == hw && hw == before+2 })
	}
	for _, limit := range []struct {
		at                 string
		request, partition int32
	}{{"the request's limit", 9000, 9000}, {"the partition's limit", 1 << 20, 9000}, {"no limit", 1 << 20, 1 << 20}} {
		got := []string{}
		for _, v := range w.reads(out, kgo.ReadCommitted(), len(want), kgo.FetchMaxBytes(limit.request), kgo.FetchMaxPartitionBytes(limit.partition)) {
			n, _, _ := strings.Cut(v, " ")
			got = append(got, n)
		}
		w.is("answers that end at "+limit.at, fmt.Sprint(want), fmt.Sprint(got))
	}
}

func readCommittedWaits(w *world) {
	w.topics(1)
	out := w.cfg.Topics.Output
	first, second := w.producer("a"), w.producer("b")
	first.begin()
	first.produce(event(out, "a"))
	w.until("a's record is in the log", func() bool { _, hw := w.ends(out); return hw == 1 })
	second.begin()
	second.produce(event(out, "b"))
	w.is("b commits behind a", "ok", class(second.commit()))
	w.until("b's marker is in the log", func() bool { _, hw := w.ends(out); return hw == 3 })
	lso, _ := w.ends(out)
	w.is("stable end before a's record", 0, lso)

	scanned := make(chan map[int32]int64, 1)
	read := make(chan []string, 1)
	go func() { // both are to wait for a
		m, err := w.adm.ScanOutputs(w.ctx, []int32{0})
		if err == nil {
			scanned <- m
		}
		close(scanned)
	}()
	go func() { read <- w.reads(out, kgo.ReadCommitted(), 2) }()
	w.until("somebody who reads uncommitted sees both", func() bool { return len(w.reads(out, kgo.ReadUncommitted(), 2)) == 2 })
	got := "nothing"
	select {
	case m := <-scanned:
		got = fmt.Sprint("scanned ", m)
	case v := <-read:
		got = fmt.Sprint("read ", v)
	case <-time.After(300 * time.Millisecond): // longer than a fetch takes
	}
	w.is("seen while a is open", "nothing", got)
	w.is("a commits", "ok", class(first.commit()))
	w.is("then, in the log's order", "[a b]", <-read)
	w.is("the scan has an end", "map[0:0]", <-scanned)
	w.until("the stable end follows", func() bool { lso, hw := w.ends(out); return lso == hw })
}

func retriedEnd(w *world) {
	w.topics(1)
	o := w.pending("a", 0, 3)
	w.is("commit", "ok", o.end(true))
	w.is("commit again", "ok", o.end(true))
	w.is("abort after commit", "INVALID_TXN_STATE", o.end(false))
	w.is("group offset", "3", w.settled(0))
	w.is("next: offsets added", "ok", o.addOffsets())
	w.is("next: staged", "ok", o.stage(outsider, 0, 4))
	w.is("abort", "ok", o.end(false))
	w.is("abort again", "ok", o.end(false))
	w.is("commit after abort", "INVALID_TXN_STATE", o.end(true))
	w.is("group offset at the end", "3", w.settled(0))
	w.is("staged outside of a transaction", "INVALID_TXN_STATE", o.stage(outsider, 0, 9))
}

func timeoutAborts(w *world) {
	w.topics(1)
	m := w.joined("a", 1)
	const timeout = 3 * time.Second
	p := w.producerWithin("a", timeout)
	out := w.cfg.Topics.Output
	at := time.Now()
	p.begin()
	p.produce(event(out, "e"))
	w.is("offsets sent", "ok", class(p.offsets(m.stamp(), offset(0, 1))))
	w.until("the group offset is stable again", func() bool { return w.group(0) != "pending" })
	w.is("not before its time", true, time.Since(at) >= timeout)
	w.is("group offset", "none", w.group(0))
	w.is("events", "[]", w.committed(out))
	w.is("its late commit", "fatal", class(p.commit()))
	w.is("group offset after the late commit", "none", w.group(0))
	again := w.producer("a")
	again.begin()
	again.produce(event(out, "e"))
	w.is("a new producer", "ok ok", class(again.offsets(m.stamp(), offset(0, 1)))+" "+class(again.commit()))
	w.is("events at the end", "[e]", w.committed(out))
}

func offsetKeepsMetadata(w *world) {
	w.topics(1)
	m := w.joined("a", 1)
	p := w.producer("a")
	p.begin()
	o := offset(0, 12)
	o.LeaderEpoch, o.Metadata = 0, "exactly/1 9223372036854775807 42"
	w.is("commit", "ok ok", class(p.offsets(m.stamp(), o))+" "+class(p.commit()))
	w.settled(0)
	os := ask(w, func(ctx context.Context) (map[int32]admin.GroupOffset, error) {
		return w.adm.GroupOffsets(ctx, []int32{0})
	})
	w.is("as it was sent", "12 exactly/1 9223372036854775807 42 true", fmt.Sprint(os[0].Offset, " ", os[0].Metadata, " ", os[0].Ours))
	all, err := w.kadm.FetchOffsetsForTopics(w.soon(), w.cfg.Group, w.cfg.Topics.Input)
	require.NoError(w.t, err)
	f, ok := all.Lookup(w.cfg.Topics.Input, 0)
	w.is("its leader epoch", "0 true", fmt.Sprint(f.LeaderEpoch, " ", ok))
}
