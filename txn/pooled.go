package txn

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrPooled says that what answers at the DSN is a pooler that does not give each session a backend of its own, as PgBouncer does in transaction and in
// statement mode, or does not pass on what a session asks for. A frozen worker could then hold a row's lock for ever.
var ErrPooled = errors.New("postgres.dsn leads to a connection pooler that does not keep sessions (PgBouncer in transaction mode?), and a frozen worker could hold a row's lock for " +
	"ever: connect directly, or through a pool in session mode as doc/operations.md, \"Behind a pooler\", has it")

// KeepsSessions returns an error that matches ErrPooled if sessions with these settings are not kept apart, and as they were made.
func (c *StoreConfig) KeepsSessions(ctx context.Context) error {
	s := &Store{cfg: *c}
	pc, err := s.current()
	if err != nil {
		return err
	}
	var sessions [2]*pgx.Conn // both at once: where a transaction's end gives the backend back, the second gets the first one's
	for i := range sessions {
		if sessions[i], err = pgx.ConnectConfig(ctx, pc); err != nil {
			var pe *pgconn.PgError
			if errors.As(err, &pe) && pe.Code == "08P01" && strings.Contains(pe.Message, "startup parameter") { // Postgres itself never says that
				return fmt.Errorf("%w (it says: %s)", ErrPooled, pe.Message)
			}
			return fmt.Errorf("connect to postgres: %w", err)
		}
		defer sessions[i].Close(context.WithoutCancel(ctx)) //nolint:errcheck // read only
	}
	var pids [4]int
	for i := range pids {
		var timeout string
		err := sessions[i%2].QueryRow(ctx, `SELECT pg_backend_pid(), setting FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout'`, pgx.QueryExecModeExec).Scan(&pids[i], &timeout)
		if err != nil {
			return fmt.Errorf("look at a session's settings: %w", err)
		}
		if want := pc.RuntimeParams["idle_in_transaction_session_timeout"]; timeout != want {
			return fmt.Errorf("%w (idle_in_transaction_session_timeout was asked to be %s ms, and is %s)", ErrPooled, want, timeout)
		}
	}
	if pids[0] == pids[1] || pids[0] != pids[2] || pids[1] != pids[3] {
		return fmt.Errorf("%w (two sessions that took turns had the backends %v)", ErrPooled, pids)
	}
	return nil
}
