package engine

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// inflating makes much of little, like a replay: what it reads are pointers.
type inflating struct {
	Handler
	bytes int
}

func (h inflating) Handle(ctx context.Context, r *Record, out *Out) error {
	if err := h.Handler.Handle(ctx, r, out); err != nil {
		return err
	}
	return out.Event("out", r.Key, bytes.Repeat([]byte("x"), h.bytes), nil)
}

// A capture is bounded by what it writes, too, not only by what was read: small records that make large output are captured part by part, in their
// order, each once.
func TestOutputIsBounded(t *testing.T) {
	const most, each = 1 << 20, 64 << 10
	run(t, newWorld(3, 200), func(b *bundle) {
		b.cfg.MaxBytes, b.cfg.MaxInFlight = most, 4*most
		b.cfg.Handler = inflating{echo{}, each}
		b.cfg.QuarantineAfter = 2 // the first batch is marked: the mark must not outlive a part of it
	}, func(b *bundle) {
		b.assign("g1", 0, 1, 2)
		done := func() (done bool) {
			b.lock(func() { done = b.offsets[0].at == 200 && b.offsets[1].at == 200 && b.offsets[2].at == 200 })
			return done
		}
		for range 3000 { // of the bubble's time: a minute
			if done() {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		require.True(t, done())
		b.lock(func() {
			for _, batches := range b.captures {
				written := 0
				for _, x := range batches {
					written += x.Bytes
				}
				require.LessOrEqual(t, written, outputShare*most+3*(each+1<<10), "captured at once")
			}
			for p := range int32(3) {
				for i, o := range b.rows[p].records {
					require.EqualValues(t, i, o)
				}
				require.Nil(t, b.rows[p].begun)
			}
		})
	})
}

// What is given back is in front of what came meanwhile, and counts as waiting again.
func TestGivenBack(t *testing.T) {
	w := &Worker{cfg: Config{MaxInFlight: 1 << 20}, parts: map[int32]*slot{}, poll: newPoller(nil, nil)}
	s := &slot{m: NewPartition(0), next: 9, buf: []Record{{Offset: 9}}, bytes: 96}
	s.m.State, s.m.Life, w.parts[0], w.buffered = Consuming, 3, s, 96
	w.giveBack(&Batch{Life: 3, To: 7, rest: []Record{{Offset: 7}, {Offset: 8}}})
	require.Equal(t, []Record{{Offset: 7}, {Offset: 8}, {Offset: 9}}, s.buf)
	require.EqualValues(t, 7, s.next)
	require.Equal(t, 3*96, s.bytes)
	require.Equal(t, 3*96, w.buffered)
	w.giveBack(&Batch{Life: 2, To: 5, rest: []Record{{Offset: 5}}})
	require.EqualValues(t, 7, s.next, "of a life that is over")
	require.Len(t, s.buf, 3)
}
