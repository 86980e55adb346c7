package chaos

import (
	"math/rand/v2"
	"time"

	"github.com/exactly-pipeline/exactly/internal/failpoint"
)

// Size is how much happens to the workers of a run.
type Size struct {
	Kills    int // of workers, those at failpoints included
	Rounds   int // of every failpoint; a kill in a drain needs one before it, which counts
	Calm     int // so many of the kills come before anything else begins: what a takeover takes with all else in order is measured on them
	Zombies  int
	Terms    int
	Memory   int
	Twins    int
	Session  time.Duration
	Between  time.Duration // up to twice this passes between two faults of a lane
	Anywhere bool          // the build has no failpoints: zombies are frozen at random
	Clients  []string      // Kafka clients, mixed by the seed; empty: as configured
}

// The workers of a plan: two are killed, one is frozen.
const (
	WorkerA = "chaos-a"
	WorkerB = "chaos-b"
	WorkerZ = "chaos-z"
)

// zombiePoints are where a frozen worker is most in the way.
var zombiePoints = []string{
	"", failpoint.PublishProduced, "", failpoint.PublishOffsetsSent, failpoint.CaptureBefore, "", failpoint.CaptureCommitted, failpoint.CaptureCopied,
}

// NewRand is the source of everything random in a run.
func NewRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)) }

// Plan draws the faults of workers from the seed.
func Plan(rng *rand.Rand, s Size) []Fault {
	var kills []Fault
	left := s.Kills
	for range s.Rounds {
		for _, p := range failpoint.OfWorkers() {
			kills = append(kills, Fault{Kind: KillAt, Point: p})
			left--
			if drains(p) {
				left-- // the one that leaves the gap
			}
		}
	}
	for range left {
		kills = append(kills, Fault{Kind: KillAny})
	}
	rng.Shuffle(len(kills), func(i, j int) { kills[i], kills[j] = kills[j], kills[i] })
	kills = single(kills, s.Calm)
	for i := range kills {
		kills[i].Worker, kills[i].Lane = WorkerA, "kills a"
		if i%2 == 1 {
			kills[i].Worker, kills[i].Lane = WorkerB, "kills b"
		}
		kills[i].AtOnce, kills[i].Calm = rng.IntN(3) == 0, i < s.Calm
	}
	var z []Fault
	for i := range s.Zombies {
		point := zombiePoints[i%len(zombiePoints)]
		if s.Anywhere {
			point = ""
		}
		z = append(z, Fault{Kind: Zombie, Point: point, For: s.Session + time.Duration(1+rng.IntN(3))*time.Second})
	}
	for _, k := range []struct {
		kind Kind
		n    int
	}{{Term, s.Terms}, {Memory, s.Memory}, {Twin, s.Twins}} {
		for range k.n {
			z = append(z, Fault{Kind: k.kind})
		}
	}
	rng.Shuffle(len(z), func(i, j int) { z[i], z[j] = z[j], z[i] })
	for i := range z {
		z[i].Worker, z[i].Lane = WorkerZ, "zombies"
	}
	all := append(kills, z...)
	Dress(rng, all, s)
	return all
}

// single puts n kills that are one death each before the others, in the order they are in. One in a drain takes two, the second of which
// waits for the first one's takeover as well.
func single(kills []Fault, n int) []Fault {
	var first, others []Fault
	for _, k := range kills {
		if len(first) < n && !drains(k.Point) {
			first = append(first, k)
		} else {
			others = append(others, k)
		}
	}
	return append(first, others...)
}

// Dress gives each fault its client and the time before it.
func Dress(rng *rand.Rand, all []Fault, s Size) {
	for i := range all {
		if len(s.Clients) > 0 {
			all[i].Client = s.Clients[rng.IntN(len(s.Clients))]
		}
		if s.Between > 0 {
			all[i].After = time.Duration(rng.Int64N(int64(2 * s.Between)))
		}
	}
}
