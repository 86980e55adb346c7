package sim

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReplay: a seed is the same whenever it is played, to the last event.
func TestReplay(t *testing.T) {
	seen := map[uint64]bool{}
	for i := range uint64(*replaysFlag) {
		seed := *fromFlag + i
		a, b := play(t, seed, cheats{}, false), play(t, seed, cheats{}, false)
		require.Equal(t, a.hash, b.hash, "seed %d", seed)
		require.Equal(t, a.steps, b.steps, "seed %d", seed)
		if i%100 == 0 { // nor does it matter that somebody looks
			require.Equal(t, a.hash, play(t, seed, cheats{}, true).hash, "seed %d with its trace", seed)
		}
		seen[a.hash] = true
	}
	require.Len(t, seen, *replaysFlag, "different seeds, the same life")
}
