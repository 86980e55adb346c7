// Package worker owns how an application gets workers of its own: from a handler, and the settings that exactly itself has, to a member of a consumer
// group whose records land in Postgres and in Kafka exactly once.
//
// It promises that an application's workers are started, refused, waited for and measured as those of `exactly run` are. It never knows what a handler
// makes of a record.
package worker

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/internal/start"
	"github.com/exactly-pipeline/exactly/internal/telemetry"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/txn"
)

// Names are what an application's consumer group and topics are called where the environment says nothing else. Each application has its own.
type Names struct{ Group, Input, Output, DLQ string }

// Worker is one process of an application.
type Worker struct {
	c     config.Config
	build string
	log   *zap.Logger
}

// Open reads the settings, which are exactly's own (EXACTLY_KAFKA_BROKERS, EXACTLY_POSTGRES_DSN, …; see configs/exactly.yaml), from environ, whose
// elements are NAME=VALUE. It connects to nothing. build is the application's version, noted with what it captures. The error names each setting that is
// wrong.
func Open(n Names, build string, environ []string) (*Worker, error) {
	defaults := []string{
		config.EnvName("group") + "=" + n.Group, config.EnvName("topics.input") + "=" + n.Input,
		config.EnvName("topics.output") + "=" + n.Output, config.EnvName("topics.dlq") + "=" + n.DLQ,
	}
	c, err := config.Load("", append(defaults, environ...), nil)
	if err != nil {
		return nil, err
	}
	c.Topics.Replay = "" // replays are of clicks
	log, err := telemetry.NewLogger(c.Log)
	if err != nil {
		return nil, err
	}
	return &Worker{c: c, build: build, log: log.With(zap.String("worker", c.Worker.ID), zap.String("topic", c.Topics.Input))}, nil
}

// Output is the topic that events go to.
func (w *Worker) Output() string { return w.c.Topics.Output }

// DSN is the database's address, with its password: not to be shown.
func (w *Worker) DSN() (string, error) { return w.c.Postgres.CurrentDSN() }

// Setup makes the engine's own tables, the topics and the source's row where they are missing, and returns what it did, a line each. It is safe to
// repeat. The handler's tables are the application's to make.
func (w *Worker) Setup(ctx context.Context) ([]string, error) {
	did, err := provision.Setup(ctx, &w.c, provision.Options{NoSchemas: true, Log: w.log})
	return did, start.Explain(ctx, &w.c, err)
}

// Run works until ctx is done, and then finishes what is captured and returns nil. Postgres or Kafka that are away are waited for, at any time. An error
// is for a person: Setup was not run, a topic is not the one it was, another process runs under the same worker id (engine.ErrReplaced).
func (w *Worker) Run(ctx context.Context, h engine.Handler) error {
	c := &w.c
	m := telemetry.NewMetrics(telemetry.Identity{Build: w.build, Worker: c.Worker.ID, Topic: c.Topics.Input, Group: c.Group, StuckAfter: c.Health.StuckAfter})
	if c.HTTP.Addr != "" {
		if err := m.Serve(ctx, c.HTTP.Addr); err != nil {
			return err
		}
	}
	signer, err := ledger.LoadSigner(c.Ledger.SigningKeyFile)
	if err != nil {
		return fmt.Errorf("ledger.signing_key_file: %w", err)
	}
	adm, err := admin.New(c, w.log)
	if err != nil {
		return err
	}
	defer adm.Close()
	counts := engine.CountsOf(h)
	h = engine.Use(h, engine.Measured(m.Handled))
	src, shape, store, err := w.meet(ctx, adm, h, counts, m)
	if store != nil {
		defer store.Close()
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil // asked to stop while waiting
		}
		return err
	}
	m.Starting("its place in the group")
	go start.ProbePostgres(ctx, store, m.Postgres)
	go start.PartitionsAhead(ctx, c, w.log)
	go start.LogEnds(ctx, adm, c.Topics.Input, m.LogEnds)
	client := start.NewClient(c, shape.MaxMessage, w.log)
	w.log.Info("worker starts", zap.String("group", c.Group), zap.String("build", w.build))
	ec := start.EngineConfig(c, adm, client, signer, w.log)
	ec.SourceID, ec.Shape, ec.Handler, ec.Store, ec.Observer = src.ID, shape, h, store, m
	return engine.Run(ctx, ec)
}

// meet waits for Postgres and Kafka, and compares them with what Setup found.
func (w *Worker) meet(ctx context.Context, adm *admin.Admin, h engine.Handler, counts *engine.Counts, m *telemetry.Metrics) (src txn.Source, shape engine.Shape, store *txn.Store, err error) {
	c := &w.c
	shape = engine.Shape{Input: c.Topics.Input, DLQ: c.Topics.DLQ}
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"postgres", func(ctx context.Context) error { return start.FindSource(ctx, c, &src) }},
		{"kafka", func(ctx context.Context) error { return start.MeetKafka(ctx, c, adm, &src, &shape) }},
		{"postgres", func(ctx context.Context) (err error) {
			sc := start.StoreConfig(c, w.build, w.log)
			sc.Tables, sc.Counts = h.Tables(), counts
			store, err = txn.OpenStore(context.WithoutCancel(ctx), sc, src)
			return err
		}},
	} {
		m.Starting(step.what)
		if err = errors.Join(start.Wait(ctx, c, w.log, step.what, step.do), ctx.Err()); err != nil {
			return src, shape, store, err
		}
	}
	return src, shape, store, nil
}
