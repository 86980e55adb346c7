package behaviour

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
)

// both starts two workers and waits until both are at work.
func (b *bundle) both(withA, withB []string) (x, y *worker) {
	b.t.Helper()
	x = b.start("a", withA...)
	x.says("consuming")
	y = b.start("b", withB...)
	y.says("consuming")
	return x, y
}

// captures counts a worker's ledger entries.
func (b *bundle) captures(worker string) int64 {
	return b.scalar(`SELECT count(*) FROM offset_ledger WHERE kind = 'capture' AND worker = $1`, worker)
}

// A zombie: stopped with a Kafka transaction open, past the session timeout, while the other takes over. Woken up it writes nothing, says
// that it was fenced, and rejoins.
func TestZombie(t *testing.T) {
	for _, point := range []string{fp.PublishOffsetsSent, fp.PublishProduced, fp.CaptureBefore, fp.CaptureCommitted} {
		t.Run(point, func(t *testing.T) {
			b := setup(t)
			a, _ := b.both([]string{failpoint(point + "=stop@2")}, nil)
			b.feed("the zombie is stopped", func() bool { return b.hit(point) })
			b.settle() // the other has done everything
			before := b.captures("a")
			a.signal(syscall.SIGCONT)
			a.says("rebalance: lost|fenced|producer lost")
			require.Equal(t, before, b.captures("a"), "the zombie captured something")
			a.says("rebalance: assigned.*\n(.*\n)*.*consuming") // rejoined
			b.until("the zombie is back at work", func() bool {
				b.generate(500)
				return b.captures("a") > before
			})
			b.settle()
		})
	}
}

// A former owner, frozen between assignment and claim, claims late: the rightful owner is refused, claims again and goes on.
func TestFormerOwnerClaimsLate(t *testing.T) {
	b := setup(t)
	a := b.start("a", failpoint(fp.ClaimBefore+"=stop@3"))
	b.until("a is frozen before its claim", func() bool { return b.hit(fp.ClaimBefore) })
	o := b.start("b")
	o.says("consuming")
	b.generate(clicks / 2)
	b.settle()
	a.signal(syscall.SIGCONT)
	a.says("rebalance: lost")
	b.generate(clicks / 2)
	b.settle()
}

// A frozen worker sits inside its Postgres transaction and holds the rows' locks: the next owner ends it and is at work.
func TestFrozenInsidePostgresTransaction(t *testing.T) {
	b := setup(t)
	b.both([]string{failpoint(fp.CaptureCopied + "=stop@2")}, nil)
	b.feed("a is frozen", func() bool { return b.hit(fp.CaptureCopied) })
	frozen := time.Now()
	b.until("everything is stored and published", func() bool { return b.stored() == b.sent && b.published() == b.sent })
	// One session timeout to be noticed and one for the lock to be freed, and room for a crowded machine.
	require.Less(t, time.Since(frozen), 5*session)
	b.settle()
}

// A worker that takes a partition over from a live one leaves it its others, though their transaction is open.
func TestTakeoverLeavesLiveWorkersAlone(t *testing.T) {
	b := setup(t, "EXACTLY_KAFKA_SESSION_TIMEOUT=20s") // or the broker ends a transaction held open on a crowded machine
	x, y := b.both([]string{failpoint(fp.PublishOffsetsSent + "=hold@3")}, nil)
	b.feed("a holds its transaction open", func() bool { return b.hit(fp.PublishOffsetsSent) })
	z := b.start("c")
	b.until("c is a member", func() bool {
		m, err := b.adm.Members(b.ctx)
		require.NoError(t, err)
		return len(m) == 3
	})
	b.release(fp.PublishOffsetsSent)
	z.says("consuming")
	b.generate(clicks / 2)
	b.settle()
	for _, w := range []*worker{x, y, z} {
		require.NotContains(t, w.log.Tail(), "producer lost", "worker %s was fenced", w.id)
		require.NotContains(t, w.log.Tail(), "took over", "worker %s fenced somebody", w.id)
	}
}

// A rebalance retains some partitions of a captured batch and takes others, at every point between capture and commit.
func TestRebalanceInTheMiddle(t *testing.T) {
	for _, point := range []string{
		fp.CaptureBefore, fp.CaptureCopied, fp.CaptureCommitted, fp.PublishProduced, fp.PublishOffsetsSent, fp.PublishCommitted,
	} {
		t.Run(point, func(t *testing.T) {
			b := setup(t)
			a := b.start("a", failpoint(point+"=hold@2"))
			a.says("consuming")
			b.feed("a holds", func() bool { return b.hit(point) })
			o := b.start("b")
			b.until("b is a member", func() bool {
				m, err := b.adm.Members(b.ctx)
				require.NoError(t, err)
				return len(m) == 2
			})
			a.says("rebalance: (revoked|lost)")
			b.release(point)
			o.says("consuming")
			b.generate(clicks / 2)
			b.settle()
			require.Positive(t, b.captures("a"))
			require.Positive(t, b.captures("b"))
		})
	}
}

// Workers come and go under load: 1, 4, 2. The audit also finds order per key kept.
func TestWorkersComeAndGo(t *testing.T) {
	b := setup(t)
	b.start("w1")
	b.generate(clicks / 4)
	for i := 2; i <= 4; i++ {
		b.start(fmt.Sprintf("w%d", i))
		b.generate(clicks / 4)
	}
	b.workers[2].says("consuming")
	b.generate(clicks / 4)
	b.workers[3].stop()
	b.generate(clicks / 4)
	b.workers[1].kill()
	b.generate(clicks / 4)
	b.settle()
}

// Two processes under one worker id: the older one stops and says so; they do not fence each other in turns.
func TestSameWorkerID(t *testing.T) {
	b := setup(t)
	first := b.start("a")
	first.says("consuming")
	b.generate(clicks / 4)
	second := b.start("a")
	select {
	case <-first.done:
	case <-time.After(patience):
		t.Fatal("the first worker did not stop")
	}
	require.Equal(t, 1, first.cmd.ProcessState.ExitCode())
	first.says("another process runs with the same worker id")
	b.generate(clicks / 4)
	b.settle()
	select {
	case <-second.done:
		t.Fatalf("the second worker ended as well:\n%s", second.log.Tail())
	default:
	}
}

// SIGTERM under load: exit 0 within ten seconds, and the partitions move at once.
func TestStopUnderLoad(t *testing.T) {
	b := setup(t)
	a, _ := b.both(nil, nil)
	b.generate(clicks / 2)
	a.stop()
	b.until("a has left the group", func() bool {
		m, err := b.adm.Members(b.ctx)
		require.NoError(t, err)
		_, there := m["a"]
		return !there
	})
	b.generate(clicks / 2)
	b.settle()
}

// A worker dies between having partitions taken from it and joining the group again, and comes back within its session timeout. Apache Kafka has
// no rebalance for it (KIP-345): what was taken is nobody's, until the one who came back sees to it.
func TestComesBackWithoutWhatWasTaken(t *testing.T) {
	b := setup(t)
	a := b.start("a", failpoint(fp.PublishProduced+"=hold@2"))
	a.says("consuming")
	b.generate(clicks / 2)
	b.until("a holds", func() bool { return b.hit(fp.PublishProduced) })
	b.start("b")
	a.says("rebalance: revoked") // and waits for the transaction
	a.kill()
	b.start("a")
	b.generate(clicks / 2)
	b.settle()
}
