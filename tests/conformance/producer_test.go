package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/confluent"
	"github.com/exactly-pipeline/exactly/internal/franz"
	"github.com/exactly-pipeline/exactly/outbox"
	"github.com/exactly-pipeline/exactly/txn"
)

// producer is a worker's, step by step.
type producer struct {
	w *world
	p txn.Producer
}

func (w *world) producer(worker string) *producer {
	w.t.Helper()
	return w.producerWithin(worker, 30*time.Second)
}

// producerWithin is one whose transactions may take no longer than timeout.
func (w *world) producerWithin(worker string, timeout time.Duration) *producer {
	w.t.Helper()
	cfg := w.cfg
	cfg.Worker.ID, cfg.Kafka.TransactionTimeout = worker, timeout
	w.clients = true
	var p txn.Producer
	var err error
	if w.client == "franz" {
		limit, lerr := w.adm.MaxMessageBytes(w.soon())
		if lerr != nil { // where the rule is that there are no such topics
			limit = 0
		}
		p, err = franz.NewProducer(&cfg, limit, zap.NewNop())
	} else {
		p, err = confluent.NewProducer(&cfg, zap.NewNop())
	}
	require.NoError(w.t, err)
	w.t.Cleanup(p.Close)
	require.NoError(w.t, p.Init(w.soon()))
	return &producer{w, p}
}

// soon is a deadline for one call.
func (w *world) soon() context.Context {
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	w.t.Cleanup(cancel)
	return ctx
}

func (p *producer) begin() {
	p.w.t.Helper()
	require.NoError(p.w.t, p.p.Begin())
}

// event is a message to partition 0 of a topic, of now: a broker counts retention from a record's own time, and what is older may be
// gone before it is read.
func event(topic, value string) *outbox.Message {
	return &outbox.Message{Topic: topic, TimestampMs: now(), Value: []byte(value)}
}

func (p *producer) produce(ms ...*outbox.Message) {
	p.w.t.Helper()
	for _, m := range ms {
		require.NoError(p.w.t, p.p.Produce(p.w.soon(), m))
	}
	require.NoError(p.w.t, p.p.Send(p.w.soon()))
}

// offsets sends input offsets to the transaction, with a member's stamp.
func (p *producer) offsets(s engine.Stamp, os ...txn.Offset) error {
	return p.call("send offsets", func(ctx context.Context) error { return p.p.SendOffsets(ctx, p.w.cfg.Topics.Input, os, s) })
}

func (p *producer) commit() error { return p.call("commit", p.p.Commit) }
func (p *producer) abort() error  { return p.call("abort", p.p.Abort) }

// call makes the same call again while its error is retriable, as the pipeline's publisher does. It shows an error where somebody looks: its
// class is what is asserted.
func (p *producer) call(what string, f func(context.Context) error) error {
	ctx := p.w.soon()
	for {
		err := f(ctx)
		if err != nil {
			p.w.t.Logf("%s: %v", what, err)
		}
		if class(err) != "retriable" || ctx.Err() != nil {
			return err
		}
		t := time.NewTimer(20 * time.Millisecond)
		<-t.C
	}
}

// offset is one as publish commits it.
func offset(partition int32, at int64) txn.Offset {
	return txn.Offset{Partition: partition, Offset: at, LeaderEpoch: -1, Metadata: txn.Metadata(1, at)}
}

// class is what the product makes of a client's error.
func class(err error) string {
	var e *txn.Error
	if err == nil {
		return "ok"
	}
	if !errors.As(err, &e) {
		return "no class: " + err.Error()
	}
	return [...]string{"unknown", "retriable", "abortable", "stale", "fatal"}[e.Class]
}

// reads are the values on partition 0 of a topic, read to its end by somebody whom only what is committed concerns, or who looks at all.
func (w *world) reads(topic string, level kgo.IsolationLevel, n int, opts ...kgo.Opt) []string {
	w.t.Helper()
	cl := w.kgo(append(opts, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(0)}}), kgo.FetchIsolationLevel(level))...)
	defer cl.Close()
	values := []string{}
	for len(values) < n {
		fs := cl.PollFetches(w.soon())
		require.NoError(w.t, fs.Err())
		fs.EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	return values
}

