package offsets

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/internal/admin"
	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/txn"
)

// damage is what somebody did to the group offset of partition 2.
var damage = map[string]func(*bundle){
	"forwards":               func(b *bundle) { b.reset(2, b.row(2).next+7, "") },
	"backwards":              func(b *bundle) { b.reset(2, 3, "by hand") },
	"forwards, our metadata": func(b *bundle) { b.reset(2, b.row(2).next+7, txn.Metadata(1, 1)) },
	"deleted": func(b *bundle) {
		_, err := b.desk.adm.Kadm().DeleteOffsets(b.ctx, b.cfg.Group, kadm.TopicsSet{b.cfg.Topics.Input: {2: {}}})
		require.NoError(b.t, err)
	},
}

func TestRestoreStopped(t *testing.T) {
	for name, do := range damage {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.work(2000)
			want, epoch := b.row(2).next, b.row(2).epoch
			do(b)
			was := b.committed(2)

			done, err := b.desk.Restore(b.ctx, Restore{Reason: "why not", DryRun: true})
			require.NoError(t, err)
			require.Len(t, done, 1)
			require.Contains(t, done[0].String(), "partition 2: dry run: group offset set to")
			require.Equal(t, was, b.committed(2))
			require.Empty(t, b.deeds(2, ledger.Restore))

			done, err = b.desk.Restore(b.ctx, Restore{Partitions: []int32{1, 2}, Reason: "why not"})
			require.NoError(t, err)
			require.Len(t, done, 2)
			require.False(t, done[0].Changed, "partition 1 was all right")
			require.True(t, done[1].Changed)
			require.Equal(t, want, *done[1].After)
			require.Equal(t, want, b.committed(2))
			es := b.deeds(2, ledger.Restore)
			require.Len(t, es, 1)
			require.Equal(t, []int64{want, want}, []int64{es[0].From, es[0].To})
			require.Contains(t, es[0].Why, "why not (")
			require.Equal(t, b.desk.By, es[0].Who)
			require.Empty(t, b.deeds(1, ledger.Restore))
			r := b.row(2)
			require.False(t, r.held)
			require.Greater(t, r.epoch, epoch)

			done, err = b.desk.Restore(b.ctx, Restore{Reason: "again"})
			require.NoError(t, err)
			require.Empty(t, done, "nothing is left to restore")
			b.audit(true)
			b.work(500)
			b.audit(true)
		})
	}
}

// A worker runs, and has refused the partition; restored, it goes on by itself, and publishes what came in meanwhile.
func TestRestoreRunning(t *testing.T) {
	for name, do := range damage {
		if name == "deleted" { // a worker finds that one by itself
			continue
		}
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.work(1000)
			do(b)
			b.generate(1000)
			b.start("b")
			b.until("the worker has claimed it and works on the others", func() bool {
				all := b.row(2).epoch > 1
				for _, r := range b.rows() {
					all = all && (r.partition == 2 || b.group(r.partition) == r.next && r.worker == "b")
				}
				return all
			})
			done, err := b.desk.Restore(b.ctx, Restore{Reason: "test"})
			require.NoError(t, err)
			require.Len(t, done, 1)
			require.True(t, done[0].Changed)
			b.settled()
			b.audit(true)
		})
	}
}

// An explicit restore beside an owner in full work does no harm: nothing is published twice, nothing is lost.
func TestRestoreWhileConsuming(t *testing.T) {
	b := setup(t)
	b.work(200)
	b.start("b", "EXACTLY_BATCH_MAX_RECORDS=10")
	b.start("c", "EXACTLY_BATCH_MAX_RECORDS=10")
	for range 3 {
		b.generate(4000)
		_, err := b.desk.Restore(b.ctx, Restore{Partitions: []int32{0, 1, 2, 3}, Reason: "test"})
		require.NoError(t, err)
	}
	b.settled()
	b.audit(true)
}

