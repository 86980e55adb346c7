package conformance

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/outbox"
)

var logRules = []rule{
	{"out-of-range-is-an-error", "auto.offset.reset=error (guard 10): a position below the log's start or above its end stops the partition, it never jumps", outOfRangeIsAnError, both},
	{"deleted-records-move-the-start", "records that expired unread are counted by the log's start", deletedRecords, both},
	{"topic-has-an-id", "a recreated topic has another id (guard 10): its offsets begin anew and mean other records", topicHasAnID, wire},
	{"start-by-time", "a first start at a time begins at the first record that is not older, or at the end", startByTime, both},
	{"latest-is-stable", "a first start at the latest begins at the last stable offset: what is open then is not skipped", latestIsStable, both},
	{"nothing-made-on-first-use", "topics are made by `exactly setup`, with their partitions and retention, and never by being asked for", nothingMadeOnFirstUse, both},
	{"setup-can-be-repeated", "setup makes what is missing: a topic that exists is told apart, and its settings are those it was made with", setupRepeats, wire},
	{"cluster-has-an-id", "the cluster's id says whether the brokers are those that the stored offsets are of (guard 10)", clusterHasAnID, wire},
}

func outOfRangeIsAnError(w *world) {
	w.topics(1)
	in := w.cfg.Topics.Input
	w.write(in, 0, "a", "b", "c", "d", "e")
	m := w.joined("a", 1)
	m.takes(5)
	m.seek(0, 100)
	w.is("above the end: an error of the", "partition", m.fails())
	w.deleteBefore(in, 3)
	m.close()
	w.leaves("a")
	n := w.join("b")
	n.owns(1) // reads from 0, which is gone
	w.is("below the start: an error of the", "partition", n.fails())
	w.is("read meanwhile", "[]", offsetsOf(n.got()))
}

func (w *world) deleteBefore(topic string, at int64) {
	w.t.Helper()
	os := kadm.Offsets{}
	os.Add(kadm.Offset{Topic: topic, Partition: 0, At: at})
	res, err := w.kadm.DeleteRecords(w.soon(), os)
	require.NoError(w.t, errors.Join(err, res.Error()))
}

func deletedRecords(w *world) {
	w.topics(1)
	in := w.cfg.Topics.Input
	w.write(in, 0, "a", "b", "c", "d", "e")
	w.deleteBefore(in, 3)
	look := w.look(-1)
	w.is("start and end", "3 5", fmt.Sprint(look.LogStart, " ", look.LogEnd))
	m := w.joinFrom("a", 3)
	var got []string
	for _, r := range m.takes(2) {
		got = append(got, string(r.Value))
	}
	w.is("what is left", "[d e]", got)
	w.deleteBefore(in, 5)
	look = w.look(-1)
	w.is("emptied", "5 5", fmt.Sprint(look.LogStart, " ", look.LogEnd))
	w.write(in, 0, "f")
	w.is("the next offset", 5, m.takes(3)[2].Offset)
}

func topicHasAnID(w *world) {
	w.topics(1)
	in := w.cfg.Topics.Input
	ids := func() map[string]string {
		return ask(w, w.adm.TopicIDs)
	}
	first := ids()
	w.is("each has one of its own", true, len(first) == 3 && first[in] != first[w.cfg.Topics.Output])
	w.is("the same when asked again", fmt.Sprint(first), fmt.Sprint(ids()))
	w.write(in, 0, "a", "b")
	_, err := w.kadm.DeleteTopics(w.soon(), in)
	require.NoError(w.t, err)
	w.until("the topic has gone", func() bool { _, there := ids()[in]; return !there })
	w.until("it can be made again", func() bool {
		_, err := w.kadm.CreateTopic(w.soon(), 1, -1, nil, in)
		return err == nil
	})
	var again map[string]string
	w.until("it is there, with another id", func() bool { // brokers that have not heard of it yet have the old one
		again = ids()
		return again[in] != "" && again[in] != first[in]
	})
	w.is("the others' ids", first[w.cfg.Topics.Output], again[w.cfg.Topics.Output])
	w.until("it is empty", func() bool { // nor does the former leader forget at once what it held
		l, err := w.kadm.ListEndOffsets(w.soon(), in)
		if err != nil || l.Error() != nil {
			return false
		}
		end, ok := l.Lookup(in, 0)
		return ok && end.Offset == 0
	})
}

// startsAt is where a first start begins.
func (w *world) startsAt(start string) map[int32]int64 {
	w.t.Helper()
	cfg := w.cfg
	cfg.Start = start
	a, err := newAdmin(&cfg)
	require.NoError(w.t, err)
	defer a.Close()
	return ask(w, a.StartOffsets)
}

