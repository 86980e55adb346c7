// Package start owns how a worker comes to its stores: what is away is waited for, what is not as it was set up is refused, and the Kafka client
// is the one that the settings choose.
//
// It promises that a store that is away is said once, and that what only a person can mend ends the start with what to do. It never knows what the
// worker does with records.
package start

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/acl"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/internal/security"
	"github.com/exactly-pipeline/exactly/migrations"
	"github.com/exactly-pipeline/exactly/txn"
)

// errPerson marks what waiting does not mend.
type errPerson struct{ error }

func (e errPerson) Unwrap() error { return e.error }

// Wait tries f until it works, with back-off. What is away is said once, and so is each refusal: somebody may mend it meanwhile.
func Wait(ctx context.Context, c *config.Config, log *zap.Logger, what string, f func(context.Context) error) error {
	said := map[string]bool{}
	for attempt := 0; ; attempt++ {
		once, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := Explain(once, c, refused(f(once)))
		cancel()
		var person errPerson
		if err == nil || errors.As(err, &person) || ctx.Err() != nil {
			if err == nil && len(said) > 0 {
				log.Info(what + " is there")
			}
			return err
		}
		if refused, text := security.Refused(err), err.Error(); refused && !said[text] {
			log.Error(what+" can't be used: trying on until somebody mends it", zap.Error(err))
			said[text] = true
		} else if len(said) == 0 {
			log.Warn(what+" is away: waiting for it", zap.Error(err))
			said["away"] = true
		}
		d := min(100*time.Millisecond<<min(attempt, 6), 5*time.Second)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d/2 + rand.N(d/2)):
		}
	}
}

// refused marks what the database's user may not do: it is there, and waiting does not help.
func refused(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == "42501" { // insufficient_privilege
		return errPerson{fmt.Errorf("%w: a worker's database user must be a member of exactly_worker, and `exactly setup` must have been run", err)}
	}
	return err
}

// FindSource reads the source that the settings name, once the database is at this program's migration.
func FindSource(ctx context.Context, c *config.Config, src *txn.Source) error {
	dsn, err := c.Postgres.CurrentDSN()
	if err != nil {
		return err
	}
	sessions := StoreConfig(c, "", nil)
	if err := sessions.KeepsSessions(ctx); errors.Is(err, txn.ErrPooled) {
		return errPerson{err}
	} else if err != nil {
		return err
	}
	err = migrations.Check(ctx, dsn)
	var version *migrations.ErrVersion
	if errors.As(err, &version) {
		return errPerson{err}
	}
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // read only
	*src, err = txn.FindSource(ctx, conn, c.Topics.Input, c.Group)
	if errors.Is(err, txn.ErrNoSource) {
		return errPerson{err}
	}
	src.Start = c.Start
	return err
}

// MeetKafka compares the cluster and the topics with what src was set up with, and fills in the shape.
func MeetKafka(ctx context.Context, c *config.Config, adm *admin.Admin, src *txn.Source, shape *engine.Shape) error {
	missing, err := acl.Missing(ctx, adm.Kadm(), acl.Rules(c, acl.Worker))
	if err == nil && len(missing) > 0 { // now, not in the middle of a transaction
		err = acl.Denied(missing, nil)
	}
	if err != nil {
		return err
	}
	cluster, err := adm.Cluster(ctx)
	if err != nil {
		return err
	}
	ids, err := adm.TopicIDs(ctx)
	if err != nil {
		return err
	}
	if err := src.Matches(cluster, ids); err != nil {
		return errPerson{err}
	}
	if shape.Partitions, err = adm.Partitions(ctx); err != nil {
		return err
	}
	for _, t := range c.AllTopics() {
		if shape.Partitions[t] == 0 {
			return errPerson{fmt.Errorf("topic %s does not exist: run `exactly setup`", t)}
		}
	}
	limit, err := adm.MaxMessageBytes(ctx)
	if err != nil {
		return err
	}
	shape.MaxMessage = maxMessage(c, limit)
	return nil
}

// PartitionsAhead makes the coming days' time partitions, so that captures never land in the default one.
func PartitionsAhead(ctx context.Context, c *config.Config, log *zap.Logger) {
	t := time.NewTicker(time.Hour)
	defer t.Stop()
	for {
		dsn, err := c.Postgres.CurrentDSN()
		if err == nil {
			_, err = provision.TimePartitions(ctx, dsn)
		}
		if err != nil && ctx.Err() == nil {
			log.Warn("could not make the coming days' time partitions", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// endsEvery is how often the input's log ends are asked for, to tell the lag. The client knows those of what it fetches only: not of a
// partition that is held or stopped, whose lag is the most telling.
const endsEvery = 5 * time.Second

// LogEnds tells, until ctx is done, where the topic's partitions end; nil: nobody can say.
func LogEnds(ctx context.Context, adm *admin.Admin, topic string, tell func(map[int32]int64)) {
	t := time.NewTicker(endsEvery)
	defer t.Stop()
	for {
		c, cancel := context.WithTimeout(ctx, endsEvery)
		_, listed, err := adm.LogRange(c, topic)
		cancel()
		var ends map[int32]int64
		if err == nil { // else the worker's own calls say what is wrong
			ends = make(map[int32]int64, len(listed[topic]))
			for p, o := range listed[topic] {
				ends[p] = o.Offset
			}
		}
		if ctx.Err() == nil {
			tell(ends)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
