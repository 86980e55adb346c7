package chaos

import (
	"context"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// running is a run without processes or stores: faults are what its kinds say.
func running(o Options) *Chaos {
	o.Out, o.Limit = io.Discard, time.Minute
	c := &Chaos{opt: o, begun: time.Now(), workers: map[string]*Worker{}}
	c.watch = newWatch(c)
	return c
}

// Calm faults come one at a time, and nothing else begins before the last of them is over; the rest of the lanes runs side by side.
func TestCalmComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var said []string
		say := func(s string) { mu.Lock(); said = append(said, s); mu.Unlock() }
		slow := func(_ context.Context, _ *Chaos, f *Fault) error {
			say("+" + f.Point)
			time.Sleep(f.For)
			say("-" + f.Point)
			return context.Canceled // it need not strike for this
		}
		fault := func(lane, name string, calm bool, takes time.Duration) Fault {
			return Fault{Lane: lane, Kind: "slow", Point: name, Calm: calm, For: takes}
		}
		c := running(Options{Inject: map[Kind]Inject{"slow": slow}, Schedule: []Fault{
			fault("a", "a1", true, time.Second), fault("a", "a2", true, time.Second), fault("a", "a3", false, time.Second),
			fault("b", "b1", true, time.Minute), fault("b", "b2", false, time.Minute),
			fault("c", "c1", false, time.Minute),
		}})
		c.runLanes(t.Context())
		require.Len(t, said, 12)
		for i := 0; i < 6; i += 2 {
			require.Equal(t, said[i][1:], said[i+1][1:], "calm faults one at a time: %v", said)
		}
		for _, late := range []string{"+a3", "+b2", "+c1"} {
			require.Greater(t, slices.Index(said, late), 5, "%s before the calm was over: %v", late, said)
			require.Less(t, slices.Index(said, late), 9, "the others side by side: %v", said)
		}
	})
}

// A fault that strikes twice, such as a kill in a drain, is not for ever beside those that come after it.
func TestBesides(t *testing.T) {
	c := running(Options{})
	at := func(s int) time.Time { return c.begun.Add(time.Duration(s) * time.Second) }
	twice, other, later := &Fault{N: 1, Kind: KillAt}, &Fault{N: 2, Kind: KillAny}, &Fault{N: 3, Kind: KillAny}
	c.Struck(twice, at(-100), "", "")
	c.Struck(twice, at(-90), "", "")
	c.Struck(other, at(-88), "", "")
	c.closeSpan(twice)
	c.closeSpan(other)
	c.Struck(later, time.Now().Add(time.Second), "", "")
	for _, f := range []*Fault{other, later} {
		f.TookMs = 5000
		c.overlaps(f)
	}
	require.Equal(t, []string{"1: " + string(KillAt)}, other.Beside, "the second strike, which was not over; not the first")
	require.Empty(t, later.Beside)
}
