package behaviour

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/internal/connect"
	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
)

// mortals keeps four workers running that die again and again, each somewhere else, and clicks coming.
type mortals struct {
	b    *bundle
	stop chan struct{}
	dead chan int
	all  sync.WaitGroup

	ended sync.Once

	mu     sync.Mutex
	kills  int
	failed string
}

// deaths are where they die: while something is on its way into one store or the other.
var deaths = []string{fp.CaptureCopied, fp.CaptureCommitSent, fp.CaptureCommitted, fp.PublishProduced, fp.PublishOffsetsSent, fp.PublishCommitSent, fp.PublishCommitted}

func (b *bundle) mortals() *mortals {
	m := &mortals{b: b, stop: make(chan struct{}), dead: make(chan int)}
	m.all.Go(func() { // alone starts workers
		for i := range 4 {
			m.start(i, i)
		}
		for n := 4; ; n++ {
			select {
			case i := <-m.dead:
				m.mu.Lock()
				m.kills++
				m.mu.Unlock()
				m.start(i, n)
			case <-m.stop:
				return
			}
		}
	})
	m.all.Go(m.feed)
	b.t.Cleanup(m.end)
	return m
}

// end starts no more of them and sends no more clicks; who runs goes on.
func (m *mortals) end() {
	m.ended.Do(func() { close(m.stop) })
	m.all.Wait()
}

func (m *mortals) start(i, n int) {
	w := m.b.start(fmt.Sprintf("w%d", i), failpoint(deaths[n%len(deaths)]+"=kill@5"))
	go func() {
		<-w.done
		select {
		case m.dead <- i:
		case <-m.stop:
		}
	}()
}

// feed keeps some thousand clicks ahead of the workers.
func (m *mortals) feed() {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for seed := 1; ; {
		var stored int64
		err := m.b.db.QueryRow(m.b.ctx, `SELECT coalesce(sum(next_offset), 0)::bigint FROM partition_offsets`).Scan(&stored)
		if err == nil && m.b.sent-stored < clicks/2 {
			out, code := m.b.try("generate", "--rate", "0", "--count", fmt.Sprint(clicks/4), "--seed", fmt.Sprint(seed), "--bad-share", "0.002")
			if code != 0 {
				m.mu.Lock()
				m.failed = out
				m.mu.Unlock()
				return
			}
			m.b.sent += clicks / 4
			seed++
		}
		select {
		case <-m.stop:
			return
		case <-tick.C:
		}
	}
}

// died is how often so far.
func (m *mortals) died() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	require.Empty(m.b.t, m.failed)
	return m.kills
}

// Audits, whole ones and rounds of one that goes on, beside four workers under load that are killed all the time: none finds anything.
func TestAuditBesideKills(t *testing.T) {
	b := setup(t, "EXACTLY_LEDGER_HEADS_TOPIC=killed_heads")
	m := b.mortals()
	o, err := connect.Audit(&b.cfg)
	require.NoError(t, err)
	follower := &audit.Follower{Options: o}
	follower.Options.Mark = true
	b.until("something is captured", func() bool { return b.stored() > 0 })
	var seen, owed int64
	for n := 0; n < 6 || m.died() < 6 || owed == 0; n++ {
		rep, err := audit.Run(b.ctx, o)
		require.NoError(t, err)
		require.True(t, rep.Clean(), "audit %d after %d kills: %s: %+v", n, m.died(), rep.Verdict, rep.Findings)
		require.GreaterOrEqual(t, rep.Totals.Input, seen)
		seen, owed = rep.Totals.Input, owed+rep.Totals.Owed
		rep, err = follower.Next(b.ctx)
		require.NoError(t, err)
		require.True(t, rep.Clean(), "round %d after %d kills: %s: %+v", n, m.died(), rep.Verdict, rep.Findings)
	}
	m.end()
	t.Logf("%d kills, %d records audited, %d seen as owed", m.kills, seen, owed)
	for _, w := range b.workers {
		w.kill()
	}
	b.start("last")
	b.settle()
	rep, err := follower.Next(b.ctx)
	require.NoError(t, err)
	require.True(t, rep.Clean(), "%s: %+v", rep.Verdict, rep.Findings)
	require.Equal(t, b.sent, b.scalar(`SELECT sum(verified_through)::bigint FROM exactly_verified_through`))
}
