package txn

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/outbox"
)

// Gap: the limit never cuts a record, and what comes back is what was captured, byte for byte.
func TestGap(t *testing.T) {
	d := newDB(t)
	s := d.store("a")
	d.started(s, 2)
	epoch := d.claim(s, 0).Epoch
	b := &engine.Batch{Partition: 0, Epoch: epoch, From: 0, To: 9, Records: 9}
	for o, n := range []int{1, 3, 0, 2, 7, 0, 1, 1, 0} { // events a record makes
		for seq := range n {
			m := outbox.Message{
				SourceOffset: int64(o), Seq: int16(seq), Topic: "out", Partition: int32(seq), TimestampMs: int64(o), Key: [][]byte{nil, {}, {0xff}}[seq%3],
				Value: fmt.Appendf(nil, "%d.%d", o, seq), Headers: []outbox.Header{{Key: "a", Value: []byte{0}}, {Key: "a"}, {Key: "", Value: []byte{}}},
			}
			b.Messages = append(b.Messages, m)
			b.Outbox = outbox.AppendTuple(b.Outbox, d.src.ID, 0, &m, nil, nil)
		}
	}
	d.capture(s, b)
	for limit := 1; limit < 20; limit++ {
		for from := range int64(10) {
			for to := from; to < 10; to++ {
				var got []outbox.Message
				for at := from; at < to; {
					msgs, upTo, err := s.Gap(d.ctx, 0, at, to, limit)
					require.NoError(t, err)
					require.Greater(t, upTo, at)
					require.LessOrEqual(t, upTo, to)
					for _, m := range msgs {
						require.Less(t, m.SourceOffset, upTo)
					}
					got, at = append(got, msgs...), upTo
				}
				var want []outbox.Message
				for _, m := range b.Messages {
					if m.SourceOffset >= from && m.SourceOffset < to {
						want = append(want, m)
					}
				}
				require.Equal(t, want, got, "limit %d [%d,%d)", limit, from, to)
			}
		}
	}
}

// Parts of a gap of large messages are bounded by their bytes, and still whole records, all of them.
func TestGapOfLargeMessages(t *testing.T) {
	d := newDB(t)
	s := d.store("a")
	d.started(s, 2)
	b := &engine.Batch{Partition: 0, Epoch: d.claim(s, 0).Epoch, From: 0, To: 12, Records: 12}
	const size = outbox.GapBytes / 3
	for o, n := range []int{1, 1, 1, 1, 2, 5, 0, 1, 0, 1, 1, 1} { // events a record makes
		for seq := range n {
			m := outbox.Message{SourceOffset: int64(o), Seq: int16(seq), Topic: "out", TimestampMs: 1, Value: bytes.Repeat([]byte{byte(o), byte(seq)}, size/2)}
			b.Messages = append(b.Messages, m)
			b.Outbox = outbox.AppendTuple(b.Outbox, d.src.ID, 0, &m, nil, nil)
		}
	}
	d.capture(s, b)
	var got []outbox.Message
	parts := 0
	for at := int64(0); at < 12; parts++ {
		msgs, upTo, err := s.Gap(d.ctx, 0, at, 12, 10_000)
		require.NoError(t, err)
		require.Greater(t, upTo, at)
		if len(msgs) > 1 && msgs[0].SourceOffset != msgs[len(msgs)-1].SourceOffset {
			require.LessOrEqual(t, len(msgs), 4)
		}
		for _, m := range msgs {
			require.Less(t, m.SourceOffset, upTo)
		}
		got, at = append(got, msgs...), upTo
	}
	require.Equal(t, b.Messages, got)
	require.GreaterOrEqual(t, parts, 4)
}

// Keys count as well as values.
func TestGapOfLargeKeys(t *testing.T) {
	d := newDB(t)
	s := d.store("a")
	d.started(s, 1)
	b := &engine.Batch{Partition: 0, Epoch: d.claim(s, 0).Epoch, From: 0, To: 9, Records: 9}
	for o := range int64(9) {
		m := outbox.Message{SourceOffset: o, Topic: "out", TimestampMs: 1, Key: bytes.Repeat([]byte{byte(o)}, outbox.GapBytes/3)}
		b.Messages = append(b.Messages, m)
		b.Outbox = outbox.AppendTuple(b.Outbox, d.src.ID, 0, &m, nil, nil)
	}
	d.capture(s, b)
	msgs, upTo, err := s.Gap(d.ctx, 0, 0, 9, 1000)
	require.NoError(t, err)
	require.LessOrEqual(t, len(msgs), 4)
	require.EqualValues(t, len(msgs), upTo)
}
