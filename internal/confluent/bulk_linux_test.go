package confluent

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/stack"
	"github.com/exactly-pipeline/exactly/internal/teststack"
	"github.com/exactly-pipeline/exactly/outbox"
)

// The way records take in bulk leans on where the Go client keeps its handle. After an update of the client it is to be known, not found out by a
// pipeline that has become slow.
func TestInBulk(t *testing.T) {
	m := kafka.ConfigMap{"bootstrap.servers": "127.0.0.1:1", "group.id": "g"}
	c, err := kafka.NewConsumer(&m)
	require.NoError(t, err)
	r := newBulkReader(c)
	require.NotNil(t, r)
	r.close()
	require.NoError(t, c.Close())
	p, err := kafka.NewProducer(&kafka.ConfigMap{"bootstrap.servers": "127.0.0.1:1"})
	require.NoError(t, err)
	w := newBulkWriter(p)
	require.NotNil(t, w)
	w.close()
	p.Close()
}

// owner sets each partition to its beginning, as a claim does in the end.
type owner struct {
	assigned []int32
	stamp    engine.Stamp
}

func (o *owner) Assigned(ps []int32, s engine.Stamp) {
	o.assigned, o.stamp = append(o.assigned, ps...), s
}
func (o *owner) Revoked([]int32, engine.Stamp) {}
func (o *owner) Lost([]int32, engine.Stamp)    {}

// messages are all that a key, a value and headers can be: null, empty, doubled, larger than what crosses at a time.
func messages(topic string) (ms []outbox.Message) {
	for i := range 3000 {
		m := outbox.Message{Topic: topic, Partition: int32(i % 3), TimestampMs: int64(1_700_000_000_000 + i), Key: fmt.Append(nil, i), Value: fmt.Appendf(nil, "value %d", i)}
		switch i % 7 {
		case 0:
			m.Key = nil
		case 1:
			m.Value = nil
		case 2:
			m.Key, m.Value = []byte{}, []byte{}
		case 3:
			m.Headers = []outbox.Header{{Key: "a", Value: []byte("x")}, {Key: "a", Value: nil}, {Key: "", Value: []byte{}}, {Key: "a", Value: []byte("x")}}
		}
		if i%500 == 4 {
			m.Value = make([]byte, 600<<10)
		}
		ms = append(ms, m)
	}
	return ms
}

// What is produced in bulk is what another client reads, and what is read in bulk; what was not handed over goes with an abort.
func TestBulkIsTheSame(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, err := teststack.Start(ctx, stack.Options{Dir: t.TempDir(), Only: stack.Broker})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Brokers()), kgo.ConsumeTopics("in"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer cl.Close()
	res, err := kadm.NewClient(cl).CreateTopic(ctx, 3, 1, nil, "in")
	require.NoError(t, err)
	require.NoError(t, res.Err)
	c := config.Defaults()
	c.Kafka.Brokers, c.Kafka.Bulk, c.Topics.Input, c.Worker.ID = s.Brokers(), true, "in", "w"
	c.Kafka.TransactionTimeout, c.Kafka.HeartbeatInterval = 10*time.Second, 3*time.Second

	p, err := NewProducer(&c, zap.NewNop())
	require.NoError(t, err)
	defer p.Close()
	require.NotNil(t, p.bulk)
	require.NoError(t, p.Init(ctx))
	require.NoError(t, p.Begin())
	require.NoError(t, p.Produce(ctx, &outbox.Message{Topic: "in", Value: []byte("aborted")}))
	require.NoError(t, p.Abort(ctx))
	require.NoError(t, p.Begin())
	ms := messages("in")
	for i := range ms {
		require.NoError(t, p.Produce(ctx, &ms[i]))
	}
	require.NoError(t, p.Commit(ctx))

	want := make([][]outbox.Message, 3)
	for _, m := range ms {
		want[m.Partition] = append(want[m.Partition], m)
	}
	check := func(by string, got [3][]engine.Record) {
		for id := range want {
			require.Len(t, got[id], len(want[id]), by)
			for i, r := range got[id] {
				m := want[id][i]
				require.Equal(t, []any{m.Key, m.Value, m.Headers, m.TimestampMs}, []any{r.Key, r.Value, r.Headers, r.TimestampMs}, "%s, partition %d, record %d", by, id, i)
			}
		}
	}
	var got [3][]engine.Record
	for n := 0; n < len(ms); {
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			e := engine.Record{Key: r.Key, Value: r.Value, TimestampMs: r.Timestamp.UnixMilli()}
			for _, h := range r.Headers {
				e.Headers = append(e.Headers, outbox.Header{Key: h.Key, Value: h.Value})
			}
			got[r.Partition] = append(got[r.Partition], e)
			n++
		})
		require.NoError(t, ctx.Err())
	}
	check("franz-go", got)

	o := &owner{}
	src, err := NewSource(&c, o, zap.NewNop())
	require.NoError(t, err)
	require.NotNil(t, src.bulk)
	var buf []engine.Record
	for n := 0; n < len(ms) && ctx.Err() == nil; {
		buf, err = src.Poll(buf[:0], 100, 20*time.Millisecond)
		require.NoError(t, err)
		o.assigned = seek(src, o.assigned)
		for _, r := range buf {
			if n == 0 {
				got = [3][]engine.Record{}
			}
			got[r.Partition] = append(got[r.Partition], r)
			n++
		}
	}
	check("in bulk", got)

	// Set back, it is read again from there, and nothing that was fetched before comes in between.
	require.NoError(t, src.Seek(1, got[1][10].Offset))
	for again := 10; again < len(got[1]); {
		buf, err = src.Poll(buf[:0], 100, 20*time.Millisecond)
		require.NoError(t, err)
		for _, r := range buf {
			require.Equal(t, got[1][again].Offset, r.Offset)
			again++
		}
	}
	require.NoError(t, src.Close())
}

// seek sets partitions to their beginning and returns those that were not started yet.
func seek(src *Source, ids []int32) (left []int32) {
	for _, id := range ids {
		if src.Seek(id, 0) != nil {
			left = append(left, id)
		}
	}
	return left
}