// A worker was killed with its transaction open: it is fenced, and what it owes is published once by the next owner.
func TestRestoreBesideTheDead(t *testing.T) {
	for _, point := range []string{fp.PublishProduced, fp.PublishOffsetsSent, fp.CaptureCommitted} {
		t.Run(point, func(t *testing.T) {
			b := setup(t)
			b.work(1000)
			b.generate(2000)
			b.start("dead", "EXACTLY_FAILPOINT="+point+"=kill@2").ended(false)
			_, err := b.desk.Restore(b.ctx, Restore{Partitions: []int32{0, 1, 2, 3}, Reason: "test"})
			require.NoError(t, err)
			var owed int64
			for _, r := range b.rows() {
				require.False(t, r.held)
				require.GreaterOrEqual(t, r.next, b.group(r.partition))
				owed += r.next - b.group(r.partition)
			}
			require.Positive(t, owed)
			b.audit(false)
			b.start("b")
			b.settled()
			b.audit(true)
		})
	}
}

// Above the stored offset there is nothing to restore: Postgres lacks records.
func TestRestoreRefusesAhead(t *testing.T) {
	b := setup(t)
	b.work(1000)
	next := b.row(2).next
	_, err := b.desk.db.Exec(b.ctx, `UPDATE partition_offsets SET next_offset = next_offset - 5, published_at_least = 0 WHERE source_partition = 2`)
	require.NoError(t, err)
	b.reset(1, 1, "")
	done, err := b.desk.Restore(b.ctx, Restore{Reason: "test"})
	var refused *RefusedError
	require.True(t, errors.As(err, &refused), "%v", err)
	require.EqualValues(t, 2, refused.Partition)
	require.Contains(t, err.Error(), "lacks 5 records")
	require.Len(t, done, 1, "the others are restored")
	require.Equal(t, next, b.committed(2))
	require.False(t, b.row(2).held)
}

// Killed after the hold, or after the commit: the partition stays held, and running it again ends it.
func TestRestoreKilled(t *testing.T) {
	for name, committed := range map[string]bool{"after the hold": false, "after the commit": true} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.work(1000)
			b.reset(2, 3, "")
			r := b.row(2)
			require.NoError(t, pgx.BeginFunc(b.ctx, b.desk.db, func(tx pgx.Tx) error { return b.desk.seize(b.ctx, tx, r, "restore", "first try") }))
			if committed {
				require.NoError(t, b.desk.commit(b.ctx, []*row{r}, map[int32]admin.Outside{2: {Offset: r.next, Metadata: txn.Metadata(r.epoch, r.seq)}}))
			}
			_, err := b.desk.AcceptLoss(b.ctx, AcceptLoss{Partition: 2, To: r.next + 1, Reason: "test"})
			require.Error(t, err)
			done, err := b.desk.Restore(b.ctx, Restore{Partitions: []int32{2}, Reason: "second try"})
			require.NoError(t, err)
			require.Len(t, done, 1)
			require.Len(t, b.deeds(2, ledger.Restore), 1)
			require.False(t, b.row(2).held)
			b.audit(true)
		})
	}
}

// Released by somebody else in the middle: nothing is committed.
func TestRestoreReleasedMeanwhile(t *testing.T) {
	b := setup(t)
	b.work(500)
	r := b.row(2)
	require.NoError(t, pgx.BeginFunc(b.ctx, b.desk.db, func(tx pgx.Tx) error { return b.desk.seize(b.ctx, tx, r, "restore", "test") }))
	_, err := b.desk.Release(b.ctx, []int32{2}, "")
	require.NoError(t, err)
	err = b.desk.commit(b.ctx, []*row{r}, map[int32]admin.Outside{2: {Offset: 1, Metadata: txn.Metadata(r.epoch, r.seq)}})
	var refused *RefusedError
	require.True(t, errors.As(err, &refused), "%v", err)
	require.Equal(t, r.next, b.committed(2))
}

