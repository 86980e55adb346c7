package offsets

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/ledger"
)

// Records that are there are skipped by name, and stay accounted for: who, why, from where to where.
func TestReset(t *testing.T) {
	b := setup(t)
	b.env = append(b.env, "EXACTLY_COUNTS_ENABLED=true")
	b.work(1000)
	was := b.row(2).next
	b.generate(1000)
	for _, to := range []int64{0, was - 1, was, was + 100_000} {
		_, err := b.desk.Reset(b.ctx, Reset{Partition: 2, To: to, Reason: "test"})
		var refused *RefusedError
		require.True(t, errors.As(err, &refused), "%d: %v", to, err)
	}
	done, err := b.desk.Reset(b.ctx, Reset{Partition: 2, To: was + 5, Reason: "test", DryRun: true})
	require.NoError(t, err)
	require.Contains(t, done.String(), "would be skipped")
	require.Equal(t, was, b.row(2).next)
	require.Empty(t, b.deeds(2, ledger.Reset))

	out, code := b.exactly("offsets", "reset", "--partition", "2", "--to", decimal(was+5), "--reason", "a test of the shop", "--by", "alice")
	require.Zero(t, code, out)
	require.Contains(t, out, "5 records, offsets ["+decimal(was)+","+decimal(was+5)+"), skipped")
	es := b.deeds(2, ledger.Reset)
	require.Len(t, es, 1)
	require.Equal(t, []int64{was, was + 5, 5}, []int64{es[0].From, es[0].To, es[0].Records})
	require.Equal(t, "alice", es[0].Who)
	require.Contains(t, es[0].Why, "a test of the shop (the input's stable end was")
	require.Equal(t, was+5, b.committed(2))
	require.False(t, b.row(2).held)
	b.start("b")
	b.settled()
	report := b.audit(true)
	require.Equal(t, report.Totals.Rows, report.Totals.Counted, "what was skipped made no rows: counts go on behind it")
	require.Len(t, b.deeds(2, ledger.Start), 1)
	require.Equal(t, ledger.Whoami(), b.deeds(2, ledger.Start)[0].Who)
}
