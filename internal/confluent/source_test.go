package confluent

import (
	"testing"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

// Brokers that do not answer keep the callback of an assignment for a bounded time, not for each partition's.
func TestPlacedWithinABound(t *testing.T) {
	t.Parallel()
	c, err := kafka.NewConsumer(&kafka.ConfigMap{"bootstrap.servers": "127.0.0.1:1", "group.id": "g"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	topic := "in"
	parts := make([]kafka.TopicPartition, 50)
	for i := range parts {
		parts[i] = kafka.TopicPartition{Topic: &topic, Partition: int32(i)}
	}
	s := &Source{c: c, topic: topic, log: zap.NewNop()}
	began := time.Now()
	out := s.placed(parts)
	require.Less(t, time.Since(began), 2*placedWithin)
	for i := range out {
		require.EqualValues(t, i, out[i].Partition)
		require.Equal(t, "in", *out[i].Topic)
		require.Zero(t, out[i].Offset)
	}
	require.Empty(t, s.placed(nil))
}
