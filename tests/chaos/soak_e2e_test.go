//go:build e2e

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/chaos"
	"github.com/exactly-pipeline/exactly/internal/chaos/rig"
	"github.com/exactly-pipeline/exactly/internal/stack"
)

var (
	state  = flag.String("state", "", "folder in which a soak keeps everything, to go on there")
	kills  = flag.Int("kills", 1000, "workers to be killed in a soak")
	clicks = flag.Int64("clicks", 10_000_000, "clicks to be processed in a soak")
)

// soaked is how far a soak is, over all its rounds.
type soaked struct {
	Seed   uint64 `json:"seed"` // of the first round; each has the next
	Rounds int    `json:"rounds"`
	Kills  int    `json:"kills"`
	Clicks int64  `json:"clicks"`
}

// TestSoak is `make soak`: round after round on one stack. What a round has proved is noted once it is over; a round that is stopped in
// the middle is done again, on the stack as it was left, whose clicks the next audit counts like any others.
func TestSoak(t *testing.T) {
	require.NotEmpty(t, *state, "-state: a folder to keep everything in")
	dir, err := filepath.Abs(*state)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	file := filepath.Join(dir, "soak.json")
	s := soaked{Seed: max(*seed, 1)}
	if b, err := os.ReadFile(file); !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(b, &s))
	}
	ctx := t.Context()
	starting, stop := context.WithTimeout(ctx, 5*time.Minute)
	defer stop()
	r, err := rig.Start(starting, rig.Options{Dir: dir, Kind: stack.Kafka, Brokers: 3, Clocks: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	b := wanted()
	b.rig.Disks, b.rig.Grow = 0, false // a disk in memory does not outlast a stop, and partitions cannot be doubled for ever
	for s.Kills < *kills || s.Clicks < *clicks {
		of := s.Seed + uint64(s.Rounds)
		at := filepath.Join(dir, fmt.Sprintf("round-%03d", s.Rounds+1))
		require.NoError(t, os.RemoveAll(at))
		require.NoError(t, os.MkdirAll(at, 0o755))
		rng := chaos.NewRand(of)
		rep, err := chaos.Run(ctx, chaos.Options{
			Exe: bin, Env: r.Env(), WorkerEnv: r.WorkerEnv(), Dir: at, Seed: of, Clicks: b.clicks, Pace: b.pace,
			Schedule: append(chaos.Plan(rng, b.size), rig.Plan(rng, b.rig, true)...),
			Inject:   r.Inject(), What: r.Name(), Versions: versions(t, ctx, r), Out: os.Stdout, BeforeEnd: r.Heal,
		})
		require.NoError(t, err)
		_, err = rep.Write(at)
		require.NoError(t, err)
		// A bar that was missed on a busy machine is in the round's report; what is wrong with the data ends the soak.
		require.Contains(t, []string{chaos.Held, chaos.Missed}, rep.Verdict, strings.Join(rep.Why, "\n"))
		require.Zero(t, rep.Lost+rep.Doubled+rep.Different+rep.Other+rep.Undecided+rep.Stuck)
		s.Rounds++
		s.Kills += rep.Kills()
		s.Clicks = rep.Audit.Totals.Input
		out, err := json.Marshal(s)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file+".new", out, 0o644))
		require.NoError(t, os.Rename(file+".new", file))
		fmt.Printf("round %d: %d workers killed and %d clicks so far\n", s.Rounds, s.Kills, s.Clicks)
	}
}
