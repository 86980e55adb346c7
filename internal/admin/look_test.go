package admin

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/stack"
	"github.com/exactly-pipeline/exactly/internal/teststack"
)

type bundle struct {
	ctx context.Context
	a   *Admin
	cfg config.Config
}

// brokers of the stack that all tests of this package use; each has its own topics, group and transactional ids.
var brokers string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "exactly-admin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the system's temporary folder
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	s, err := teststack.Join(ctx, stack.Options{Dir: dir, Only: stack.Broker})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer s.Stop() //nolint:errcheck // its directory goes as well
	brokers = s.Brokers()
	return m.Run()
}

var nth atomic.Int32

func setup(t *testing.T) *bundle {
	t.Helper()
	cfg := config.Defaults()
	cfg.Worker.ID = "me"
	cfg.Kafka.Brokers = brokers
	cfg.Kafka.StableTimeout, cfg.Kafka.TransactionTimeout = 200*time.Millisecond, time.Minute
	name := fmt.Sprintf("admin_%s_%d", strings.ToLower(t.Name()), nth.Add(1)) // -count
	cfg.Group, cfg.Topics.Input, cfg.Topics.Output, cfg.Topics.DLQ = name, name+".in", name+".out", name+".dlq"
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	a, err := New(&cfg, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(a.Close)
	_, err = a.Kadm().CreateTopics(ctx, 2, -1, nil, cfg.Topics.Input, cfg.Topics.Output, cfg.Topics.DLQ)
	require.NoError(t, err)
	require.NoError(t, a.AwaitTopics(ctx, cfg.Topics.Input, cfg.Topics.Output, cfg.Topics.DLQ))
	os := kadm.Offsets{} // the group exists whenever a worker looks: it is a member
	os.Add(kadm.Offset{Topic: cfg.Topics.Input, Partition: 1, At: 3, LeaderEpoch: -1})
	require.NoError(t, a.Kadm().CommitAllOffsets(ctx, cfg.Group, os))
	return &bundle{ctx, a, cfg}
}

// open is a worker's transaction left open: events produced, offset of partition 0 sent.
func (b *bundle) open(t *testing.T, worker string, offset int64, sources ...string) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...), kgo.TransactionalID(b.cfg.TransactionalID(worker)),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MaxVersions(kversion.V3_7_0())) // before KIP-890, as librdkafka speaks it
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	require.NoError(t, cl.BeginTransaction())
	for _, s := range sources {
		r := &kgo.Record{Topic: b.cfg.Topics.Output, Headers: []kgo.RecordHeader{{Key: SourceHeader, Value: []byte(s)}}}
		require.NoError(t, cl.ProduceSync(b.ctx, r).FirstErr())
	}
	id, epoch, err := cl.ProducerID(b.ctx)
	require.NoError(t, err)
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = b.cfg.TransactionalID(worker), id, epoch, b.cfg.Group
	_, err = add.RequestWith(b.ctx, cl)
	require.NoError(t, err)
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group, req.Generation = add.TransactionalID, id, epoch, b.cfg.Group, -1
	p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	md := "exactly/1 1 1"
	p.Offset, p.Metadata = offset, &md
	topic := kmsg.NewTxnOffsetCommitRequestTopic()
	topic.Topic, topic.Partitions = b.cfg.Topics.Input, append(topic.Partitions, p)
	req.Topics = append(req.Topics, topic)
	res, err := req.RequestWith(b.ctx, cl)
	require.NoError(t, err)
	require.Zero(t, res.Topics[0].Partitions[0].ErrorCode)
	return cl
}

// Guard 4: an offset that is pending in an open transaction is no offset. The partition is left out until the transaction is resolved.
func TestLookIsStable(t *testing.T) {
	b := setup(t)
	cl := b.open(t, "other", 7, b.cfg.Topics.Input+"/0/6")
	got, err := b.a.Look(b.ctx, map[int32]int32{0: -1})
	require.NoError(t, err)
	require.Empty(t, got, "an unstable offset was taken for an answer")
	require.NoError(t, cl.EndTransaction(b.ctx, kgo.TryCommit))
	got, err = b.a.Look(b.ctx, map[int32]int32{0: -1, 1: -1})
	require.NoError(t, err)
	require.True(t, got[0].HasOffset && got[0].Ours)
	require.EqualValues(t, 7, got[0].Offset)
	require.True(t, got[1].HasOffset)
	require.False(t, got[1].Ours)
}

// Fencing an absent worker aborts what it left open and makes the offset stable at once; its own late commit fails.
func TestFenceAbsent(t *testing.T) {
	b := setup(t)
	cl := b.open(t, "gone", 7, b.cfg.Topics.Input+"/0/6")
	fenced, err := b.a.FenceAbsent(b.ctx, []string{"gone", "me"})
	require.NoError(t, err)
	require.Equal(t, []string{"gone"}, fenced)
	got, err := b.a.Look(b.ctx, map[int32]int32{0: -1})
	require.NoError(t, err)
	require.Contains(t, got, int32(0))
	require.False(t, got[0].HasOffset, "the aborted offset was committed")
	require.Error(t, cl.EndTransaction(b.ctx, kgo.TryCommit))
}

// A live member is never fenced: it may have lost one partition and still own others.
func TestFenceLeavesMembers(t *testing.T) {
	b := setup(t)
	member, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...), kgo.ConsumerGroup(b.cfg.Group), kgo.InstanceID("alive"),
		kgo.ConsumeTopics(b.cfg.Topics.Input))
	require.NoError(t, err)
	t.Cleanup(member.Close)
	for members := map[string]string{}; members["alive"] == ""; {
		members, err = b.a.Members(b.ctx)
		require.NoError(t, err)
	}
	cl := b.open(t, "alive", 7, b.cfg.Topics.Input+"/0/6")
	fenced, err := b.a.FenceAbsent(b.ctx, []string{"alive"})
	require.NoError(t, err)
	require.Empty(t, fenced)
	require.NoError(t, cl.EndTransaction(b.ctx, kgo.TryCommit))
}

// A scan counts committed events only, and reads past transactions that are open when it begins.
func TestScanOutputs(t *testing.T) {
	b := setup(t)
	in := b.cfg.Topics.Input
	require.NoError(t, b.open(t, "a", 1, in+"/0/3", in+"/0/5", in+"/1/2", "other/0/99", "nonsense").EndTransaction(b.ctx, kgo.TryCommit))
	require.NoError(t, b.open(t, "b", 1, in+"/0/8").EndTransaction(b.ctx, kgo.TryAbort))
	got, err := b.a.ScanOutputs(b.ctx, []int32{0, 1, 2})
	require.NoError(t, err)
	require.Equal(t, map[int32]int64{0: 6, 1: 3, 2: 0}, got)

	cl := b.open(t, "c", 1, in+"/0/6")
	scanned := make(chan map[int32]int64, 1)
	go func() {
		m, err := b.a.ScanOutputs(b.ctx, []int32{0})
		if err == nil {
			scanned <- m
		}
		close(scanned)
	}()
	select {
	case m := <-scanned:
		t.Fatalf("the scan did not wait for the open transaction: %v", m)
	case <-time.After(300 * time.Millisecond):
	}
	require.NoError(t, cl.EndTransaction(b.ctx, kgo.TryCommit))
	require.Equal(t, map[int32]int64{0: 7}, <-scanned)
}