// committed reads a topic's partition 0 from a mark on which is committed last, so that nothing before it is still on its way.
func (w *world) committed(topic string) []string {
	w.t.Helper()
	mark := fmt.Sprintf("mark %d", time.Now().UnixNano())
	w.write(topic, 0, mark)
	cl := w.kgo(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	defer cl.Close()
	values := []string{}
	for !slices.Contains(values, mark) {
		fs := cl.PollFetches(w.soon())
		require.NoError(w.t, fs.Err())
		fs.EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	return slices.DeleteFunc(values, func(v string) bool { return len(v) > 5 && v[:5] == "mark " })
}

// write produces plain records.
func (w *world) write(topic string, partition int32, values ...string) {
	w.t.Helper()
	cl := w.kgo()
	defer cl.Close()
	var rs []*kgo.Record
	for _, v := range values {
		rs = append(rs, &kgo.Record{Topic: topic, Partition: partition, Value: []byte(v)})
	}
	require.NoError(w.t, cl.ProduceSync(w.soon(), rs...).FirstErr())
}

// group is what the product reads of the group's offset of a partition, in words.
func (w *world) group(partition int32) string {
	w.t.Helper()
	os := ask(w, func(ctx context.Context) (map[int32]admin.GroupOffset, error) {
		return w.adm.GroupOffsets(ctx, []int32{partition})
	})
	switch o := os[partition]; {
	case o.Pending:
		return "pending"
	case o.Has:
		return fmt.Sprint(o.Offset)
	}
	return "none"
}

// settled waits until the group's offset is not pending: a commit is answered before its markers are written.
func (w *world) settled(partition int32) string {
	w.t.Helper()
	var got string
	w.until("the group offset is stable", func() bool { got = w.group(partition); return got != "pending" })
	return got
}

// open is a transaction of a worker's, spoken step by step on the wire: a producer that its process no longer stands behind.
type open struct {
	w     *world
	id    string
	pid   int64
	epoch int16
}

// initProducer is InitProducerId, as a producer that starts sends it.
func (w *world) initProducer(worker string) *open {
	w.t.Helper()
	o := &open{w: w, id: w.cfg.TransactionalID(worker)}
	require.Equal(w.t, "ok", o.init(-1, -1))
	return o
}

func (o *open) init(pid int64, epoch int16) string {
	o.w.t.Helper()
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis, req.ProducerID, req.ProducerEpoch = &o.id, 60_000, pid, epoch
	return o.settled(func() (int16, error) {
		res, err := req.RequestWith(o.w.soon(), o.w.raw)
		if err == nil && res.ErrorCode == 0 {
			o.pid, o.epoch = res.ProducerID, res.ProducerEpoch
		}
		return codeOf(res != nil, func() int16 { return res.ErrorCode }), err
	})
}

// settled asks again as long as the coordinator is still busy with what was before.
func (o *open) settled(ask func() (int16, error)) string {
	o.w.t.Helper()
	var got string
	o.w.until("the coordinator has settled", func() bool {
		c, err := ask()
		got = code(c)
		if err != nil {
			got = name(err)
		}
		return got != "CONCURRENT_TRANSACTIONS" && got != "COORDINATOR_LOAD_IN_PROGRESS" && got != "NOT_COORDINATOR" && got != "COORDINATOR_NOT_AVAILABLE" &&
			got != "NOT_ENOUGH_REPLICAS" // what a client before KIP-890 is told while the former transaction ends
	})
	return got
}

func codeOf(there bool, c func() int16) int16 {
	if !there {
		return 0
	}
	return c()
}

// addOffsets is AddOffsetsToTxn.
func (o *open) addOffsets() string {
	o.w.t.Helper()
	req := kmsg.NewPtrAddOffsetsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = o.id, o.pid, o.epoch, o.w.cfg.Group
	return o.settled(func() (int16, error) {
		res, err := req.RequestWith(o.w.soon(), o.w.raw)
		return codeOf(res != nil, func() int16 { return res.ErrorCode }), err
	})
}

// as names the member that TxnOffsetCommit speaks for.
type as struct {
	member     string
	generation int32
	instance   string
}

// outsider is nobody: an empty member id and generation -1.
var outsider = as{"", -1, ""}

// stage is TxnOffsetCommit of one partition of the input.
func (o *open) stage(who as, partition int32, at int64) string {
	o.w.t.Helper()
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = o.id, o.pid, o.epoch, o.w.cfg.Group
	req.MemberID, req.Generation = who.member, who.generation
	if who.instance != "" {
		req.InstanceID = &who.instance
	}
	t := kmsg.NewTxnOffsetCommitRequestTopic()
	t.Topic = o.w.cfg.Topics.Input
	p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	metadata := txn.Metadata(1, at)
	p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = partition, at, -1, &metadata
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	return o.settled(func() (int16, error) {
		res, err := req.RequestWith(o.w.soon(), o.w.raw)
		return codeOf(res != nil, func() int16 { return res.Topics[0].Partitions[0].ErrorCode }), err
	})
}

// end is EndTxn.
func (o *open) end(commit bool) string {
	o.w.t.Helper()
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = o.id, o.pid, o.epoch, commit
	return o.settled(func() (int16, error) {
		res, err := req.RequestWith(o.w.soon(), o.w.raw)
		return codeOf(res != nil, func() int16 { return res.ErrorCode }), err
	})
}

// pending leaves a transaction open in which the offset of a partition is staged.
func (w *world) pending(worker string, partition int32, at int64) *open {
	w.t.Helper()
	o := w.initProducer(worker)
	require.Equal(w.t, "ok", o.addOffsets())
	require.Equal(w.t, "ok", o.stage(outsider, partition, at))
	return o
}
