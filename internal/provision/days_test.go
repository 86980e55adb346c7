package provision

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

// While somebody reads a table all the time, as an audit and pg_dump do, the coming days can't be made; captures wait for that no longer than a moment.
func TestDaysAheadNeverHoldCapturesUp(t *testing.T) {
	t.Parallel()
	b := fresh(t, shared.Stack)
	_, err := Migrate(b.ctx, b.cfg.Postgres.DSN)
	require.NoError(t, err)
	b.exec(`DO $$ DECLARE t text; BEGIN
		FOR t IN SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent IN ('enriched_clicks'::regclass, 'outbox'::regclass, 'dead_letters'::regclass) LOOP
			IF t NOT LIKE '%default' THEN EXECUTE 'DROP TABLE ' || t; END IF;
		END LOOP; END $$`)
	for _, table := range []string{"enriched_clicks", "dead_letters"} { // the first that is taken, and the last: the others are held by then
		reader, err := b.connect(b.cfg.Postgres.DSN).Begin(b.ctx)
		require.NoError(t, err)
		_, err = reader.Exec(b.ctx, `LOCK TABLE `+table+` IN ACCESS SHARE MODE`)
		require.NoError(t, err)
		type result struct {
			n   int
			err error
		}
		made := make(chan result, 1)
		maker := b.connect(b.cfg.Postgres.DSN)
		go func() {
			n, err := daysAhead(b.ctx, maker, 2*time.Second)
			made <- result{n, err}
		}()
		captures := 0
		for r := (*result)(nil); r == nil; {
			select {
			case got := <-made:
				r = &got
				require.ErrorIs(t, r.err, ErrInUse)
				require.Zero(t, r.n)
			default:
				err := pgx.BeginFunc(b.ctx, b.super, func(tx pgx.Tx) error {
					// The reader stays: a capture gets through only if whoever makes the days lets go between its tries.
					_, err := tx.Exec(b.ctx, `SET LOCAL lock_timeout = '20s'; LOCK TABLE enriched_clicks, outbox, dead_letters IN ROW EXCLUSIVE MODE`)
					return err
				})
				require.NoError(t, err, "a capture would have waited")
				captures++
			}
		}
		require.Greater(t, captures, 1)
		if table == "dead_letters" {
			did, err := migrate(b.ctx, b.cfg.Postgres.DSN, maker)
			require.NoError(t, err)
			require.Contains(t, did[len(did)-1], "NOT made")
		}
		require.NoError(t, reader.Rollback(b.ctx))
	}
	n, err := TimePartitions(b.ctx, b.cfg.Postgres.DSN)
	require.NoError(t, err)
	require.Equal(t, 3*(PartitionsAhead+1), n)
}
