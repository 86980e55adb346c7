package engine

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var seedFlag = flag.Uint64("seed", 0, "run this seed only")

// TestSeeds: whatever goes wrong, in whatever order, every record is in both sinks exactly once when it is over.
func TestSeeds(t *testing.T) {
	if *seedFlag != 0 {
		seed(t, *seedFlag)
		return
	}
	for range 10 {
		s := rand.Uint64()
		t.Run(fmt.Sprint(s), func(t *testing.T) { seed(t, s) })
	}
}

func seed(t *testing.T, s uint64) {
	r := rand.New(rand.NewPCG(s, 0))
	const parts = 4
	var calm bool                      // from here on nothing goes wrong any more
	chance := func(percent int) bool { // under the world's lock: r is not safe
		return !calm && r.IntN(100) < percent
	}
	run(t, newWorld(parts, 200), func(b *bundle) {
		b.cfg.MaxRecords, b.cfg.MaxInFlight, b.source.max = 1+r.IntN(60), 2000+r.IntN(60_000), 1+r.IntN(50)
		b.captureHook = func(context.Context, []*Batch) (error, bool) {
			b.mu.Lock()
			fail, written := chance(5), r.IntN(2) == 0
			d := time.Duration(r.IntN(40)) * time.Millisecond
			b.mu.Unlock()
			time.Sleep(d)
			if fail {
				return errors.New("connection reset"), written
			}
			return nil, true
		}
		b.publisher.outcome = func(items []Item) (Outcome, bool, time.Duration) {
			d := time.Duration(r.IntN(60)) * time.Millisecond
			if !chance(15) {
				return Committed, true, d
			}
			o := []Outcome{Aborted, Aborted, StaleStamp, Lost}[r.IntN(4)]
			return o, o == Lost && r.IntN(2) == 0, d
		}
		b.lookHook = func(int) {
			b.mu.Lock()
			d := time.Duration(r.IntN(30)) * time.Millisecond
			b.mu.Unlock()
			time.Sleep(d)
		}
		b.renewHook = func(context.Context) error {
			b.mu.Lock()
			fail := chance(30)
			b.mu.Unlock()
			if fail {
				return errors.New("no coordinator")
			}
			return nil
		}
		b.cfg.Handler = echo{func(*Record) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			if chance(1) && r.IntN(4) == 0 {
				return errors.New("registry is away")
			}
			return nil
		}}
	}, func(b *bundle) {
		draw := func(n int) (v int) { b.lock(func() { v = r.IntN(n) }); return v }
		gen := 0
		stamp := func() Stamp { gen++; return gen }
		owned := map[int32]bool{}
		for range 120 {
			p := int32(draw(parts))
			switch draw(8) {
			case 0, 1:
				if !owned[p] {
					b.assign(stamp(), p)
					owned[p] = true
				}
			case 2:
				if owned[p] {
					b.wait(b.revoke(stamp(), p))
					b.somebodyElse(p, draw(3) == 0)
					delete(owned, p)
				}
			case 3:
				if owned[p] {
					b.wait(b.lose(p))
					b.somebodyElse(p, draw(3) == 0)
					delete(owned, p)
					b.assign(stamp())
				}
			case 4:
				b.source.errs <- &PartitionError{p, errors.New("trouble")}
			case 5:
				b.produce(p, draw(40))
			case 6:
				b.lock(func() { b.rows[p].epoch++ }) // a late claim by a former owner
			case 7:
				b.assign(stamp())
			}
			time.Sleep(time.Duration(draw(120)) * time.Millisecond)
		}
		b.lock(func() { calm = true })
		for p := range int32(parts) {
			if !owned[p] {
				b.assign(stamp(), p)
			}
		}
		b.settled()
		require.Empty(b.t, b.wrong)
	})
}

// somebodyElse owns the partition for a while: claims it, publishes its gap and, perhaps, loses it before.
func (b *bundle) somebodyElse(p int32, drains bool) {
	b.lock(func() {
		r := b.rows[p]
		r.epoch++
		if !drains {
			return
		}
		for _, m := range r.outbox {
			if m.SourceOffset >= b.offsets[p].at {
				b.out[p] = append(b.out[p], m)
			}
		}
		if r.captured {
			b.offsets[p] = groupOffset{r.next, true}
		}
	})
}
