package offsets

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/ledger"
)

// expire deletes the first records of a partition, up to an offset.
func (b *bundle) expire(p int32, to int64) {
	b.t.Helper()
	os := kadm.Offsets{}
	os.Add(kadm.Offset{Topic: b.cfg.Topics.Input, Partition: p, At: to})
	res, err := b.desk.adm.Kadm().DeleteRecords(b.ctx, os)
	require.NoError(b.t, err)
	require.NoError(b.t, res.Error())
}

func TestAcceptLoss(t *testing.T) {
	for _, running := range []string{"stopped", "running"} {
		t.Run(running, func(t *testing.T) {
			b := setup(t)
			b.work(1000)
			was := b.row(2).next
			b.generate(1000)
			b.expire(2, was+10)
			if running == "running" {
				b.start("b")
				b.until("it works on the others", func() bool { r := b.row(1); return r.worker == "b" && b.group(1) == r.next })
			}
			for _, to := range []int64{was - 1, was, was + 11} {
				_, err := b.desk.AcceptLoss(b.ctx, AcceptLoss{Partition: 2, To: to, Reason: "test"})
				var refused *RefusedError
				require.True(t, errors.As(err, &refused), "%d: %v", to, err)
			}
			_, err := b.desk.AcceptLoss(b.ctx, AcceptLoss{Partition: 1, To: 5, Reason: "test"})
			require.ErrorContains(t, err, "no record expired unread")

			done, err := b.desk.AcceptLoss(b.ctx, AcceptLoss{Partition: 2, To: was + 10, Reason: "test", DryRun: true})
			require.NoError(t, err)
			require.Contains(t, done.String(), "would be accepted")
			require.Equal(t, was, b.row(2).next)

			done, err = b.desk.AcceptLoss(b.ctx, AcceptLoss{Partition: 2, To: was + 4, Reason: "test"})
			require.NoError(t, err)
			require.Contains(t, done.String(), "6 more expired")
			done, err = b.desk.AcceptLoss(b.ctx, AcceptLoss{Partition: 2, To: was + 10, Reason: "test"})
			require.NoError(t, err)
			require.Equal(t, was+4, *done.Before)
			require.Contains(t, done.String(), "so is the group offset")
			es := b.deeds(2, ledger.AcceptLoss)
			require.Len(t, es, 2)
			require.Equal(t, []int64{was, was + 4, 4}, []int64{es[0].From, es[0].To, es[0].Records})
			require.Equal(t, []int64{was + 4, was + 10, 6}, []int64{es[1].From, es[1].To, es[1].Records})
			require.False(t, b.row(2).held)
			if running == "stopped" {
				require.EqualValues(t, -1, b.row(2).leaderEpoch, "it was that of a record far below")
				require.Equal(t, was+10, b.committed(2))
				b.start("b")
			}
			b.settled()
			b.audit(true)
		})
	}
}

// With a gap: it is published by the next owner, byte for byte, and the group offset goes along.
func TestAcceptLossWithGap(t *testing.T) {
	b := setup(t)
	b.work(500)
	b.generate(2000)
	b.start("dead", "EXACTLY_FAILPOINT="+fp.CaptureCommitted+"=kill@5").ended(false)
	b.empty()
	b.generate(500) // beyond what was captured
	var p int32 = -1
	for _, r := range b.rows() {
		if b.group(r.partition) < r.next {
			p = r.partition
		}
	}
	require.GreaterOrEqual(t, p, int32(0), "no gap was left")
	next, group := b.row(p).next, b.committed(p)
	b.expire(p, next+10)
	done, err := b.desk.AcceptLoss(b.ctx, AcceptLoss{Partition: p, To: next + 10, Reason: "test"})
	require.NoError(t, err)
	require.Contains(t, done.String(), "is left to the next owner")
	require.Equal(t, group, b.committed(p))
	b.start("b")
	b.settled()
	b.audit(true)
}
