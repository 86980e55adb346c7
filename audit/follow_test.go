package audit

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/ledger"
)

func (f *Follower) next(w *world) *Report {
	w.t.Helper()
	rep, err := f.Next(w.ctx)
	require.NoError(w.t, err)
	return rep
}

// A round looks at what is new, and at nothing else.
func TestFollow(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.store(ownHash)
	w.publishHeads(nil)
	l := goOn(w)
	f := &Follower{Options: w.opts}
	rep := f.next(w)
	require.True(t, rep.Clean(), sentences(rep))
	require.EqualValues(t, 13, rep.Totals.Input)
	rep = f.next(w)
	require.True(t, rep.Clean(), sentences(rep))
	require.Equal(t, "clean: nothing new", rep.Verdict)
	require.Zero(t, rep.Totals.Rows+rep.Totals.Events+rep.Totals.Ledger)

	l.publishNow(l.feed(0, 5))
	owed := l.feed(1, 3)
	l.visible()
	rep = f.next(w)
	require.True(t, rep.Clean(), sentences(rep))
	require.EqualValues(t, 8, rep.Totals.Input)
	require.EqualValues(t, 3, rep.Totals.Owed)
	require.EqualValues(t, 2, rep.Totals.Ledger)
	require.EqualValues(t, w.offsets[0].next, rep.Partitions[0].Verified)
	require.EqualValues(t, 6, rep.Partitions[1].Verified, "what is owed is not proven")
	l.publishNow(owed)
	l.visible()
	rep = f.next(w)
	require.True(t, rep.Clean(), sentences(rep))
	require.EqualValues(t, 3, rep.Totals.Input, "what was owed is looked at again")
	require.EqualValues(t, w.offsets[1].next, rep.Partitions[1].Verified)
}

// What is wrong with what is new is found, in every round for as long as it is there; so is a second event of what was proven. What happens to the
// stores' older part is found when everything is looked at.
func TestFollowFinds(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.store(ownHash)
	l := goOn(w)
	f := &Follower{Options: w.opts}
	require.True(t, f.next(w).Clean())
	l.publishNow(l.feed(0, 4))
	l.visible()
	at := w.offsets[0].next - 2
	w.exec(`UPDATE enriched_clicks SET url = url || 'x' WHERE source_partition = 0 AND source_offset = $1`, at)
	for range 2 {
		rep := f.next(w)
		require.EqualValues(t, 1, rep.Found[Different], sentences(rep))
		require.Equal(t, at, rep.Findings[0].Offset)
	}
	w.exec(`UPDATE enriched_clicks SET url = left(url, -1) WHERE source_partition = 0 AND source_offset = $1`, at)
	rep := f.next(w)
	require.True(t, rep.Clean(), sentences(rep))

	w.exec(`DELETE FROM enriched_clicks WHERE source_partition = 0 AND source_offset = 1`)
	require.True(t, f.next(w).Clean(), "it was proven before")
	f.Whole = time.Nanosecond
	rep = f.next(w)
	require.EqualValues(t, 1, rep.Found[Missing], sentences(rep))
}

// Events of what was proven come once more: as the first of what is new, and behind others.
func TestFollowFindsOldEvents(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.store(ownHash)
	l := goOn(w)
	f := &Follower{Options: w.opts}
	require.True(t, f.next(w).Clean())
	w.transaction(w.producer(), kgo.TryCommit, records(w.messages(0, 2, 3))...)
	l.visible()
	for range 2 {
		rep := f.next(w)
		require.Equal(t, []string{"duplicate events 0@2"}, said(rep), sentences(rep))
	}
	l.publishNow(l.feed(0, 4))
	l.visible()
	rep := f.next(w)
	require.EqualValues(t, 1, rep.Found[Duplicate], sentences(rep))
}

// Beside a worker that works every round is clean, and together they look at everything.
func TestFollowLive(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.store(ownHash)
	l := goOn(w)
	stop := make(chan struct{})
	var worker sync.WaitGroup
	worker.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			owed := l.feed(int32(i%2), 1+i%5)
			if i%7 == 0 {
				l.send(owed)
				require.NoError(t, l.kafka.EndTransaction(l.ctx, kgo.TryAbort))
			}
			l.publishNow(owed)
		}
	})
	f := &Follower{Options: w.opts}
	through := map[int32]int64{}
	for range 20 {
		rep := f.next(w)
		require.True(t, rep.Clean(), sentences(rep))
		for _, p := range rep.Partitions {
			require.GreaterOrEqual(t, p.Verified, through[p.Partition])
			through[p.Partition] = p.Verified
		}
	}
	close(stop)
	worker.Wait()
	l.visible()
	rep := f.next(w)
	require.True(t, rep.Clean(), sentences(rep))
	for _, p := range rep.Partitions {
		require.Equal(t, w.offsets[p.Partition].next, p.Verified)
	}
	require.Greater(t, w.offsets[0].next, int64(50), "the worker made no progress beside the rounds")
}

// A database that was restored and healed has another chain than the one that was proven. A round that sees that looks at everything.
func TestFollowAcrossAHeal(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.store(ownHash)
	w.publishHeads(nil)
	f := &Follower{Options: w.opts}
	require.True(t, f.next(w).Clean())
	old := w.ledger[3].Hash()
	w.rewrite(func() { w.ledger[3].Kind, w.ledger[3].Why = ledger.Heal, "restored from a backup" })
	rep := f.next(w)
	require.EqualValues(t, 1, rep.Found[LedgerChain], "nobody said so yet: %s", sentences(rep))
	require.False(t, rep.Round)
	e := &w.ledger[3]
	w.publishHead(nil, headJSON{V: 1, SourceID: 1, Topic: w.opts.Input, Group: w.opts.Group, Partition: 0, Seq: e.Seq, Hash: fmt.Sprintf("%x", e.Hash()), To: e.To, Kind: "heal",
		Replaces: &replacedHead{Seq: 4, Hash: fmt.Sprintf("%x", old)}})
	for range 2 {
		rep = f.next(w)
		require.True(t, rep.Clean(), sentences(rep))
	}
	require.True(t, rep.Round)
}
