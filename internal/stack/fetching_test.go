package stack

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// inTurns writes to partition 0 of a new topic: a transaction that is aborted, one that is committed, and so on.
func inTurns(t *testing.T, brokers string) (committed []string) {
	t.Helper()
	tx := client(t, brokers, kgo.TransactionalID("tx"), kgo.ProducerBatchCompression(kgo.NoCompression()))
	_, err := kadm.NewClient(tx).CreateTopic(bounded(t), 1, 1, nil, "turns")
	require.NoError(t, err)
	for i := range 20 {
		require.NoError(t, tx.BeginTransaction())
		value := strconv.Itoa(i) + strings.Repeat("-", 1000)
		require.NoError(t, tx.ProduceSync(bounded(t), &kgo.Record{Topic: "turns", Value: []byte(value)}).FirstErr())
		require.NoError(t, tx.EndTransaction(bounded(t), i%2 == 1))
		if i%2 == 1 {
			committed = append(committed, value)
		}
	}
	return committed
}

// inBites reads all of it, a few transactions at a time.
func inBites(t *testing.T, brokers string) (values []string) {
	t.Helper()
	const bite = 5000
	cl := client(t, brokers, kgo.ConsumeTopics("turns"), kgo.FetchMaxBytes(bite), kgo.FetchMaxPartitionBytes(bite), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords())
	ends, err := kadm.NewClient(cl).ListCommittedOffsets(bounded(t), "turns")
	require.NoError(t, err)
	for next := int64(0); next < ends["turns"][0].Offset; {
		fetches := cl.PollFetches(bounded(t))
		require.NoError(t, fetches.Err0())
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				values = append(values, string(r.Value))
			}
			next = r.Offset + 1
		})
	}
	return values
}

// Aborted records stay out of sight where an answer ends at the request's MaxBytes.
func TestShortAnswersHideTheAborted(t *testing.T) {
	s := start(t, t.TempDir())
	require.Equal(t, inTurns(t, s.Brokers()), inBites(t, s.Brokers()))
}

// The reason for watchFetches: kfake on its own shows them.
func TestShortAnswersOfKfake(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	brokers := c.ListenAddrs()[0]
	require.NotEqual(t, inTurns(t, brokers), inBites(t, brokers), "kfake names the aborted by itself now: take watchFetches out")
}

func TestLimitByPartition(t *testing.T) {
	for _, c := range []struct {
		most       int32
		were, then []int32
	}{
		{4 << 20, []int32{4 << 20}, []int32{4 << 20}},
		{1000, []int32{5000}, []int32{1000}},
		{1000, []int32{500, 400}, []int32{500, 400}},
		{1000, []int32{1000, 1000, 1000}, []int32{333, 333, 333}},
		{math.MaxInt32, []int32{math.MaxInt32, math.MaxInt32}, []int32{math.MaxInt32 / 2, math.MaxInt32 / 2}},
		{1, []int32{7, 7}, []int32{0, 0}},
	} {
		r := kmsg.NewPtrFetchRequest()
		r.MaxBytes = c.most
		for _, max := range c.were { // each of a topic of its own
			p := kmsg.NewFetchRequestTopicPartition()
			p.PartitionMaxBytes = max
			topic := kmsg.NewFetchRequestTopic()
			topic.Partitions = append(topic.Partitions, p)
			r.Topics = append(r.Topics, topic)
		}
		limitByPartition(r)
		var then []int32
		for _, topic := range r.Topics {
			then = append(then, topic.Partitions[0].PartitionMaxBytes)
		}
		require.Equal(t, c.then, then)
		require.EqualValues(t, math.MaxInt32, r.MaxBytes)
	}
}
