package offsets

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
)

func TestShow(t *testing.T) {
	b := setup(t)
	rep, err := b.desk.Show(b.ctx)
	require.NoError(t, err)
	require.Len(t, rep.Partitions, 4)
	require.Nil(t, rep.Partitions[0].Stored)
	require.Nil(t, rep.Partitions[0].Group)

	b.work(1000)
	out, code := b.exactly("offsets", "show")
	require.Zero(t, code, out)
	require.Contains(t, out, "group "+b.cfg.Group)
	rep, err = b.desk.Show(b.ctx)
	require.NoError(t, err)
	require.NotEmpty(t, rep.ClusterID)
	require.NotEmpty(t, rep.TopicID)
	for _, p := range rep.Partitions {
		require.Equal(t, []int64{0, 0}, []int64{*p.Gap, *p.Lag}, "partition %d", p.Partition)
		require.Equal(t, "open", p.State)
		require.Equal(t, "a", p.Owner)
		require.Empty(t, p.Assigned)
		require.Empty(t, p.Notes)
		require.True(t, p.Ours)
	}

	b.generate(1000)
	next := b.row(2).next
	b.reset(1, 5, "")
	b.expire(2, next+3)
	_, err = b.desk.adm.Kadm().DeleteOffsets(b.ctx, b.cfg.Group, kadm.TopicsSet{b.cfg.Topics.Input: {3: {}}})
	require.NoError(t, err)
	rep, err = b.desk.Show(b.ctx)
	require.NoError(t, err)
	require.Positive(t, *rep.Partitions[0].Lag)
	require.Contains(t, rep.Partitions[1].Notes, "group offset not ours")
	require.EqualValues(t, 5, *rep.Partitions[1].Group)
	require.Contains(t, rep.Partitions[2].Notes, "3 records expired unread")
	require.Contains(t, rep.Partitions[3].Notes, "group offset gone")
	require.Nil(t, rep.Partitions[3].Group)
	out, code = b.exactly("offsets", "show")
	require.Zero(t, code, out)
	require.Contains(t, out, "5*")
	t.Log("\n" + out)
	out, code = b.exactly("offsets", "show", "--json")
	require.Zero(t, code, out)
	var again Report
	require.NoError(t, json.Unmarshal([]byte(out), &again))
	require.Equal(t, *rep, again)
}

// A worker holds its transaction open, then dies in it: pending, with the member that has it assigned; then a gap.
func TestShowPendingAndGap(t *testing.T) {
	b := setup(t)
	b.generate(2000)
	w := b.start("dead", "EXACTLY_FAILPOINT="+fp.PublishOffsetsSent+"=kill")
	w.ended(false)
	rep, err := b.desk.Show(b.ctx) // the broker's transaction timeout, and the session's, are seconds away
	require.NoError(t, err)
	pending := false
	for _, p := range rep.Partitions {
		pending = pending || p.Pending
		require.Equal(t, "dead", p.Assigned)
	}
	require.True(t, pending)
	out, code := b.exactly("offsets", "show")
	require.Zero(t, code, out)
	b.until("the broker has aborted it", func() bool { return b.group(0) != -3 })
	b.start("b")
	b.settled()
	rep, err = b.desk.Show(b.ctx)
	require.NoError(t, err)
	for _, p := range rep.Partitions {
		require.Equal(t, "b", p.Assigned)
	}
}
