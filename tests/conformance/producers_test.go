package conformance

import (
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var producerRules = []rule{
	{"a-batch-sent-twice-is-one", "the client sends a batch again when its answer is lost: the broker knows it by its sequence, and nothing is there twice", batchTwice, wire},
	{"no-stray-records", "a batch that arrives outside of its transaction is refused: it would hang there, and hold up all readers", noStrayRecords, wire},
	{"open-transactions-are-listed", "who has a transaction open, since when and on which partitions can be asked: that is how a hanging one is found", openAreListed, wire},
}

// batch is a record batch of n records, beginning at a sequence number.
func batch(pid int64, epoch int16, sequence int32, n int, transactional bool) []byte {
	b := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, LastOffsetDelta: int32(n - 1), FirstTimestamp: now(), MaxTimestamp: now(),
		ProducerID: pid, ProducerEpoch: epoch, FirstSequence: sequence, NumRecords: int32(n),
	}
	if transactional {
		b.Attributes = 1 << 4
	}
	for i := range n {
		r := kmsg.Record{OffsetDelta: int32(i), Value: []byte(fmt.Sprintf("s%d", sequence+int32(i)))}
		body := r.AppendTo(nil)[1:] // without its length, which is still 0
		r.Length = int32(len(body))
		b.Records = r.AppendTo(b.Records)
	}
	raw := b.AppendTo(nil)
	b.Length = int32(len(raw) - 12)
	raw = b.AppendTo(nil)
	b.CRC = int32(crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b.AppendTo(nil)
}

// push is Produce of n records to partition 0, in the transaction.
func (o *open) push(topic string, sequence int32, n int) string {
	o.w.t.Helper()
	return o.settled(func() (int16, error) {
		c, _ := o.w.pushed(topic, batch(o.pid, o.epoch, sequence, n, true), o.id)
		return c, nil
	})
}

// pushed is Produce to partition 0, to its leader: the error code and the first offset.
func (w *world) pushed(topic string, records []byte, transactionalID string) (int16, int64) {
	w.t.Helper()
	md, err := w.kadm.Metadata(w.soon(), topic)
	require.NoError(w.t, err)
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 5000
	if transactionalID != "" {
		req.TransactionID = &transactionalID
	}
	t := kmsg.NewProduceRequestTopic()
	t.Topic = topic
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = records
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	var res kmsg.ProduceResponseTopicPartition
	w.until("the leader knows that it is one", func() bool {
		kres, err := w.raw.Broker(int(md.Topics[topic].Partitions[0].Leader)).Request(w.soon(), req)
		require.NoError(w.t, err)
		res = kres.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		return code(res.ErrorCode) != "NOT_LEADER_FOR_PARTITION"
	})
	return res.ErrorCode, res.BaseOffset
}

func batchTwice(w *world) {
	w.topics(1)
	in := w.cfg.Topics.Input
	req := kmsg.NewPtrInitProducerIDRequest()
	req.ProducerID, req.ProducerEpoch = -1, -1
	res, err := req.RequestWith(w.soon(), w.raw)
	require.NoError(w.t, err)
	require.Equal(w.t, "ok", code(res.ErrorCode))
	send := func(epoch int16, sequence int32, n int) string {
		c, at := w.pushed(in, batch(res.ProducerID, epoch, sequence, n, false), "")
		if c != 0 {
			return code(c)
		}
		return fmt.Sprint("at ", at)
	}
	w.is("first", "at 0", send(res.ProducerEpoch, 0, 2))
	w.is("second", "at 2", send(res.ProducerEpoch, 2, 1))
	w.is("second again", "at 2", send(res.ProducerEpoch, 2, 1))
	w.is("first again", "at 0", send(res.ProducerEpoch, 0, 2))
	w.is("one left out", "OUT_OF_ORDER_SEQUENCE_NUMBER", send(res.ProducerEpoch, 4, 1))
	w.is("the next", "at 3", send(res.ProducerEpoch, 3, 1))
	w.is("another epoch begins at 0", "at 4", send(res.ProducerEpoch+1, 0, 1))
	w.is("the former epoch", "INVALID_PRODUCER_EPOCH", send(res.ProducerEpoch, 4, 1))
	w.is("what there is", "[s0 s1 s2 s3 s0]", w.committed(in))
}

func noStrayRecords(w *world) {
	w.topics(1)
	out := w.cfg.Topics.Output
	o := w.initProducer("a")
	w.is("before any transaction", "refused", refused(o.push(out, 0, 1)))
	require.Equal(w.t, "ok", o.addPartition(out))
	w.is("in one", "ok", o.push(out, 0, 1))
	w.is("commit", "ok", o.end(true))
	w.until("its marker is in the log", func() bool { lso, hw := w.ends(out); return lso == hw }) // until then it would be part of the transaction
	w.is("after it", "refused", refused(o.push(out, 1, 1)))
	lso, hw := w.ends(out)
	w.is("nothing hangs", hw, lso)
	w.is("events", "[s0]", w.committed(out))
}

// addPartition is AddPartitionsToTxn of partition 0.
func (o *open) addPartition(topic string) string {
	o.w.t.Helper()
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = o.id, o.pid, o.epoch
	t := kmsg.NewAddPartitionsToTxnRequestTopic()
	t.Topic, t.Partitions = topic, []int32{0}
	req.Topics = append(req.Topics, t)
	return o.settled(func() (int16, error) {
		req.Version = 3
		res, err := req.RequestWith(o.w.soon(), o.w.raw)
		return codeOf(res != nil && len(res.Topics) > 0, func() int16 { return res.Topics[0].Partitions[0].ErrorCode }), err
	})
}

func openAreListed(w *world) {
	w.topics(1)
	out := w.cfg.Topics.Output
	began := time.Now()
	o := w.pending("a", 0, 3)
	require.Equal(w.t, "ok", o.addPartition(out))
	c, at := w.pushed(out, batch(o.pid, o.epoch, 0, 2, true), o.id)
	require.Equal(w.t, "ok", code(c))

	state := func() string {
		d, err := w.kadm.DescribeTransactions(w.soon(), o.id)
		require.NoError(w.t, err)
		return name(d[o.id].Err) + " " + d[o.id].State
	}
	d, err := w.kadm.DescribeTransactions(w.soon(), o.id)
	require.NoError(w.t, err)
	got := d[o.id]
	w.is("described", "ok Ongoing", state())
	w.is("producer", fmt.Sprint(o.pid, o.epoch), fmt.Sprint(got.ProducerID, got.ProducerEpoch))
	w.is("since about now", true, got.StartTimestamp >= began.Add(-time.Minute).UnixMilli() && got.StartTimestamp <= time.Now().Add(time.Minute).UnixMilli())
	var parts []string
	for _, t := range got.Topics.Sorted() {
		parts = append(parts, t.Topic)
	}
	w.is("its output topic is among its partitions", true, slices.Contains(parts, out))
	w.is("the group's offsets are, too", true, slices.Contains(parts, "__consumer_offsets"))
	listed, err := w.kadm.ListTransactions(w.soon(), nil, []string{"Ongoing"})
	require.NoError(w.t, err)
	w.is("listed as ongoing", true, listed[o.id].State == "Ongoing" && listed[o.id].ProducerID == o.pid)

	active := func() string {
		ps, err := w.kadm.DescribeProducers(w.soon(), kadm.TopicsSet{out: {0: {}}})
		require.NoError(w.t, err)
		for _, p := range ps[out].Partitions[0].ActiveProducers {
			if p.ProducerID == o.pid {
				return fmt.Sprint(p.CurrentTxnStartOffset, " ", p.LastSequence)
			}
		}
		return "not there"
	}
	w.is("at the partition: first offset, last sequence", fmt.Sprint(at, " 1"), active())
	w.is("commit", "ok", o.end(true))
	w.until("the markers are written", func() bool { lso, hw := w.ends(out); return lso == hw })
	w.until("the markers are written in all partitions", func() bool { return state() != "ok PrepareCommit" })
	w.is("described when committed", "ok CompleteCommit", state())
	w.is("at the partition when committed", "-1 1", active())
	listed, err = w.kadm.ListTransactions(w.soon(), nil, []string{"Ongoing"})
	require.NoError(w.t, err)
	_, still := listed[o.id]
	w.is("still listed as ongoing", false, still)
}
