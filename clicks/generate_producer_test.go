package clicks

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/exactly-pipeline/exactly/schema"
)

const testTopic = "user_clicks"

// produceBundle is a fake cluster with the input topic, and what was said.
type produceBundle struct {
	cluster *kfake.Cluster
	brokers string
	mu      sync.Mutex
	said    []string
	spoke   chan string
}

func setupProduce(t testing.TB, opts ...kfake.Opt) *produceBundle {
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(12, testTopic)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return &produceBundle{cluster: c, brokers: strings.Join(c.ListenAddrs(), ","), spoke: make(chan string, 100)}
}

func (b *produceBundle) say(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = append(b.said, text)
	b.spoke <- text
}

func (b *produceBundle) config(seed uint64, count int64) GenerateConfig {
	return GenerateConfig{
		Brokers: b.brokers, Topic: testTopic, SchemaID: 1, Count: count, Say: b.say,
		Source: Made{NewGenerator(GeneratorConfig{Seed: seed, BadShare: 0.001})},
	}
}

// requireTopicHolds reads the topic to its end and compares it with what the seed makes: every click once, none else, keys and values.
func (b *produceBundle) requireTopicHolds(t *testing.T, seed uint64, count int64) {
	t.Helper()
	want := map[string]int{}
	g, enc := NewGenerator(GeneratorConfig{Seed: seed, BadShare: 0.001}), schema.NewClickEncoder(1)
	for range count {
		var c schema.Click
		d := g.Next(&c)
		want[strconv.FormatInt(c.UserID, 10)+"="+string(d.Damage(enc.Append(nil, &c)))]++
	}
	var end int64
	for _, p := range b.cluster.PartitionInfos(testTopic) {
		end += p.HighWatermark
	}
	require.Equal(t, count, end, "records in the topic")

	cl, err := kgo.NewClient(kgo.SeedBrokers(b.brokers), kgo.ConsumeTopics(testTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	partitioner := kgo.StickyKeyPartitioner(nil).ForTopic(testTopic) // the Java client's murmur2
	for got := int64(0); got < count; {
		fs := cl.PollFetches(ctx)
		require.NoError(t, fs.Err())
		fs.EachRecord(func(r *kgo.Record) {
			got++
			want[string(r.Key)+"="+string(r.Value)]--
			require.EqualValues(t, partitioner.Partition(r, 12), r.Partition, "key %s", r.Key)
		})
	}
	for k, n := range want {
		require.Zero(t, n, "%q", k)
	}
}

func TestGenerateExactly(t *testing.T) {
	b := setupProduce(t)
	cfg := b.config(11, 20_000)
	done, err := Generate(t.Context(), cfg)
	require.NoError(t, err)
	require.EqualValues(t, 20_000, done.Clicks)
	require.EqualValues(t, 20_000, done.Acknowledged)
	require.Zero(t, done.Failed)
	require.Greater(t, done.Invalid, int64(0))
	require.False(t, done.Stopped)
	require.Empty(t, b.said)
	b.requireTopicHolds(t, 11, 20_000)
}

// A request that fails after the broker has appended it is sent again: only idempotence keeps it from being there twice.
func TestGenerateExactlyThroughFailedRequests(t *testing.T) {
	for _, e := range []*kerr.Error{kerr.RequestTimedOut, kerr.NotEnoughReplicasAfterAppend, kerr.NotEnoughReplicas, kerr.NotLeaderForPartition} {
		t.Run(e.Message, func(t *testing.T) {
			b := setupProduce(t)
			h := b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: testTopic, Err: e, Count: 3})
			done, err := Generate(t.Context(), b.config(12, 5_000))
			require.NoError(t, err)
			require.EqualValues(t, 5_000, done.Acknowledged)
			require.Greater(t, h.Hits(), 0, "the fault was met")
			b.requireTopicHolds(t, 12, 5_000)
		})
	}
}

