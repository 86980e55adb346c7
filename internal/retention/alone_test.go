package retention

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// TestAlone: the lock of a command that has just ended goes with its session, a moment later; one that is kept is not waited for.
func TestAlone(t *testing.T) {
	b := setup(t)
	connected := func() *pgx.Conn {
		conn, err := pgx.Connect(b.ctx, b.cfg.Postgres.DSN)
		require.NoError(t, err)
		return conn
	}
	one, two := connected(), connected()
	defer two.Close(b.ctx) //nolint:errcheck // the test is over
	require.NoError(t, alone(b.ctx, one))
	require.ErrorIs(t, alone(b.ctx, two), ErrRunning)
	time.AfterFunc(lockPatience/10, func() { _ = one.Close(b.ctx) })
	require.NoError(t, alone(b.ctx, two))
}
