package heal

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
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
	require.EqualValues(t, 1, b.scalar(`SELECT count(*) FROM offset_ledger WHERE kind = 'erase' AND why = 'heal postgres: test'`))
}
