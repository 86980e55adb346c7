package conformance

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/outbox"
)

var recordRules = []rule{
	{"headers-as-given", "headers keep their order, duplicates, nulls and empties: a dead letter is the input, untouched", headersAsGiven, both},
	{"null-is-not-empty", "a tombstone is no empty value, a null key no empty key: both are captured and published as they are", nullIsNotEmpty, both},
	{"timestamps-kept", "an event has its record's CreateTime, to the millisecond, however old", timestampsKept, both},
	{"a-megabyte-arrives", "a record of 1 MB passes; what the broker finds too large fails the transaction and no more than it", aMegabyteArrives, both},
	{"what-came-in-goes-out", "the output topics take what the input took, with its headers as a dead letter, and uncompressed: else it would be published for ever", whatCameInGoesOut, both},
	{"every-compression-is-read", "producers compress as they like; the worker reads all of it", everyCompression, both},
	{"leader-epochs-come-along", "records carry their leader epoch, and the broker says where an epoch ends: a truncated log is noticed (KIP-320)", leaderEpochs, both},
}

// headerText shows what a header has, nulls apart from empties.
func headerText(hs []outbox.Header) string {
	var b strings.Builder
	for _, h := range hs {
		if h.Value == nil {
			fmt.Fprintf(&b, "%s=null ", h.Key)
		} else {
			fmt.Fprintf(&b, "%s=%q ", h.Key, h.Value)
		}
	}
	return b.String()
}

func headersAsGiven(w *world) {
	w.topics(1)
	in := w.cfg.Topics.Input
	long := bytes.Repeat([]byte("x"), 70_000)
	hs := []outbox.Header{
		{Key: "b", Value: []byte("1")}, {Key: "a", Value: nil}, {Key: "b", Value: []byte{}}, {Key: "b", Value: []byte("1")}, {Key: "", Value: []byte{0, 255}}, {Key: "é", Value: long},
	}
	p := w.producer("a")
	p.begin()
	p.produce(&outbox.Message{Topic: in, TimestampMs: now(), Value: []byte("v"), Headers: hs}, &outbox.Message{Topic: in, TimestampMs: now(), Value: []byte("v")})
	w.is("commit", "ok", class(p.commit()))
	rs := w.joined("a", 1).takes(2)
	w.is("headers", headerText(hs), headerText(rs[0].Headers))
	w.is("no headers", 0, len(rs[1].Headers))
}

func now() int64 { return time.Now().UnixMilli() }

func text(b []byte) string {
	if b == nil {
		return "null"
	}
	return fmt.Sprintf("%q", b)
}

func nullIsNotEmpty(w *world) {
	w.topics(1)
	in := w.cfg.Topics.Input
	p := w.producer("a")
	p.begin()
	p.produce(&outbox.Message{Topic: in, TimestampMs: now(), Key: []byte("k")}, &outbox.Message{Topic: in, TimestampMs: now(), Key: []byte("k"), Value: []byte{}},
		&outbox.Message{Topic: in, TimestampMs: now(), Key: []byte{}, Value: []byte("v")}, &outbox.Message{Topic: in, TimestampMs: 1})
	w.is("commit", "ok", class(p.commit()))
	var got []string
	for _, r := range w.joined("a", 1).takes(4) {
		got = append(got, text(r.Key)+":"+text(r.Value))
	}
	w.is("keys and values", `["k":null "k":"" "":"v" null:null]`, got)
}

func timestampsKept(w *world) {
	w.topics(1)
	in := w.cfg.Topics.Input
	at := now()
	want := []int64{1, 999_999_999_999, at - 5, at + 60_000, 2} // one batch: what is young keeps the old from expiring
	p := w.producer("a")
	p.begin()
	for _, ts := range want {
		p.produce(&outbox.Message{Topic: in, TimestampMs: ts, Value: []byte("v")})
	}
	w.is("commit", "ok", class(p.commit()))
	var got []int64
	for _, r := range w.joined("a", 1).takes(len(want)) {
		got = append(got, r.TimestampMs)
	}
	w.is("timestamps", fmt.Sprint(want), got)
	p.begin()
	p.produce(&outbox.Message{Topic: in, TimestampMs: now() + 2*time.Hour.Milliseconds(), Value: []byte("v")})
	w.is("two hours ahead", "abortable", class(p.commit()))
}

