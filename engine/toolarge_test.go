package engine

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/outbox"
)

// enlarging is picky about certain values, and makes a large event of others.
type enlarging struct{ Handler }

func (h enlarging) Handle(ctx context.Context, r *Record, out *Out) error {
	switch r.Value[0] {
	case 'x':
		return &Permanent{Class: "picky", Stage: "validate", Message: "no"}
	case 'y':
		return out.Event("out", r.Key, bytes.Repeat(r.Value, 3000), nil)
	}
	return h.Handler.Handle(ctx, r, out)
}

// A dead letter that Kafka would not take is not captured: its partition stops there, and says at which offset, how large and what to do; what came before
// is in both sinks, and the other partitions go on.
func TestTooLargeToPublish(t *testing.T) {
	w := newWorld(2, 50)
	w.logs[0][30].Value = bytes.Repeat([]byte("x"), 3000)
	run(t, w, func(b *bundle) { b.cfg.Shape.MaxMessage, b.cfg.Handler = 2048, enlarging{echo{}} }, func(b *bundle) {
		b.assign("g1", 0, 1)
		time.Sleep(time.Minute)
		b.produce(1, 50)
		b.settled(1)
		b.lock(func() {
			require.EqualValues(t, 30, b.rows[0].next)
			require.EqualValues(t, 30, b.offsets[0].at)
			require.Zero(t, b.rows[0].dead)
			for _, a := range b.attempts {
				require.Equal(t, Committed, a.outcome)
			}
		})
		says := b.logs.FilterMessageSnippet("partition stopped: the dead letter of offset 30 would take 3")
		require.Equal(t, 1, says.Len(), "said once")
		require.Contains(t, says.All()[0].Message, "no more than 2048")
		require.Contains(t, says.All()[0].Message, "exactly offsets reset --to 31")
	})
}

// An event that Kafka would not take makes its record a dead letter.
func TestTooLargeEvent(t *testing.T) {
	w := newWorld(1, 50)
	w.logs[0][30].Value = []byte("y")
	run(t, w, func(b *bundle) { b.cfg.Shape.MaxMessage, b.cfg.Handler = 2048, enlarging{echo{}} }, func(b *bundle) {
		b.assign("g1", 0)
		b.settled()
		b.lock(func() {
			require.EqualValues(t, 1, b.rows[0].dead)
			m := b.out[0][30]
			require.Equal(t, "dlq", m.Topic)
			require.Contains(t, m.Headers, outbox.Header{Key: classHeader, Value: []byte(ClassTooLarge)})
		})
	})
}

// What was captured although it can't be published, by an older program or under a larger limit, stops its own partition.
func TestTooLargeInTheGap(t *testing.T) {
	w := newWorld(2, 50)
	w.rows[0].next, w.rows[0].captured, w.rows[0].seq = 1, true, 1
	w.rows[0].records = []int64{0}
	w.rows[0].outbox = []outbox.Message{{Topic: "out", Key: []byte("k"), Value: bytes.Repeat([]byte("z"), 3000)}}
	run(t, w, func(b *bundle) { b.cfg.Shape.MaxMessage = 2048 }, func(b *bundle) {
		b.assign("g1", 0, 1)
		b.settled(1)
		time.Sleep(time.Minute)
		require.Equal(t, 1, b.logs.FilterMessageSnippet("partition stopped: the event of offset 0 would take 3").Len())
		b.lock(func() { require.Zero(t, b.offsets[0].at) })
	})
}

// A dead letter that is refused for its size leaves no row of dead_letters behind.
func TestTooLargeLeavesNothing(t *testing.T) {
	p := newPreparer(enlarging{echo{}}, &Shape{Input: "in", DLQ: "dlq", Partitions: map[string]int{"out": 4, "dlq": 4}, MaxMessage: 2048}, 1)
	b, err := p.batch(t.Context(), &prepJob{records: []Record{{Value: []byte("1")}, {Offset: 1, Value: bytes.Repeat([]byte("x"), 3000)}}})
	require.ErrorContains(t, err, "offset 1 ")
	require.EqualValues(t, 1, b.To)
	require.Empty(t, b.DeadRows)
	require.Zero(t, b.DeadLetters)
	require.Empty(t, b.classes)
}
