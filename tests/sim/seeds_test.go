package sim

import (
	"flag"
	"testing"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "play this seed only, and print its trace")
	seedsFlag = flag.Int("seeds", 300, "how many seeds")
	fromFlag  = flag.Uint64("from", 1, "the first seed")
)

func TestSeeds(t *testing.T) {
	if *seedFlag != 0 {
		r := play(t, *seedFlag, cheats{}, true)
		t.Logf("\n%s", r.trace)
		if r.failure != nil {
			t.Fatalf("seed %d: %s: %s", *seedFlag, r.failure.kind, r.failure.what)
		}
		return
	}
	steps, broken := 0, map[string]int{}
	for i := range uint64(*seedsFlag) {
		r := play(t, *fromFlag+i, cheats{}, false)
		steps += r.steps
		if r.failure != nil {
			broken[r.failure.kind]++
			t.Errorf("seed %d at %v: %s: %s", *fromFlag+i, r.failure.at, r.failure.kind, r.failure.what)
		}
	}
	t.Logf("%d seeds, %d steps each, %v", *seedsFlag, steps / *seedsFlag, broken)
}
