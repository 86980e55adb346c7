package engine

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/outbox"
)

// overtake is another worker that claims the partition, captures its next record and publishes it.
func (w *world) overtake(p int32) {
	r := w.rows[p]
	m := outbox.Message{SourceOffset: r.next, Topic: "out", Value: fmt.Appendf(nil, "seen %s", w.logs[p][r.next].Value)}
	r.outbox, r.records, w.out[p] = append(r.outbox, m), append(r.records, r.next), append(w.out[p], m)
	r.epoch, r.next, r.seq, r.captured = r.epoch+1, r.next+1, r.seq+1, true
	w.offsets[p] = groupOffset{r.next, true}
}

func (b *bundle) saidStopped() (n int) {
	for _, e := range b.logs.All() {
		if strings.HasPrefix(e.Message, "partition stopped: the group offset") {
			n++
		}
	}
	return n
}

// We were evicted and are not told for a minute; the new owner is always faster than our look. Each of our claims stops it, so they must become
// rare: the back-off's, 50 ms to 5 s, halved by the jitter at most, are 31 a minute. And nobody cries that Postgres has gone back in time.
func TestOvertakenClaimsSeldom(t *testing.T) {
	run(t, newWorld(1, 2000), nil, func(b *bundle) {
		claims := 0
		b.lock(func() {
			b.claimHook = func(p int32) {
				if claims++; claims < 1000 { // else this would not end
					b.overtake(p)
				}
			}
		})
		b.assign("g1", 0)
		time.Sleep(time.Minute)
		told := 0
		b.lock(func() {
			told = claims
			require.GreaterOrEqual(b.t, claims, 10, "it goes on trying")
			require.LessOrEqual(b.t, claims, 31)
			require.Equal(b.t, int64(claims), b.rows[0].next, "all of it the other's")
		})
		require.Zero(b.t, b.saidStopped())
		b.wait(b.lose(0))
		time.Sleep(time.Minute)
		b.lock(func() { require.Equal(b.t, told, claims, "it was told"); b.claimHook = nil })
		b.assign("g2", 0)
		b.settled()
	})
}

// Nobody overtakes us: the second claim is the one after the first, and the partition is stopped at once.
func TestAheadIsSureAtTheSecondClaim(t *testing.T) {
	run(t, newWorld(1, 200), nil, func(b *bundle) {
		claims := 0
		b.lock(func() {
			for range 100 {
				b.overtake(0)
			}
			b.rows[0].next = 70
			b.claimHook = func(int32) { claims++ }
		})
		b.assign("g1", 0)
		time.Sleep(time.Second)
		require.Equal(b.t, 1, b.saidStopped())
		b.lock(func() { require.Equal(b.t, 2, claims); b.rows[0].next = 100 }) // the repair
		b.settled()
	})
}
