package heal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/replay"
	"github.com/exactly-pipeline/exactly/txn"
)

// postgresReplays rebuilds what Postgres lacks of the replays of dead letters, once the input itself is healed: the requests from their pointers, and
// what was captured as of any source. It does nothing where there was never a replay.
func postgresReplays(ctx context.Context, c *config.Config, rb engine.Rebuilder, o Options, log *zap.Logger) ([]Done, error) {
	what := func(err error) error { return fmt.Errorf("heal postgres, replays of dead letters: %w", err) }
	own := c.Replay()
	if own.Topics.Input == "" {
		return nil, nil
	}
	db, err := pgxpool.New(ctx, c.Postgres.DSN)
	if err != nil {
		return nil, what(err)
	}
	defer db.Close()
	adm, err := admin.New(&own, log)
	if err != nil {
		return nil, what(err)
	}
	defer adm.Close()
	pointers, err := readPointers(ctx, &own, adm, log)
	if err != nil {
		return nil, what(err)
	}
	if len(pointers) == 0 { // never a replay, or their topic has been emptied: nothing can be rebuilt, but what was erased is blanked
		if o.DryRun {
			return nil, nil
		}
		h := healer{cfg: own, o: o, log: log, apart: true}
		if err := h.eraseAgain(ctx, time.Minute); err != nil && !errors.Is(err, txn.ErrNoSource) {
			return nil, what(err)
		}
		return nil, nil
	}
	src, err := txn.FindSource(ctx, db, c.Topics.Input, c.Group)
	if err != nil {
		return nil, what(err)
	}
	_, err = txn.FindSource(ctx, db, own.Topics.Input, own.Group)
	if errors.Is(err, txn.ErrNoSource) {
		if o.DryRun {
			return []Done{{Topic: own.Topics.Input, Partition: -1, DryRun: true, Says: fmt.Sprintf("dry run: Postgres knows of no replay, %d would be rebuilt", len(pointers))}}, nil
		}
		err = replay.EnsureSource(ctx, db, &own, adm)
	}
	if err != nil {
		return nil, what(err)
	}
	requests := func() error {
		if o.DryRun {
			return nil
		}
		n, err := replay.Rerequest(ctx, db, c, &src, pointers, replay.Options{By: o.By, Reason: o.Reason + " (heal: found in " + own.Topics.Input + ")", Build: o.Build, Log: log})
		if n > 0 {
			log.Info("requests of replays rebuilt", zap.Int("requests", n))
		}
		return err
	}
	// Before a worker finds a pointer that nobody has asked for; and again, since a second attempt's letter is what the first one captured.
	if err := requests(); err != nil {
		return nil, what(err)
	}
	done, err := healPostgres(ctx, &own, replay.NewRebuilder(rb, c.Topics.Input, src.ID), o, log)
	for i := range done {
		done[i].Topic = own.Topics.Input
	}
	return done, errors.Join(err, requests())
}

// kafkaReplays publishes again what the output topics lack of the replays of dead letters, once the input itself is healed.
func kafkaReplays(ctx context.Context, c *config.Config, o Options, log *zap.Logger) ([]Done, error) {
	own := c.Replay()
	if own.Topics.Input == "" {
		return nil, nil
	}
	done, err := healKafka(ctx, &own, o, log)
	if errors.Is(err, txn.ErrNoSource) {
		return nil, nil
	}
	for i := range done {
		done[i].Topic = own.Topics.Input
	}
	return done, err
}

// readPointers are all pointers that are there, in the order of each partition.
func readPointers(ctx context.Context, own *config.Config, adm *admin.Admin, log *zap.Logger) ([]replay.Pointer, error) {
	there, err := adm.Partitions(ctx)
	if err != nil || there[own.Topics.Input] == 0 {
		return nil, err
	}
	starts, ends, err := adm.LogRange(ctx, own.Topics.Input)
	if err != nil {
		return nil, err
	}
	all := spans{}
	ends.Each(func(e kadm.ListedOffset) {
		s, _ := starts.Lookup(e.Topic, e.Partition)
		all.add(e.Topic, e.Partition, s.Offset, e.Offset)
	})
	var out []replay.Pointer
	h := &healer{cfg: *own, log: log}
	err = h.read(ctx, all, func(r *kgo.Record) error {
		if p, ok := replay.ParsePointer(r.Value); ok {
			out = append(out, p)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", own.Topics.Input, err)
	}
	return out, nil
}
