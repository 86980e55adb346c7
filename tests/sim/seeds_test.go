package sim

import (
	"flag"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

var (
	seedFlag    = flag.Uint64("seed", 0, "play this seed only, and print its trace")
	seedsFlag   = flag.Int("seeds", 1000, "how many seeds")
	fromFlag    = flag.Uint64("from", 1, "the first seed")
	replaysFlag = flag.Int("replays", 100, "how many seeds are played twice")
)

// TestSeeds: whatever goes wrong, in whatever order, each step leaves the order of the two transactions as it is, and once the faults stop
// everything arrives.
func TestSeeds(t *testing.T) {
	if *seedFlag != 0 {
		r := play(t, *seedFlag, cheats{}, true)
		t.Logf("\n%s", r.trace)
		if r.failure != nil {
			t.Fatalf("seed %d: %s: %s", *seedFlag, r.failure.kind, r.failure.what)
		}
		return
	}
	broken := search(t, cheats{}, *fromFlag, *seedsFlag, false, nil)
	for _, seed := range slices.Sorted(maps.Keys(broken)) {
		t.Errorf("seed %d: %s: %s\nto see it happen: make sim SEED=%d", seed, broken[seed].failure.kind, broken[seed].failure.what, seed)
	}
}

// search plays n seeds on all processors and returns those that broke something; if first is set, only the first of them, and not those after it.
// kinds are what counts as broken; nil: anything does.
func search(t *testing.T, c cheats, from uint64, n int, first bool, kinds []string) map[uint64]result {
	var next, steps, holes atomic.Uint64
	var mu sync.Mutex
	broken := map[uint64]result{}
	end := from + uint64(n) // guarded by mu
	next.Store(from)
	t.Run("play", func(t *testing.T) {
		for i := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				for {
					seed := next.Add(1) - 1
					mu.Lock()
					over := seed >= end
					mu.Unlock()
					if over {
						return
					}
					r := play(t, seed, c, false)
					steps.Add(uint64(r.steps))
					if r.hole {
						holes.Add(1)
					}
					if r.failure == nil || kinds != nil && !slices.Contains(kinds, r.failure.kind) {
						continue
					}
					mu.Lock()
					broken[seed] = r
					t.Logf("seed %d at %v: %s: %s", seed, r.failure.at, r.failure.kind, r.failure.what)
					if first {
						end = min(end, seed)
					}
					mu.Unlock()
				}
			})
		}
	})
	played := min(next.Load(), end) - from
	t.Logf("seeds %d to %d, %d steps each, %d ended in a known hole, %d broke something", from, from+played-1, steps.Load()/max(played, 1), holes.Load(), len(broken))
	return broken
}
