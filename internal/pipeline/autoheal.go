package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/heal"
	pause "github.com/exactly-pipeline/exactly/internal/wait"
	"github.com/exactly-pipeline/exactly/txn"
)

// healAgain is how long a heal that failed is left alone: somebody has to look at it.
const healAgain = time.Minute

// healer is what heals by itself (auto_heal), when a partition is stopped or held: it looks why, and does what a person would by the command that
// the worker names. The engine finds out by itself that it can go on.
type healer struct {
	c     *config.Config
	rb    engine.Rebuilder
	build string
	log   *zap.Logger
	kick  chan struct{}
}

func newHealer(c *config.Config, rb engine.Rebuilder, build string, log *zap.Logger) *healer {
	return &healer{c: c, rb: rb, build: build, log: log, kick: make(chan struct{}, 1)}
}

// watched is an observer that tells the healer of partitions that stand still.
type watched struct {
	Observer
	kick chan struct{}
}

func (w watched) State(partition int32, s engine.State) {
	w.Observer.State(partition, s)
	if s == engine.Stopped || s == engine.Held {
		select {
		case w.kick <- struct{}{}:
		default:
		}
	}
}

// run heals until ctx is done.
func (h *healer) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.kick:
		}
		if err := h.once(ctx); err != nil && ctx.Err() == nil {
			h.log.Error("auto_heal: could not heal, trying again in "+healAgain.String(), zap.Error(err))
			if pause.For(ctx, healAgain) != nil {
				return
			}
		}
	}
}

func (h *healer) once(ctx context.Context) error {
	need, err := heal.Needed(ctx, h.c, h.log)
	if err != nil {
		return err
	}
	if need.Kafka {
		if err := h.kafka(ctx); err != nil {
			return err
		}
	}
	if need.Postgres {
		return h.did(heal.Postgres(ctx, h.c, h.rb, h.options(), h.log))
	}
	return nil
}

func (h *healer) kafka(ctx context.Context) error {
	return h.did(heal.Kafka(ctx, h.c, h.options(), h.log))
}

func (h *healer) options() heal.Options {
	return heal.Options{Reason: "auto_heal", By: "worker " + h.c.Worker.ID, Build: h.build}
}

func (h *healer) did(done []heal.Done, err error) error {
	for _, d := range done {
		at := []zap.Field{zap.Int32("partition", d.Partition)}
		if d.Topic != "" {
			at = append(at, zap.String("topic", d.Topic))
		}
		h.log.Warn("auto_heal: "+d.Says, at...)
	}
	var busy *heal.BusyError
	if errors.As(err, &busy) { // another worker's, or a person's
		return nil
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == "42501" { // insufficient_privilege
		return fmt.Errorf("%w: this database user may not hold partitions: auto_heal takes a member of exactly_setup", err)
	}
	return err
}

// atStart heals output topics that a worker finds recreated when it starts. false: it was something else.
func (h *healer) atStart(ctx context.Context, err error) (bool, error) {
	var changed *txn.ErrSourceChanged
	if !h.c.AutoHeal || !errors.As(err, &changed) || !changed.Output {
		return false, err
	}
	h.log.Warn("auto_heal: output topics were deleted or recreated", zap.Error(err))
	return true, h.kafka(ctx)
}