func TestGenerateExactlyThroughLostConnections(t *testing.T) {
	b := setupProduce(t)
	left := 4
	b.cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl() // for good: it is not undone by a later call that does not ask for it
		left--
		return nil, errors.New("connection lost"), left >= 0
	})
	done, err := Generate(t.Context(), b.config(13, 5_000))
	require.NoError(t, err)
	require.EqualValues(t, 5_000, done.Acknowledged)
	b.requireTopicHolds(t, 13, 5_000)
}

func TestGenerateFailsOnAFailedDelivery(t *testing.T) {
	b := setupProduce(t)
	b.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: testTopic, Err: kerr.TopicAuthorizationFailed, Count: -1})
	done, err := Generate(t.Context(), b.config(14, 100))
	require.ErrorContains(t, err, "deliver to user_clicks")
	require.Zero(t, done.Acknowledged)
	require.Greater(t, done.Failed, int64(0))
}

func TestGenerateNeedsTheTopic(t *testing.T) {
	b := setupProduce(t)
	cfg := b.config(15, 1)
	cfg.Topic = "another"
	_, err := Generate(t.Context(), cfg)
	require.ErrorContains(t, err, "exactly setup creates it")
	require.Nil(t, b.cluster.TopicInfo("another"), "nor was it created on the way")
}

func TestGenerateStopsAndFlushes(t *testing.T) {
	b := setupProduce(t)
	cfg := b.config(16, 0)
	cfg.Rate = 2000
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg.Progress = func(g Generated) {
		if g.Acknowledged > 0 {
			cancel()
		}
	}
	done, err := Generate(ctx, cfg)
	require.NoError(t, err)
	require.True(t, done.Stopped)
	require.Equal(t, done.Clicks, done.Acknowledged)
	b.requireTopicHolds(t, 16, done.Clicks)
}

func TestGenerateGivesUpAfterStopTimeout(t *testing.T) {
	b := setupProduce(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	b.cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		cancel()
		return nil, nil, true // no answer, ever
	})
	cfg := b.config(17, 50)
	cfg.StopTimeout = 200 * time.Millisecond
	done, err := Generate(ctx, cfg)
	require.ErrorContains(t, err, "50 clicks not acknowledged within 200ms")
	require.Zero(t, done.Acknowledged)
}

func TestGenerateWaitsForABroker(t *testing.T) {
	b := setupProduce(t)
	port := portOf(t, b.brokers)
	b.cluster.Close()
	ran := make(chan error, 1)
	var done Generated
	go func() {
		var err error
		done, err = Generate(t.Context(), b.config(18, 1000))
		ran <- err
	}()
	require.Contains(t, <-b.spoke, "waiting for Kafka")
	c, err := kfake.NewCluster(kfake.Ports(port), kfake.SeedTopics(12, testTopic))
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, <-ran)
	require.EqualValues(t, 1000, done.Acknowledged)
	require.Len(t, b.said, 2, b.said)
	require.Equal(t, "Kafka is there", b.said[1])
	b.cluster = c
	b.requireTopicHolds(t, 18, 1000)
}

func TestGenerateEndsWhileItWaitsForABroker(t *testing.T) {
	b := setupProduce(t)
	b.cluster.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-b.spoke; cancel() }()
	done, err := Generate(ctx, b.config(19, 1000))
	require.NoError(t, err)
	require.Zero(t, done.Clicks)
	require.True(t, done.Stopped)
}

func portOf(t *testing.T, addr string) int {
	_, p, _ := strings.Cut(addr, ":")
	n, err := strconv.Atoi(p)
	require.NoError(t, err)
	return n
}

func BenchmarkGenerate(b *testing.B) {
	for _, opts := range []struct {
		name string
		opts []kfake.Opt
	}{{"stored", nil}, {"blackhole", []kfake.Opt{kfake.BlackholeProduce()}}} {
		b.Run(opts.name, func(b *testing.B) {
			p := setupProduce(b, opts.opts...)
			b.ResetTimer()
			done, err := Generate(b.Context(), p.config(1, int64(b.N)))
			require.NoError(b, err)
			b.ReportMetric(done.PerSecond, "clicks/s")
		})
	}
}