func startByTime(w *world) {
	w.topics(2)
	in := w.cfg.Topics.Input
	day := time.Now().Add(-10 * time.Hour).Truncate(time.Second) // younger than any retention
	cl := w.kgo()
	for i := range 4 { // a batch each
		r := &kgo.Record{Topic: in, Timestamp: day.Add(time.Duration(i) * time.Hour), Value: []byte{byte(i)}}
		require.NoError(w.t, cl.ProduceSync(w.soon(), r).FirstErr())
	}
	at := func(d time.Duration) string { return fmt.Sprint(w.startsAt(day.Add(d).UTC().Format(time.RFC3339))) }
	w.is("before all", "map[0:0 1:0]", at(-time.Hour))
	w.is("at a record", "map[0:1 1:0]", at(time.Hour))
	w.is("between two", "map[0:2 1:0]", at(90*time.Minute))
	w.is("behind all", "map[0:4 1:0]", at(9*time.Hour))
	w.is("earliest", "map[0:0 1:0]", w.startsAt("earliest"))
	p := w.producer("a")
	p.begin()
	p.produce(&outbox.Message{Topic: in, TimestampMs: day.UnixMilli(), Value: []byte("late")})
	w.is("commit", "ok", class(p.commit()))
	w.until("its marker, which has a time, too", func() bool { _, hw := w.ends(in); return hw == 6 })
	w.is("at the marker, not behind it", "map[0:5 1:0]", at(9*time.Hour))
}

func latestIsStable(w *world) {
	w.topics(1)
	in := w.cfg.Topics.Input
	w.write(in, 0, "a", "b")
	p := w.producer("a")
	p.begin()
	p.produce(event(in, "open"))
	w.until("it is in the log", func() bool { return len(w.reads(in, kgo.ReadUncommitted(), 3)) == 3 })
	w.is("latest", "map[0:2]", w.startsAt("latest"))
	w.is("commit", "ok", class(p.commit()))
	w.until("the end moves on behind the marker", func() bool { return fmt.Sprint(w.startsAt("latest")) == "map[0:4]" })
}

func nothingMadeOnFirstUse(w *world) {
	p := w.producerWithin("a", 3*time.Second)
	p.begin()
	p.produce(event(w.cfg.Topics.Output, "e"))
	w.is("produce", "abortable", class(p.commit()))
	w.is("abort", "ok", class(p.abort()))
	m := w.join("a")
	w.until("a consumer has looked for it a while, too", func() bool { return m.polled() >= 50 })
	w.is("topics", 0, len(ask(w, w.adm.TopicIDs)))
	w.is("partitions", 0, len(ask(w, w.adm.Partitions)))
}

func setupRepeats(w *world) {
	t := w.cfg.Topics
	w.cfg.Topics.Partitions = 3
	made, err := provision.Topics(w.soon(), &w.cfg, w.adm)
	require.NoError(w.t, err)
	w.is("made", 5, len(made))
	made, err = provision.Topics(w.soon(), &w.cfg, w.adm)
	require.NoError(w.t, err)
	w.is("made again", 0, len(made))
	w.is("partitions", fmt.Sprint(map[string]int{t.Input: 3, t.Output: 3, t.DLQ: 3, w.cfg.Ledger.HeadsTopic: 1}), fmt.Sprint(ask(w, w.adm.Partitions)))
	w.is("the input's settings", "retention.ms=604800000 cleanup.policy=delete message.timestamp.type=CreateTime", w.settings(t.Input))
	w.is("the output's", "retention.ms=604800000 cleanup.policy=delete message.timestamp.type=CreateTime max.message.bytes=17825792", w.settings(t.Output))
	w.is("the dead letters'", "retention.ms=2592000000 cleanup.policy=delete message.timestamp.type=CreateTime max.message.bytes=17825792", w.settings(t.DLQ))
	w.cfg.Topics.Input, w.cfg.Topics.Replication = t.Input+"2", 9
	_, err = provision.Topics(w.soon(), &w.cfg, w.adm)
	w.is("more replicas than brokers", "INVALID_REPLICATION_FACTOR", name(err))
}

// settings are those of a topic that were set on it, in a fixed order.
func (w *world) settings(topic string) string {
	w.t.Helper()
	res, err := w.kadm.DescribeTopicConfigs(w.soon(), topic)
	require.NoError(w.t, err)
	var got []string
	for _, key := range []string{"retention.ms", "cleanup.policy", "message.timestamp.type", "max.message.bytes"} {
		for _, c := range res[0].Configs {
			if c.Key == key && c.Source == kmsg.ConfigSourceDynamicTopicConfig {
				got = append(got, key+"="+c.MaybeValue())
			}
		}
	}
	return strings.Join(got, " ")
}

func clusterHasAnID(w *world) {
	id := ask(w, w.adm.Cluster)
	w.is("there is one", true, id != "")
	brokers, err := w.kadm.ListBrokers(w.soon())
	require.NoError(w.t, err)
	for _, b := range brokers { // each says the same
		cfg := config.Config{Kafka: config.Kafka{Brokers: fmt.Sprintf("%s:%d", b.Host, b.Port)}}
		a, err := newAdmin(&cfg)
		require.NoError(w.t, err)
		same := ask(w, a.Cluster)
		a.Close()
		w.is("by each broker", id, same)
	}
}
