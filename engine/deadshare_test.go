package engine

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

func TestDeadShare(t *testing.T) {
	d := DeadShare{Share: 0.5, Least: 100}
	at := time.Unix(1_000_000, 0)
	var w window
	require.True(t, d.add(&w, at, 100, 100), "the first are free")
	require.False(t, d.add(&w, at, 1, 1), "one too many")
	require.True(t, d.add(&w, at, 200, 0), "good ones bring the share down")
	require.True(t, d.add(&w, at, 50, 50))
	require.False(t, d.add(&w, at, 60, 60))
	require.False(t, d.add(&w, at.Add(49*time.Second), 60, 60), "within a minute")
	require.False(t, d.add(&w, at.Add(2*time.Minute), 1, 1), "nothing is free once it was stopped")
	require.True(t, d.add(&w, at.Add(2*time.Minute), 2, 1), "not above the share: it goes on")
	for range 5 {
		require.False(t, d.add(&w, at.Add(2*time.Minute), 50, 50), "one good record brings nothing free")
		require.True(t, d.add(&w, at.Add(2*time.Minute), 1, 0))
	}
	require.True(t, d.add(&w, at.Add(190*time.Second), 2, 0))
	require.True(t, d.add(&w, at.Add(190*time.Second), 50, 50), "free again after a minute within the share")

	require.True(t, DeadShare{}.add(&w, at, 1_000_000, 1_000_000), "no limit")
}

// A partition that brings nothing but dead letters stops before they are captured, says so once, and tries again; the others go on. What was
// captured of it before is published.
func TestTooManyDeadLetters(t *testing.T) {
	w := newWorld(2, 0)
	said := 0
	run(t, w, func(b *bundle) {
		b.cfg.DeadShare = DeadShare{Share: 0.5, Least: 20}
		b.cfg.MaxRecords = 10
		b.cfg.Handler = pickyHandler{b.cfg.Handler}
		b.cfg.Log = b.cfg.Log.WithOptions(zap.Hooks(func(e zapcore.Entry) error {
			if strings.HasPrefix(e.Message, "partition stopped: of the records of the last minute more than 50%") {
				said++
			}
			return nil
		}))
	}, func(b *bundle) {
		b.assign("g1", 0, 1)
		time.Sleep(time.Second)
		b.produce(0, 30)
		b.produce(1, 100)
		time.Sleep(time.Minute)
		b.lock(func() {
			require.EqualValues(b.t, 20, b.rows[0].next, "what is free, and no more")
			require.EqualValues(b.t, 20, b.offsets[0].at, "and that is published")
			require.EqualValues(b.t, 100, b.rows[1].next, "the others go on")
			require.EqualValues(b.t, 100, b.offsets[1].at)
		})
		require.Equal(b.t, 1, said, "said once")
	})
}

// pickyHandler takes nothing from partition 0.
type pickyHandler struct{ Handler }

func (h pickyHandler) Handle(ctx context.Context, r *Record, out *Out) error {
	if r.Partition == 0 {
		return &Permanent{Class: "picky", Stage: "decode", Message: "no"}
	}
	return h.Handler.Handle(ctx, r, out)
}
