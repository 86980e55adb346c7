package engine

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// watcher is an Observer that remembers.
type watcher struct {
	nobody
	mu      sync.Mutex
	events  map[EventKind]int
	offsets map[int32][][2]int64 // stored and group offset, as they were told
	dead    map[string]int64
	reasons map[string]int
}

func (w *watcher) Dead(class string, n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead == nil {
		w.dead = map[string]int64{}
	}
	w.dead[class] += n
}

func (w *watcher) Failed(_ int32, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reasons == nil {
		w.reasons = map[string]int{}
	}
	w.reasons[reason]++
}

func (w *watcher) Event(_ int32, k EventKind) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events[k]++
}

func (w *watcher) Offsets(partition int32, stored, group int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offsets[partition] = append(w.offsets[partition], [2]int64{stored, group})
}

// The observer hears of both offsets whenever one has moved, never of a group offset above the stored one, and of each event once.
func TestObserver(t *testing.T) {
	seen := &watcher{events: map[EventKind]int{}, offsets: map[int32][][2]int64{}}
	run(t, newWorld(2, 0), func(b *bundle) { b.cfg.Observer = seen }, func(b *bundle) {
		b.assign("g1", 0, 1)
		b.produce(0, 5)
		time.Sleep(time.Second)
		b.settled()
		b.source.errs <- &PartitionError{1, errors.New("trouble")}
		time.Sleep(time.Second)
		b.produce(1, 3)
		time.Sleep(time.Second)
		b.settled()
	})
	seen.mu.Lock()
	defer seen.mu.Unlock()
	require.Equal(t, 2, seen.events[EvAssigned])
	require.Equal(t, 1, seen.events[EvFailed])
	require.Zero(t, seen.events[EvRefused])
	gap := false
	for partition, last := range map[int32]int64{0: 5, 1: 3} {
		told := seen.offsets[partition]
		require.NotEmpty(t, told)
		require.Equal(t, [2]int64{last, last}, told[len(told)-1], "partition %d: %v", partition, told)
		for _, o := range told {
			require.GreaterOrEqual(t, o[0], o[1], "partition %d: %v", partition, told)
			gap = gap || o[0] > o[1]
		}
	}
	require.True(t, gap, "between a capture and its publish there is a gap: it was never told")
}
