package heal

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
)

// Who was erased after the backup is not brought back by it, nor by the heal that rebuilds from Kafka's events what the backup lacks.
func TestErasedStaysErased(t *testing.T) {
	t.Parallel()
	server, dsn := ownPostgres(t)
	b := newWorld(t, dsn)
	b.alone(clicks)
	require.NoError(t, server.BackupPostgres(b.ctx, "monday"))
	b.alone(clicks)
	user := b.scalar(`SELECT user_id FROM enriched_clicks GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1`)
	all := b.scalar(`SELECT count(*) FROM enriched_clicks WHERE user_id = $1`, user)
	require.Contains(t, b.exactly("erase", "--user", fmt.Sprint(user), "--reason", "request 7"), "erased: ")
	require.NoError(t, server.RestorePostgres(b.ctx, "monday"))
	back := b.scalar(`SELECT count(*) FROM enriched_clicks WHERE user_id = $1`, user)
	require.Positive(t, back, "the backup has none of this user")
	require.Less(t, back, all, "the heal has none of this user to rebuild")

	require.Contains(t, b.exactly("heal", "postgres", "--reason", "test"), "rebuilt the records")
	require.Zero(t, b.scalar(`SELECT count(*) FROM enriched_clicks WHERE user_id = $1`, user))
	require.Zero(t, b.scalar(`SELECT count(*) FROM outbox WHERE key = $1`, []byte(fmt.Sprint(user))))
	require.Equal(t, all, b.scalar(`SELECT count(*) FROM enriched_clicks WHERE user_id = 0`))
	require.Equal(t, all, b.scalar(`SELECT sum(records)::bigint FROM offset_ledger WHERE kind = 'erase' AND why = 'heal postgres: test'`))
	b.start("b")
	b.settle()
}

// Killed in the middle of a heal, or behind its last transaction: nobody's erased data is ever rebuilt, the next heal blanks what the backup brought
// back, and the heads of what was lost are replaced.
func TestErasedKilled(t *testing.T) {
	for _, at := range []string{fp.HealCommitted + "=kill@9", fp.HealRebuilt + "=kill", fp.HealFinished + "=kill"} {
		t.Run(at, func(t *testing.T) {
			b := setup(t, "EXACTLY_BATCH_DRAIN_RECORDS=400")
			b.alone(clicks)
			b.backup()
			before := b.stored()
			b.alone(clicks)
			user := b.eraseOne(1)
			b.restore()
			back := b.scalar(`SELECT count(*) FROM enriched_clicks WHERE user_id = $1`, user)
			require.Positive(t, back)
			h := b.spawn("heal", []string{"EXACTLY_FAILPOINT=" + at}, "heal", "postgres", "--reason", "first")
			require.Equal(t, -1, h.ended(), h.log.Tail())
			require.Greater(t, b.stored(), before)
			if at != fp.HealFinished+"=kill" {
				require.Equal(t, back, b.scalar(`SELECT count(*) FROM enriched_clicks WHERE user_id = $1`, user), "what was rebuilt is blank from the start")
			}
			b.exactly("heal", "postgres", "--reason", "second")
			require.Zero(t, b.scalar(`SELECT count(*) FROM enriched_clicks WHERE user_id = $1`, user))
			require.Zero(t, b.scalar(`SELECT count(*) FROM outbox WHERE key = $1`, []byte(fmt.Sprint(user))))
			require.Contains(t, b.exactly("ledger", "verify"), "the chains hold")
			b.start("b")
			b.settle()
		})
	}
}

// A backup that lacks nothing but the erasure: a heal finds nothing to rebuild, and blanks it all the same.
func TestErasedAndNothingElse(t *testing.T) {
	b := setup(t)
	b.alone(clicks)
	b.backup()
	user := b.eraseOne(1)
	b.restore()
	require.Positive(t, b.scalar(`SELECT count(*) FROM enriched_clicks WHERE user_id = $1`, user))
	b.exactly("heal", "postgres", "--reason", "test")
	require.Zero(t, b.scalar(`SELECT count(*) FROM enriched_clicks WHERE user_id = $1`, user))
}

// eraseOne erases the user of a partition that has the most clicks.
func (b *world) eraseOne(partition int32) (user int64) {
	b.t.Helper()
	user = b.scalar(`SELECT user_id FROM enriched_clicks WHERE source_partition = $1 GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1`, partition)
	require.Contains(b.t, b.exactly("erase", "--user", fmt.Sprint(user), "--reason", "request 7"), "erased: ")
	return user
}