// What CommitOutside rests on: beside members, a plain commit of an outsider is refused, one in a transaction is not; and a second
// one fences the first.
func TestCommitFromOutside(t *testing.T) {
	b := setup(t)
	cl, err := kgo.NewClient(append(admin.Options(&b.cfg), kgo.ConsumerGroup(b.cfg.Group), kgo.ConsumeTopics(b.cfg.Topics.Input), kgo.DisableAutoCommit())...)
	require.NoError(t, err)
	defer cl.Close()
	polling, stop := context.WithCancel(b.ctx)
	defer stop()
	go func() {
		for polling.Err() == nil {
			cl.PollFetches(polling)
		}
	}()
	b.until("the group has assigned all partitions", func() bool {
		a, err := b.desk.adm.Assigned(b.ctx)
		require.NoError(t, err)
		return len(a) == 4
	})
	by := kadm.Offsets{}
	by.Add(kadm.Offset{Topic: b.cfg.Topics.Input, Partition: 1, At: 5, LeaderEpoch: -1})
	require.ErrorIs(t, b.desk.adm.Kadm().CommitAllOffsets(b.ctx, b.cfg.Group, by), kerr.UnknownMemberID)
	require.EqualValues(t, -1, b.group(1))
	for at := range int64(3) {
		require.NoError(t, b.desk.adm.CommitOutside(b.ctx, map[int32]admin.Outside{1: {Offset: at, Metadata: txn.Metadata(7, 8)}, 3: {Offset: at + 1, Metadata: txn.Metadata(7, 8)}}))
		require.Equal(t, at, b.committed(1))
		require.Equal(t, at+1, b.committed(3))
	}
}

// A former owner publishes what it captured between our look and our commit, so that our commit takes the group offset back behind what
// the outputs hold: the next look finds it.
func TestRestoreLooksAgain(t *testing.T) {
	b := setup(t)
	b.work(500)
	b.generate(500)
	b.start("b", "EXACTLY_FAILPOINT="+fp.CaptureCommitted+"=hold")
	point := filepath.Join(b.dir, strings.ReplaceAll(fp.CaptureCommitted, "/", "-"))
	b.until("b has captured and not published", func() bool { _, err := os.Stat(point + ".hit"); return err == nil })
	var r *row
	for _, x := range b.rows() {
		if b.group(x.partition) < x.next {
			r = x
		}
	}
	require.NotNil(t, r)
	published := b.group(r.partition)
	require.NoError(t, b.desk.adm.CommitOutside(b.ctx, map[int32]admin.Outside{r.partition: {Offset: 3, Metadata: "by hand"}}))
	require.NoError(t, pgx.BeginFunc(b.ctx, b.desk.db, func(tx pgx.Tx) error { return b.desk.seize(b.ctx, tx, r, "restore", "test") }))
	s := &restoring{d: b.desk, rows: []*row{r}, results: map[int32]*result{}}
	wrong, err := s.compare(b.ctx, true)
	require.NoError(t, err)
	require.Len(t, wrong, 1)
	require.Equal(t, published, s.results[r.partition].at)
	require.NoError(t, os.WriteFile(point+".release", nil, 0o600))
	b.until("b has published", func() bool { return b.group(r.partition) == r.next })
	require.NoError(t, b.desk.commit(b.ctx, wrong, map[int32]admin.Outside{r.partition: {Offset: published, Metadata: txn.Metadata(r.epoch, r.seq)}}))
	// Apache Kafka answers before the offset is there; and b publishes the other partitions meanwhile, when the embedded broker calls the whole group unstable.
	require.Equal(t, published, b.committed(r.partition))
	require.NoError(t, s.correct(b.ctx))
	require.Equal(t, r.next, b.committed(r.partition))
	require.NoError(t, s.finish(b.ctx, r))
	require.Len(t, b.deeds(r.partition, ledger.Restore), 1)
	b.settled()
	b.audit(true)
}
