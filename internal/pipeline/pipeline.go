// Package pipeline owns how one worker is put together: settings, stores, client, handler, engine.
//
// It promises that a store that is away at start is waited for and said once, and that what only a person can mend ends the start
// with what to do. It never holds a rule of the protocol.
package pipeline

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/clicks"
	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/internal/start"
	"github.com/exactly-pipeline/exactly/internal/tracing"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/schema"
	"github.com/exactly-pipeline/exactly/txn"
)

// registryPatience is how long a record of a schema not known yet holds up the other partitions' records; its own partition waits on.
const registryPatience = 100 * time.Millisecond

// blip is how long after a transient failure a record is tried once more before its partition waits.
const blip = 10 * time.Millisecond

// struck is where a test may end the process over a certain record.
func struck(ctx context.Context, r *engine.Record, out *engine.Out, next engine.Handler) error {
	failpoint.HitKey(failpoint.HandleRecord, r.Key)
	return next.Handle(ctx, r, out)
}

// Observer is told what the engine does, and where the input's partitions end.
type Observer interface {
	engine.Observer
	LogEnds(ends map[int32]int64) // nil: nobody can say
	Handled(took time.Duration, err error)
	Starting(what string)    // the start waits for it
	Postgres(trouble string) // what a look at the database found; "": all is well with it
	Registry(next http.RoundTripper) http.RoundTripper
	Geo(built time.Time, lookups func() (found, none int64))
}

// Run is `exactly run`: one worker, until ctx is done. It returns nil after an orderly stop.
func Run(ctx context.Context, c *config.Config, build string, obs Observer, log *zap.Logger) error {
	geo, err := clicks.OpenGeo(c.Geo.Database)
	if err != nil {
		return fmt.Errorf("geo.database: %w", err)
	}
	ip, err := keepIP(c)
	if err != nil {
		return err
	}
	signer, err := ledger.LoadSigner(c.Ledger.SigningKeyFile)
	if err != nil {
		return fmt.Errorf("ledger.signing_key_file: %w", err)
	}
	adm, err := admin.New(c, log)
	if err != nil {
		return err
	}
	defer adm.Close()
	obs.Geo(geo.Built(), geo.Lookups)
	reg, err := provision.Registry(c, obs.Registry)
	if err != nil {
		return err
	}
	defer reg.Close()

	var src txn.Source
	shape := engine.Shape{Input: c.Topics.Input, DLQ: c.Topics.DLQ}
	var schemaID int
	heals := newHealer(c, Rebuilder(c, reg), build, log)
	type step struct {
		what string
		do   func(context.Context) error
	}
	steps := []step{
		{"postgres", func(ctx context.Context) error { return start.FindSource(ctx, c, &src) }},
		{"kafka", func(ctx context.Context) error { return start.MeetKafka(ctx, c, adm, &src, &shape) }},
		{"schema registry", func(ctx context.Context) (err error) {
			schemaID, _, err = reg.Register(ctx, c.Topics.Output+"-value", schema.EnrichedClickAvsc)
			return err
		}},
	}
	for i := 0; i < len(steps); i++ {
		obs.Starting(steps[i].what)
		if err = start.Wait(ctx, c, log, steps[i].what, steps[i].do); err == nil {
			continue
		}
		var healed bool
		if healed, err = heals.atStart(ctx, err); !healed || err != nil {
			break
		}
		i = -1 // from the beginning: the source's topics are others now
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // asked to stop while waiting
	}
	if err != nil {
		return err
	}
	limits := schema.Limits(c.Validation)
	newHandler := func() engine.Handler {
		decoder := schema.NewClickDecoder(reg)
		decoder.Patience(registryPatience)
		decoder.Format(c.Value.Format)
		h := clicks.NewHandler(c.Topics.Output, decoder, schema.NewEnrichedEncoder(schemaID), geo)
		h.KeepIP(ip)
		h.Limit(limits)
		h.Count(counts(c))
		return engine.Use(h, engine.Measured(obs.Handled), engine.Validated(clicks.Bounded(limits)), engine.Retried(2, blip), engine.Around(struck))
	}
	handler := newHandler()

	traces, err := tracing.Start(ctx, tracing.Config{
		Endpoint: c.Telemetry.OTLPEndpoint, Build: build, Worker: c.Worker.ID, Group: c.Group, Topic: c.Topics.Input, Output: c.Topics.Output,
	}, log)
	if err != nil {
		return err
	}
	defer traces.Close()

	var store *txn.Store
	err = start.Wait(ctx, c, log, "postgres", func(ctx context.Context) (err error) {
		sc := start.StoreConfig(c, build, log)
		sc.Tables, sc.Counts, sc.Tracer = handler.Tables(), counts(c), traces.Postgres()
		store, err = txn.OpenStore(context.WithoutCancel(ctx), sc, src)
		return err
	})
	if err != nil {
		return err
	}
	defer store.Close()
	obs.Starting("its place in the group")
	go start.ProbePostgres(ctx, store, obs.Postgres)
	go start.PartitionsAhead(ctx, c, log)
	go prune(ctx, c, build, log)
	go start.LogEnds(ctx, adm, c.Topics.Input, obs.LogEnds)
	if c.AutoHeal {
		obs = watched{obs, heals.kick}
		go heals.run(ctx)
	}
	turns := &engine.Turns{}
	second := replays{c.Replay(), newHandler, build, signer, obs, turns, log}
	var beside sync.WaitGroup
	replaying, stop := context.WithCancel(ctx)
	beside.Go(func() { second.run(replaying) })
	defer func() { stop(); beside.Wait() }()
	client := start.NewClient(c, shape.MaxMessage, log)
	log.Info("worker starts", zap.String("group", c.Group), zap.String("geo", geo.Build()), zap.String("build", build))
	ec := start.EngineConfig(c, adm, client, signer, log.With(zap.String("topic", c.Topics.Input)))
	ec.SourceID, ec.Shape, ec.Handler, ec.Turns, ec.Observer = src.ID, shape, handler, turns, obs
	ec.Store, ec.Publisher = traces.Store(store), traces.Publisher(ec.Publisher)
	return engine.Run(ctx, ec)
}

func keepIP(c *config.Config) (*clicks.IP, error) {
	key, err := c.Privacy.IPKey()
	if err != nil {
		return nil, err
	}
	return clicks.NewIP(c.Privacy.IP, key)
}
