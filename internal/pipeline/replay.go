package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/replay"
	"github.com/exactly-pipeline/exactly/internal/start"
	pause "github.com/exactly-pipeline/exactly/internal/wait"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/txn"
)

// replayLookEvery is how often a worker looks whether there has been a replay: until then the second source does not exist, and costs nothing.
const replayLookEvery = 2 * time.Second

// replays runs the source of pointers to dead letters beside the input: the same engine, the same guards, under a group of its own. Its trouble is
// never the input's.
type replays struct {
	c       config.Config // pointed at the replay topic
	handler func() engine.Handler
	build   string
	signer  *ledger.Signer
	obs     engine.Observer
	turns   *engine.Turns
	log     *zap.Logger
}

// counted passes on what a replay captures and publishes. Its partitions are no partitions of the input.
type counted struct{ engine.Observer }

func (counted) State(int32, engine.State)     {}
func (counted) Event(int32, engine.EventKind) {}
func (counted) Offsets(int32, int64, int64)   {}
func (counted) Failed(int32, string)          {}
func (counted) Queued(int)                    {}

func (counted) Rebalanced(engine.EventKind, int)    {}
func (counted) Claimed(int32, *engine.Claim)        {}
func (counted) Pulse(int32, *engine.PartitionPulse) {}
func (counted) Polled(time.Duration)                {}

// run runs it from the first replay on, until ctx is done.
func (r *replays) run(ctx context.Context) {
	if r.c.Topics.Input == "" {
		return
	}
	said := ""
	for ctx.Err() == nil {
		err := r.once(ctx)
		d := replayLookEvery
		if err != nil && !errors.Is(err, txn.ErrNoSource) && ctx.Err() == nil {
			if text := err.Error(); text != said {
				said = text
				r.log.Error("replays of dead letters stand still, trying on", zap.Error(err))
			}
			d = 5 * time.Second
		}
		_ = pause.For(ctx, d)
	}
}

func (r *replays) once(ctx context.Context) error {
	dsn, err := r.c.Postgres.CurrentDSN()
	if err != nil {
		return err
	}
	db, err := pgxpool.New(ctx, dsn)
	if err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	defer db.Close()
	var src txn.Source
	for {
		if src, err = txn.FindSource(ctx, db, r.c.Topics.Input, r.c.Group); err == nil {
			break
		} else if !errors.Is(err, txn.ErrNoSource) {
			return err
		}
		if err := pause.For(ctx, replayLookEvery); err != nil {
			return nil //nolint:nilerr // asked to stop
		}
	}
	src.Start = r.c.Start
	adm, err := admin.New(&r.c, r.log)
	if err != nil {
		return err
	}
	defer adm.Close()
	shape := engine.Shape{Input: r.c.Topics.Input, DLQ: r.c.Topics.DLQ}
	if err := start.MeetKafka(ctx, &r.c, adm, &src, &shape); err != nil {
		return err
	}
	handler := replay.NewHandler(r.handler(), db)
	sc := start.StoreConfig(&r.c, r.build, r.log)
	sc.Connections, sc.Tables, sc.Counts = 1, handler.Tables(), counts(&r.c)
	store, err := txn.OpenStore(context.WithoutCancel(ctx), sc, src)
	if err != nil {
		return err
	}
	defer store.Close()
	client := start.NewClient(&r.c, shape.MaxMessage, r.log)
	r.log.Info("replays of dead letters: working on "+r.c.Topics.Input, zap.String("group", r.c.Group))
	ec := start.EngineConfig(&r.c, adm, client, r.signer, r.log.With(zap.String("topic", r.c.Topics.Input)))
	ec.SourceID, ec.Shape, ec.Handler, ec.Store, ec.Turns, ec.Observer = src.ID, shape, handler, store, r.turns, counted{r.obs}
	ec.MaxRecords, ec.DeadShare = min(ec.MaxRecords, 1000), engine.DeadShare{} // what fails again, somebody wanted to be tried
	return engine.Run(ctx, ec)
}
