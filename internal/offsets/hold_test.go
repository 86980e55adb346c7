package offsets

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/ledger"
)

// A running owner loses a held partition at its next capture, and takes it up again when it is released.
func TestHoldAndRelease(t *testing.T) {
	b := setup(t)
	b.work(500)
	b.start("b")
	b.until("b owns all", func() bool {
		all := true
		for _, r := range b.rows() {
			all = all && r.worker == "b"
		}
		return all
	})
	at := b.row(2).next
	out, code := b.exactly("offsets", "hold", "--partition", "2", "--reason", "looking into it")
	require.Zero(t, code, out)
	require.Contains(t, out, "partition 2: held at stored offset")
	b.generate(1000)
	b.until("the others are done", func() bool {
		var stored int64
		for _, r := range b.rows() {
			stored += r.next
		}
		rep, err := b.desk.Show(b.ctx)
		require.NoError(t, err)
		return stored+*rep.Partitions[2].Lag == b.sent
	})
	require.Equal(t, at, b.row(2).next)
	out, code = b.exactly("offsets", "show")
	require.Zero(t, code, out)
	require.Contains(t, out, "held by "+b.desk.By)
	require.Contains(t, out, "offsets hold: looking into it")
	out, code = b.exactly("offsets", "hold", "--partition", "2", "--reason", "me too")
	require.Equal(t, 1, code)
	require.Contains(t, out, "is held already")
	out, code = b.exactly("offsets", "release", "--all", "--by", "bob")
	require.Zero(t, code, out)
	require.Contains(t, out, "partition 2: released")
	require.NotContains(t, out, "partition 1")
	out, code = b.exactly("offsets", "release", "--partition", "2")
	require.Zero(t, code, out)
	require.Contains(t, out, "was not held")
	holds, releases := b.deeds(2, ledger.Hold), b.deeds(2, ledger.Release)
	require.Len(t, holds, 1)
	require.Len(t, releases, 1)
	require.Equal(t, []int64{at, at, 0}, []int64{holds[0].From, releases[0].To, holds[0].Records})
	require.Equal(t, "looking into it", holds[0].Why)
	require.Contains(t, releases[0].Why, "held by "+b.desk.By)
	require.Equal(t, "bob", releases[0].Who)
	b.settled()
	b.audit(true)
}

// A person's own hold stays when a restore is done; somebody else's is respected.
func TestRestoreUnderHold(t *testing.T) {
	b := setup(t)
	b.work(500)
	want := b.row(2).next
	b.reset(2, 3, "")
	_, err := b.desk.Hold(b.ctx, []int32{2}, "mine")
	require.NoError(t, err)
	b.desk.By = "somebody@else"
	_, err = b.desk.Restore(b.ctx, Restore{Partitions: []int32{2}, Reason: "test"})
	require.ErrorContains(t, err, "offsets hold: mine")
	b.desk.By = ledger.Whoami()
	done, err := b.desk.Restore(b.ctx, Restore{Partitions: []int32{2}, Reason: "test"})
	require.NoError(t, err)
	require.Contains(t, done[0].String(), "still held")
	r := b.row(2)
	require.True(t, r.held)
	require.Equal(t, "offsets hold: mine", r.heldWhy)
	require.Equal(t, want, b.committed(2))
	require.Len(t, b.deeds(2, ledger.Restore), 1)

	out, code := b.exactly("offsets", "restore", "--all", "--reason", "test", "--json")
	require.Zero(t, code, out)
	require.JSONEq(t, `{"partitions": []}`, out)
	out, code = b.exactly("offsets", "restore", "--partition", "1", "--partition", "3", "--reason", "test")
	require.Zero(t, code, out)
	require.Equal(t, 2, strings.Count(out, "nothing to restore"), out)
	out, code = b.exactly("offsets", "accept-loss", "--partition", "1", "--to", "9", "--reason", "test")
	require.Equal(t, 1, code)
	require.Contains(t, out, "no record expired unread")
}

func TestUsage(t *testing.T) {
	b := setup(t)
	for _, args := range [][]string{
		{"restore", "--partition", "1"}, {"restore", "--reason", "x"}, {"restore", "--all", "--partition", "1", "--reason", "x"},
		{"restore", "--partition", "-1", "--reason", "x"}, {"restore", "--partition", "one", "--reason", "x"},
		{"accept-loss", "--partition", "1", "--reason", "x"}, {"accept-loss", "--to", "1", "--reason", "x"}, {"accept-loss", "--partition", "1", "--to", "5"},
		{"reset", "--partition", "1", "--to", "5"}, {"hold", "--partition", "1"}, {"hold", "--reason", "x"}, {"release"}, {"show", "me"}, {"mend"},
	} {
		out, code := b.exactly(append([]string{"offsets"}, args...)...)
		require.Equal(t, 2, code, "%v: %s", args, out)
	}
	out, code := b.exactly("offsets", "restore", "--partition", "1", "--reason", "x")
	require.Equal(t, 1, code)
	require.Contains(t, out, "has no stored offset")
}
