package console

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/console/now"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

// between asks the stores, then the console, then the stores again: what it shows was so in between.
func (b *bundle) between() *now.View {
	b.t.Helper()
	_ = wait.For(b.ctx, time.Second) // so that the console makes a look of its own
	s1, g1, e1, _ := b.stores()
	b.console.now.Get(b.ctx)
	var v *now.View
	began := time.Now()
	b.until("a look that began after", func() bool { v = b.console.now.Get(b.ctx); return v.At.After(began.Add(-time.Second)) && v.Err == "" })
	for v.At.Before(began) { // one under way already: the next
		_ = wait.For(b.ctx, 200*time.Millisecond)
		v = b.console.now.Get(b.ctx)
	}
	s2, g2, e2, _ := b.stores()
	in := func(what string, p int32, lo, is, hi int64) {
		require.True(b.t, lo <= is && is <= hi, "partition %d: the console shows %s %d, the stores said %d before and %d after", p, what, is, lo, hi)
	}
	require.Len(b.t, v.Strips, partitions)
	for _, s := range v.Strips {
		in("the stored offset", s.Partition, s1[s.Partition], s.Stored, s2[s.Partition])
		in("the group offset", s.Partition, g1[s.Partition], s.Group, g2[s.Partition])
		in("the input's end", s.Partition, e1[s.Partition], s.End, e2[s.Partition])
		require.True(b.t, s.Group <= s.Stored && s.Stored <= s.End, "%+v", s)
	}
	return v
}

// exact is that of a world at rest: every figure is the stores' own.
func (b *bundle) exact() *now.View {
	b.t.Helper()
	v := b.between()
	stored, group, end, epoch := b.stores()
	for _, s := range v.Strips {
		require.Equal(b.t, []int64{stored[s.Partition], group[s.Partition], end[s.Partition], epoch[s.Partition], 0, 0},
			[]int64{s.Stored, s.Group, s.End, s.Epoch, s.Gap, s.Lag}, "partition %d", s.Partition)
		require.Equal(b.t, "good", s.Tone, "%+v", s)
	}
	return v
}

func owners(v *now.View) map[string]int {
	out := map[string]int{}
	for _, s := range v.Strips {
		out[s.Owner]++
	}
	return out
}

// A worker is killed: what is shown is true at every moment, the take-over is seen, and in the end everything is the other's.
func TestTruthUnderKill(t *testing.T) {
	b := setup(t)
	one := b.start("one")
	b.generate(2000)
	b.settled()
	require.Equal(t, map[string]int{"one": partitions}, owners(b.exact()))
	b.start("two")
	b.until("both have partitions", func() bool { b.generate(50); return len(owners(b.between())) == 2 })
	require.NoError(t, one.cmd.Process.Kill())
	<-one.done
	b.until("all of them are two's", func() bool { b.generate(100); return owners(b.between())["two"] == partitions })
	b.settled()
	v := b.exact()
	require.Equal(t, map[string]int{"two": partitions}, owners(v))
	seen := 0
	for _, e := range v.Events {
		if e.Kind == "claimed" && strings.Contains(e.Says, "claimed by two") && strings.Contains(e.Says, "one can capture no more") {
			seen++
		}
	}
	require.Positive(t, seen, "%+v", v.Events)
}

// A worker is frozen, overtaken, and wakes up: nothing it does then makes the console wrong.
func TestTruthUnderZombie(t *testing.T) {
	b := setup(t)
	one := b.start("one")
	b.generate(500)
	b.settled()
	require.NoError(t, one.cmd.Process.Signal(syscall.SIGSTOP))
	b.generate(500)
	var still string
	b.until("it is said that nothing moves", func() bool {
		v := b.between()
		for _, p := range v.Paused {
			still = p.State + " " + p.Why
		}
		return still != ""
	})
	require.Regexp(t, "still for|no owner", still)
	b.start("two")
	b.until("all of them are two's", func() bool { return owners(b.between())["two"] == partitions })
	require.NoError(t, one.cmd.Process.Signal(syscall.SIGCONT))
	for range 4 {
		b.generate(100)
		b.between()
	}
	b.settled()
	b.exact()
}

// Postgres goes away and comes back: meanwhile the console says so, and how old its figures are; then they are true again.
func TestTruthUnderPostgresRestart(t *testing.T) {
	b := setup(t)
	b.start("one")
	b.generate(500)
	b.settled()
	before := b.exact()
	shared.Stack.KillPostgres()
	defer func() { _ = shared.Stack.RestartPostgres(b.ctx) }()
	var v *now.View
	b.until("the console says that a store can't be asked", func() bool { v = b.console.now.Get(b.ctx); return v.Err != "" })
	require.Equal(t, before.Strips[0].Stored, v.Strips[0].Stored, "the last figures stand")
	b.until("their age is told", func() bool { v = b.console.now.Get(b.ctx); return v.Err != "" && v.Age > 2*time.Second })
	code, page := b.browser().get("/")
	require.Equal(t, 200, code)
	require.Regexp(t, `These figures are .* old`, page)
	require.NoError(t, shared.Stack.RestartPostgres(b.ctx))
	b.until("it can be asked again", func() bool { return b.console.now.Get(b.ctx).Err == "" })
	b.generate(300)
	b.settled()
	b.exact()
}

// Whoever looks, and however many: the stores are asked once a second at most.
func TestOneLookForAll(t *testing.T) {
	b := setup(t)
	b.start("one")
	b.generate(100)
	b.settled()
	b.exact()
	first := b.console.now.Get(b.ctx).At
	looks := map[time.Time]bool{}
	for began := time.Now(); time.Since(began) < 2*time.Second; {
		looks[b.console.now.Get(b.ctx).At] = true
	}
	require.LessOrEqual(t, len(looks), 4, "since %v", first)
}
