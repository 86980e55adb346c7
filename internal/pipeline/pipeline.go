// Package pipeline owns how one worker is put together: settings, stores, client, handler, engine.
//
// It promises that a store that is away at start is waited for and said once, and that what only a person can mend ends the start
// with what to do. It never holds a rule of the protocol.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/clicks"
	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/internal/tracing"
	"github.com/exactly-pipeline/exactly/migrations"
	"github.com/exactly-pipeline/exactly/schema"
	"github.com/exactly-pipeline/exactly/txn"
)

// errPerson marks what waiting does not mend.
type errPerson struct{ error }

func (e errPerson) Unwrap() error { return e.error }

// wait tries f until it works, with back-off; what is away is said once.
func wait(ctx context.Context, log *zap.Logger, what string, f func(context.Context) error) error {
	said := false
	for attempt := 0; ; attempt++ {
		c, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := f(c)
		cancel()
		var person errPerson
		if err == nil || errors.As(err, &person) || ctx.Err() != nil {
			if err == nil && said {
				log.Info(what + " is there")
			}
			return err
		}
		if !said {
			log.Warn(what+" is away: waiting for it", zap.Error(err))
			said = true
		}
		d := min(100*time.Millisecond<<min(attempt, 6), 5*time.Second)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(d/2 + rand.N(d/2)):
		}
	}
}

// Observer is told what the engine does, and where the input's partitions end.
type Observer interface {
	engine.Observer
	LogEnds(ends map[int32]int64) // nil: nobody can say
}

// Run is `exactly run`: one worker, until ctx is done. It returns nil after an orderly stop.
func Run(ctx context.Context, c *config.Config, build string, obs Observer, log *zap.Logger) error {
	geo, err := clicks.OpenGeo(c.Geo.Database)
	if err != nil {
		return fmt.Errorf("geo.database: %w", err)
	}
	adm, err := admin.New(c, log)
	if err != nil {
		return err
	}
	defer adm.Close()
	reg, err := schema.NewRegistry(c.Registry.URL)
	if err != nil {
		return err
	}
	defer reg.Close()

	var src txn.Source
	shape := engine.Shape{Input: c.Topics.Input, DLQ: c.Topics.DLQ}
	var schemaID int
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"postgres", func(ctx context.Context) error { return findSource(ctx, c, &src) }},
		{"kafka", func(ctx context.Context) error { return meetKafka(ctx, c, adm, &src, &shape) }},
		{"schema registry", func(ctx context.Context) (err error) {
			schemaID, _, err = reg.Register(ctx, c.Topics.Output+"-value", schema.EnrichedClickAvsc)
			return err
		}},
	} {
		if err = wait(ctx, log, step.what, step.do); err != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // asked to stop while waiting
	}
	if err != nil {
		return err
	}
	handler := clicks.NewHandler(c.Topics.Output, schema.NewClickDecoder(reg), schema.NewEnrichedEncoder(schemaID), geo)

	var store *txn.Store
	err = wait(ctx, log, "postgres", func(ctx context.Context) (err error) {
		store, err = txn.OpenStore(context.WithoutCancel(ctx), txn.StoreConfig{
			DSN: c.Postgres.DSN, Group: c.Group, Worker: c.Worker.ID, Build: build, LockTimeout: c.Postgres.LockTimeout,
			IdleTimeout: c.Postgres.IdleTimeout, Connections: c.Postgres.Connections, Tables: handler.Tables(), Log: log,
		}, src)
		return err
	})
	if err != nil {
		return err
	}
	defer store.Close()
	go partitionsAhead(ctx, c.Postgres.DSN, log)
	go logEnds(ctx, adm, c.Topics.Input, obs)
	traces, err := tracing.Start(ctx, tracing.Config{
		Endpoint: c.Telemetry.OTLPEndpoint, Build: build, Worker: c.Worker.ID, Group: c.Group, Topic: c.Topics.Input,
	}, log)
	if err != nil {
		return err
	}
	defer traces.Close()

	client := newClient(c, adm.MaxMessageBytes(ctx), log)
	log.Info("worker starts", zap.String("worker", c.Worker.ID), zap.String("group", c.Group), zap.String("geo", geo.Build()), zap.String("build", build))
	return engine.Run(ctx, engine.Config{
		WorkerID: c.Worker.ID, SourceID: src.ID, Shape: shape, Handler: handler,
		MaxRecords: c.Batch.MaxRecords, MaxBytes: c.Batch.MaxBytes, MaxInFlight: c.Batch.MaxInFlight, DrainRecords: c.Batch.DrainRecords,
		BackoffMax: min(5*time.Second, c.Kafka.SessionTimeout/2), StopTimeout: c.StopTimeout, Leave: c.LeaveOnStop,
		Source: client.source,
		Store:  traces.Store(store), Group: adm, Observer: obs, Log: log,
		Publisher: traces.Publisher(&txn.Publisher{Topic: c.Topics.Input, Timeout: c.Kafka.TransactionTimeout, Log: log, New: client.producer}),
	})
}

func findSource(ctx context.Context, c *config.Config, src *txn.Source) error {
	err := migrations.Check(ctx, c.Postgres.DSN)
	var version *migrations.ErrVersion
	if errors.As(err, &version) {
		return errPerson{err}
	}
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, c.Postgres.DSN)
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

func meetKafka(ctx context.Context, c *config.Config, adm *admin.Admin, src *txn.Source, shape *engine.Shape) error {
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
	for _, t := range []string{c.Topics.Input, c.Topics.Output, c.Topics.DLQ} {
		if shape.Partitions[t] == 0 {
			return errPerson{fmt.Errorf("topic %s does not exist: run `exactly setup`", t)}
		}
	}
	return nil
}

// partitionsAhead makes the coming days' time partitions, so that captures never land in the default one.
func partitionsAhead(ctx context.Context, dsn string, log *zap.Logger) {
	t := time.NewTicker(time.Hour)
	defer t.Stop()
	for {
		if _, err := provision.TimePartitions(ctx, dsn); err != nil && ctx.Err() == nil {
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

func logEnds(ctx context.Context, adm *admin.Admin, topic string, obs Observer) {
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
			obs.LogEnds(ends)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
