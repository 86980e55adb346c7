package provision

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/exactly-pipeline/exactly/internal/wait"
	"github.com/exactly-pipeline/exactly/migrations"
)

// ErrInUse says that the coming days' time partitions could not be made, because something reads the tables all the time.
var ErrInUse = errors.New("the coming days' time partitions: the tables are in use (an audit, a backup, a long query); a worker makes them within an hour after that is over")

const (
	// lockTimeout is how long one try waits for each lock. A time partition takes one that excludes everybody, and whatever comes meanwhile queues behind
	// whoever waits for it: beside an audit or a pg_dump, which read for minutes or hours, every capture would. So it is about all that a capture ever waits.
	lockTimeout = 100 * time.Millisecond
	// tryFor is how long setup tries, and a worker each hour. There is time: the days are made a week ahead.
	tryFor = 10 * time.Second
)

// TimePartitions makes the time partitions of today and the days ahead that do not exist yet, and returns how many it made. ErrInUse (errors.Is): none, for
// they could not be had without holding captures up.
func TimePartitions(ctx context.Context, dsn string) (int, error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return 0, fmt.Errorf("connect to postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing left to lose
	return daysAhead(ctx, conn, tryFor)
}

// daysAhead tries again and again, and lets go between, so that captures get through.
func daysAhead(ctx context.Context, conn *pgx.Conn, tryFor time.Duration) (n int, err error) {
	for until := time.Now().Add(tryFor); ; {
		err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			// Were this process stopped now, captures would wait for it.
			if _, err := tx.Exec(ctx, fmt.Sprintf(`SET LOCAL lock_timeout = %d; SET LOCAL idle_in_transaction_session_timeout = '2s'`, lockTimeout.Milliseconds())); err != nil {
				return err
			}
			n, err = migrations.MakeDaysAhead(ctx, tx, PartitionsAhead)
			return err
		})
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "55P03" && pe.Code != "40P01" { // lock_not_available, deadlock_detected
			return n, err
		}
		if time.Now().After(until) {
			return 0, fmt.Errorf("%w: %w", ErrInUse, err)
		}
		if err := wait.For(ctx, 200*time.Millisecond+rand.N(300*time.Millisecond)); err != nil {
			return 0, err
		}
	}
}
