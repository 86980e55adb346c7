package franz

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/config"
)

// A poll is bounded by bytes, headers included: what compressed well comes by the thousand in one fetch.
func TestPollBytes(t *testing.T) {
	const records, each = 400, 100_000
	cfg := config.Defaults()
	cfg.Worker.ID = "a"
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, cfg.Topics.Input))
	require.NoError(t, err)
	t.Cleanup(k.Close)
	cfg.Kafka.Brokers = k.ListenAddrs()[0]
	cfg.Kafka.HeartbeatInterval = 300 * time.Millisecond
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...), kgo.DefaultProduceTopic(cfg.Topics.Input), kgo.ProducerBatchCompression(kgo.GzipCompression()),
		kgo.ProducerBatchMaxBytes(64<<20))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	rs := make([]*kgo.Record, records)
	for i := range rs {
		rs[i] = &kgo.Record{Headers: []kgo.RecordHeader{{Key: "h", Value: make([]byte, each)}}}
	}
	require.NoError(t, cl.ProduceSync(t.Context(), rs...).FirstErr())

	s, err := NewSource(&cfg, &listener{}, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	got, sought := 0, false
	for began := time.Now(); got < records; {
		require.Less(t, time.Since(began), time.Minute)
		sought = sought || s.Seek(0, 0) == nil
		buf, err := s.Poll(nil, 4096, 10*time.Millisecond)
		require.NoError(t, err)
		bytes := 0
		for i := range buf {
			require.EqualValues(t, got+i, buf[i].Offset)
			bytes += buf[i].Size()
		}
		require.Less(t, bytes, engine.PollBytes+(piece+1)*each)
		got += len(buf)
	}
}
