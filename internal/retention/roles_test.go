package retention

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// With users that are members of one role each: workers work, the auditor audits, and who set it all up does the deeds; nobody does another's.
func TestRoles(t *testing.T) {
	b := setup(t)
	operator, worker, auditor := []string{b.user("setup")}, []string{b.user("worker")}, []string{b.user("auditor")}
	may := func(who []string, args ...string) string {
		t.Helper()
		out, code := b.with(who, args...)
		require.Zero(t, code, "%v: %s", args, out)
		return out
	}
	mayNot := func(who []string, args ...string) {
		t.Helper()
		out, code := b.with(who, args...)
		require.Equal(t, 1, code, "%v: %s", args, out)
		require.Contains(t, out, "permission denied", "%v", args)
	}
	b.daysAgo(70, true)
	b.generate(400)
	w := b.start("w", worker...)
	b.settled()
	w.ended(true)
	b.daysAgo(0, false)
	b.generate(200)
	w = b.start("w", worker...)
	b.settled()
	w.ended(true)
	user := b.scalar(`SELECT min(user_id) FROM enriched_clicks`)

	require.Contains(t, may(auditor, "audit", "--settled", "--mark"), "verdict: clean")
	require.Equal(t, b.sent, b.scalar(`SELECT sum(verified_through)::bigint FROM exactly_verified_through`))
	may(auditor, "audit", "--offset", b.cfg.Topics.Input+"/0/0")
	require.Contains(t, may(auditor, "ledger", "verify"), "the chains hold")
	may(auditor, "ledger", "show", "--json")
	may(auditor, "offsets", "show")

	dir, who := t.TempDir(), fmt.Sprint(user)
	for _, other := range [][]string{worker, auditor} {
		mayNot(other, "erase", "--user", who, "--reason", "x")
		mayNot(other, "prune")
		mayNot(other, "offsets", "hold", "--partition", "0", "--reason", "x")
	}
	mayNot(worker, "audit", "--mark")
	may(operator, "offsets", "hold", "--partition", "0", "--reason", "x")
	may(operator, "offsets", "release", "--partition", "0")
	require.Contains(t, may(operator, "erase", "--user", who, "--reason", "request 9"), "erased: ")
	require.Contains(t, may(operator, "prune"), "dropped")
	mayNot(auditor, "ledger", "archive", "--out", dir, "--reason", "x")
	mayNot(worker, "ledger", "archive", "--out", dir, "--reason", "x")
	require.Contains(t, may(operator, "ledger", "archive", "--out", dir, "--reason", "month"), "moved to")
	require.Contains(t, may(auditor, "audit", "--settled", "--archive", dir), "verdict: clean")

	_, err := b.adm.Kadm().DeleteTopic(b.ctx, b.cfg.Ledger.HeadsTopic)
	require.NoError(t, err)
	b.until("the heads' topic is gone", func() bool {
		ids, err := b.adm.TopicIDs(b.ctx)
		require.NoError(t, err)
		return ids[b.cfg.Ledger.HeadsTopic] == ""
	})
	out, code := b.with(auditor, "heal", "kafka", "--reason", "x")
	require.NotZero(t, code, out)
	may(operator, "heal", "kafka", "--reason", "heads were deleted")
	require.Contains(t, may(operator, "heal", "postgres", "--reason", "x"), "nothing to heal")
	w = b.start("w", worker...)
	b.generate(200)
	b.settled()
	w.ended(true)
	require.Contains(t, may(auditor, "audit", "--settled"), "verdict: clean")
}