func aMegabyteArrives(w *world) {
	w.topics(1)
	in := w.cfg.Topics.Input
	seed := rand.Uint64()
	w.t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	large := random(1_000_000)
	p := w.producer("a")
	p.begin()
	p.produce(&outbox.Message{Topic: in, TimestampMs: now(), Value: large})
	w.is("1 MB", "ok", class(p.commit()))
	p.begin()
	p.produce(&outbox.Message{Topic: in, TimestampMs: now(), Value: random(1_048_588 + 1)})
	w.is("too large", "abortable", class(p.commit()))
	w.is("its abort", "ok", class(p.abort()))
	p.begin()
	p.produce(event(in, "after"))
	next := class(p.commit())
	w.is("the next", "ok", next)
	if next != "ok" { // the same bytes again, as the pipeline would
		w.is("its abort, too", "ok", class(p.abort()))
		p.begin()
		p.produce(event(in, "after"))
		w.is("the one after it", "ok", class(p.commit()))
	}
	rs := w.joined("a", 1).takes(2)
	w.is("the megabyte, byte for byte", true, bytes.Equal(large, rs[0].Value))
	w.is("what follows it", "after", string(rs[1].Value))
}

func whatCameInGoesOut(w *world) {
	w.cfg.Topics.Partitions = 1
	_, err := provision.Topics(w.soon(), &w.cfg, w.adm)
	require.NoError(w.t, err)
	in, dlq := w.cfg.Topics.Input, w.cfg.Topics.DLQ
	cl := w.kgo(kgo.ProducerBatchMaxBytes(32<<20), kgo.ProducerBatchCompression(kgo.GzipCompression()))
	came := func(n int, compressed bool) string {
		value := make([]byte, n)
		if !compressed {
			_, _ = rand.NewChaCha8([32]byte{1}).Read(value)
		}
		return name(cl.ProduceSync(w.soon(), &kgo.Record{Topic: in, Value: value}).FirstErr())
	}
	goes := func(n int) string {
		p := w.producer("a")
		p.begin()
		p.produce(&outbox.Message{Topic: dlq, TimestampMs: now(), Value: make([]byte, n), Headers: []outbox.Header{{Key: "why", Value: make([]byte, 1000)}}})
		return class(p.commit())
	}
	const largest = 1_048_588 - 100
	w.is("in: the largest", "ok", came(largest, false))
	w.is("in: larger", "MESSAGE_TOO_LARGE", came(largest+1000, false))
	w.is("in: compressed", "ok", came(15<<20, true))
	w.is("out: the largest, with headers", "ok", goes(largest))
	w.is("out: what was compressed", "ok", goes(15<<20))
	var sizes []int
	for _, r := range w.joined("a", 1).takes(2) {
		sizes = append(sizes, len(r.Value))
	}
	w.is("read by the worker", fmt.Sprint([]int{largest, 15 << 20}), sizes)
}

func everyCompression(w *world) {
	w.topics(1)
	in := w.cfg.Topics.Input
	kinds := map[string]kgo.CompressionCodec{
		"0": kgo.NoCompression(), "1": kgo.GzipCompression(), "2": kgo.SnappyCompression(), "3": kgo.Lz4Compression(), "4": kgo.ZstdCompression(),
	}
	value := strings.Repeat("the same again ", 500)
	for k := range len(kinds) {
		cl := w.kgo(kgo.ProducerBatchCompression(kinds[fmt.Sprint(k)]))
		require.NoError(w.t, cl.ProduceSync(w.soon(), &kgo.Record{Topic: in, Value: []byte(fmt.Sprint(k, value))}).FirstErr())
		cl.Close()
	}
	var got []string
	for _, r := range w.joined("a", 1).takes(len(kinds)) {
		require.Equal(w.t, value, string(r.Value[1:]))
		got = append(got, string(r.Value[:1]))
	}
	w.is("read by the worker", "[0 1 2 3 4]", got)
	var stored []string
	cl := w.kgo(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{in: {0: kgo.NewOffset().AtStart()}}))
	for len(stored) < len(kinds) {
		fs := cl.PollFetches(w.soon())
		require.NoError(w.t, fs.Err())
		fs.EachRecord(func(r *kgo.Record) { stored = append(stored, fmt.Sprint(r.Attrs.CompressionType())) })
	}
	w.is("stored as the producer sent them", "[0 1 2 3 4]", stored)
}

func leaderEpochs(w *world) {
	w.topics(1)
	in := w.cfg.Topics.Input
	w.write(in, 0, "a", "b", "c")
	rs := w.joined("a", 1).takes(3)
	epoch := rs[2].LeaderEpoch
	w.is("known", true, epoch >= 0)
	look := w.look(epoch)
	w.is("where it ends", 3, look.EpochEnd)
	look = w.look(epoch + 7)
	w.is("where one ends that has not begun", -1, look.EpochEnd)
	md, err := w.kadm.Metadata(w.soon(), in)
	require.NoError(w.t, err)
	w.is("the leader's, by the metadata", epoch, md.Topics[in].Partitions[0].LeaderEpoch)
}

// offsetsOf are the offsets of records, for a look at what was skipped.
func offsetsOf(rs []engine.Record) string {
	var os []int64
	for i := range rs {
		os = append(os, rs[i].Offset)
	}
	return fmt.Sprint(os)
}
