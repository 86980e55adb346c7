package transactions

import (
	"context"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/stack"
	"github.com/exactly-pipeline/exactly/internal/stack/apache"
	"github.com/exactly-pipeline/exactly/internal/teststack"
)

// shared is the broker all tests of this package use; each has topics and a group of its own.
var shared *stack.Stack

// embedded says whether that is the embedded broker.
func embedded() bool { return shared.Cluster() == nil }

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "exactly-transactions-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the system's temporary folder
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	// Since KIP-890 brokers verify that a partition is in the transaction before they append: without that, one can be made to hang.
	unverified := apache.Options{Properties: map[string]string{"transaction.partition.verification.enable": "false"}}
	shared, err = teststack.Start(ctx, stack.Options{Dir: filepath.Join(dir, "stack"), Only: stack.Broker, Apache: unverified})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer shared.Stop() //nolint:errcheck // its directory goes as well
	return m.Run()
}

var nth atomic.Int32

// bundle is one test's group and topics.
type bundle struct {
	t   *testing.T
	ctx context.Context
	cfg config.Config
	a   *admin.Admin
	*Desk
}

func setup(t *testing.T) *bundle { return setupAt(t, shared.Brokers()) }

func setupAt(t *testing.T, brokers string) *bundle {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	b := &bundle{t: t, ctx: ctx, cfg: config.Defaults()}
	name := fmt.Sprintf("%s.%d", regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(t.Name()), "."), nth.Add(1))
	b.cfg.Kafka.Brokers, b.cfg.Group, b.cfg.Worker.ID, b.cfg.Kafka.TransactionTimeout = brokers, name, "me", 10*time.Second
	b.cfg.Topics = config.Topics{Input: name + ".in", Output: name + ".out", DLQ: name + ".dlq"}
	var err error
	b.a, err = admin.New(&b.cfg, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(b.a.Close)
	_, err = b.a.Kadm().CreateTopics(ctx, 2, 1, nil, b.cfg.Topics.Input, b.cfg.Topics.Output, b.cfg.Topics.DLQ)
	require.NoError(t, err)
	require.NoError(t, b.a.AwaitTopics(ctx, b.cfg.Topics.Input, b.cfg.Topics.Output, b.cfg.Topics.DLQ))
	b.Desk = New(&b.cfg, b.a)
	return b
}

// client is a producer before KIP-890, as librdkafka is one.
func (b *bundle) client(opts ...kgo.Opt) *kgo.Client {
	b.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(strings.Split(b.cfg.Kafka.Brokers, ",")...), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MaxVersions(kversion.V3_7_0())}, opts...)...)
	require.NoError(b.t, err)
	b.t.Cleanup(cl.Close)
	return cl
}

// open is a producer with a transaction open, of as many records as there are partitions named, each in one of the output topic's.
func (b *bundle) open(id string, partitions ...int32) *kgo.Client {
	b.t.Helper()
	cl := b.client(kgo.TransactionalID(id), kgo.TransactionTimeout(time.Minute))
	require.NoError(b.t, cl.BeginTransaction())
	b.produce(cl, b.cfg.Topics.Output, partitions...)
	return cl
}

func (b *bundle) produce(cl *kgo.Client, topic string, partitions ...int32) {
	b.t.Helper()
	for _, p := range partitions {
		// The workers' records carry the clicks' timestamps: what is old by its timestamp may have come just now.
		r := &kgo.Record{Topic: topic, Partition: p, Value: []byte("x"), Timestamp: time.Now().Add(-24 * time.Hour)}
		require.NoError(b.t, cl.ProduceSync(b.ctx, r).FirstErr())
	}
}

func (b *bundle) list(o Options) []Transaction {
	b.t.Helper()
	r, err := b.List(b.ctx, o)
	require.NoError(b.t, err)
	require.Empty(b.t, r.Notes)
	return r.Transactions
}

// ends are the stable end and the end of a partition of the output topic.
func (b *bundle) ends(p int32) (stable, end int64) {
	b.t.Helper()
	s, err := b.adm.ListCommittedOffsets(b.ctx, b.cfg.Topics.Output)
	require.NoError(b.t, err)
	e, err := b.adm.ListEndOffsets(b.ctx, b.cfg.Topics.Output)
	require.NoError(b.t, err)
	return s[b.cfg.Topics.Output][p].Offset, e[b.cfg.Topics.Output][p].Offset
}

// hang leaves a hanging transaction of one record in partition 0 of the output topic, and returns its producer id.
func (b *bundle) hang(id string) int64 {
	b.t.Helper()
	cl := b.client()
	init := kmsg.NewPtrInitProducerIDRequest()
	init.TransactionalID, init.TransactionTimeoutMillis, init.ProducerID, init.ProducerEpoch = &id, 60_000, -1, -1
	var is *kmsg.InitProducerIDResponse
	require.Eventually(b.t, func() (ok bool) {
		var err error
		is, err = init.RequestWith(b.ctx, cl)
		require.NoError(b.t, err)
		return is.ErrorCode == 0
	}, 20*time.Second, 50*time.Millisecond)

	// A record written as if the partition had been added to the transaction, as a delayed one was before KIP-890.
	record := kmsg.Record{Value: []byte("x")}
	record.Length = int32(len(record.AppendTo(nil)) - 1)
	batch := kmsg.RecordBatch{PartitionLeaderEpoch: -1, Magic: 2, Attributes: 0x10, FirstTimestamp: 1, MaxTimestamp: 1, ProducerID: is.ProducerID,
		ProducerEpoch: is.ProducerEpoch, NumRecords: 1, Records: record.AppendTo(nil)}
	batch.Length = int32(len(batch.AppendTo(nil)) - 12)
	batch.CRC = int32(crc32.Checksum(batch.AppendTo(nil)[21:], crc32.MakeTable(crc32.Castagnoli)))
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = batch.AppendTo(nil)
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.Partitions = b.cfg.Topics.Output, append(topic.Partitions, p)
	req := kmsg.NewPtrProduceRequest()
	req.TransactionID, req.Acks, req.TimeoutMillis, req.Topics = &id, -1, 10_000, append(req.Topics, topic)
	ds, err := b.adm.ListTopics(b.ctx, b.cfg.Topics.Output)
	require.NoError(b.t, err)
	raw, err := cl.Broker(int(ds[b.cfg.Topics.Output].Partitions[0].Leader)).Request(b.ctx, req)
	require.NoError(b.t, err)
	require.NoError(b.t, kerr.ErrorForCode(raw.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode))
	return is.ProducerID
}

// forgetful is an embedded broker whose coordinator does not know open transactions: it can't be made to forget one by itself.
func forgetful(t *testing.T) string {
	t.Helper()
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(k.Close)
	k.ControlKey(int16(kmsg.ListTransactions), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		res := req.ResponseKind().(*kmsg.ListTransactionsResponse)
		return res, nil, true
	})
	return k.ListenAddrs()[0]
}
