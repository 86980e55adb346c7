package heal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/offsets"
	"github.com/exactly-pipeline/exactly/internal/retention"
	"github.com/exactly-pipeline/exactly/internal/wait"
	"github.com/exactly-pipeline/exactly/ledger"
)

// finishTimeout bounds what is still done, with partitions held, when the heal was told to stop.
const finishTimeout = time.Minute

// finish does what belongs to a heal and is not in the transactions that rebuilt: heads in Kafka that the chains have no more are replaced, and what was
// erased since the backup is blanked again, for it is back with the backup. It is done while everything is held, so that a heal that is killed
// before its end leaves a hold, which the next one finds and finishes; and it is done whatever was refused. erased is false: the erasure is still to be
// made, once the partitions are let go.
func (h *postgres) finish(ctx context.Context, done []Done, failed error) (erased bool) {
	var ids []int32
	held := false
	for _, p := range h.sorted() {
		if held = held || p.held != nil; p.held != nil || p.asked && failed == nil {
			ids = append(ids, p.id)
		}
	}
	var refused *offsets.RefusedError
	if !held && failed != nil && !errors.As(failed, &refused) {
		return true // nothing was done, nor looked at
	}
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
		defer cancel()
	}
	h.publishHeads(ctx, ids, done, true)
	h.apart = failed == nil && h.o.Partitions == nil
	if h.erased != nil {
		if err := h.erased.Vacuum(ctx, h.desk.DB()); err != nil {
			h.log.Warn("vacuum after a heal", zap.Error(err))
		}
	}
	// At once, or not yet: while it is held no worker publishes what Kafka may be owed, nor restores a group offset that is gone.
	if err := h.eraseAgain(ctx, 0); err != nil {
		h.log.Info("erase again: not yet", zap.Error(err))
		return false
	}
	failpoint.Hit(failpoint.HealFinished)
	return true
}

// erasure is what the entries of what is blanked again say.
func (h *healer) erasure() retention.Erase {
	return retention.Erase{Again: true, Reason: "heal postgres: " + h.o.Reason, By: cmp.Or(h.o.By, ledger.Whoami()), Build: h.o.Build, Log: h.log}
}

// eraseAgain blanks what was erased since the backup, and waits so long for whatever it has to wait for.
func (h *healer) eraseAgain(ctx context.Context, patience time.Duration) error {
	o := h.erasure()
	o.Wait = patience
	until := time.Now().Add(patience)
	again := retention.EraseAgain
	if h.apart { // an entry made before the replays' own heal would stand where one of their deeds was lost, and hide that it was
		again = retention.EraseSourceAgain
	}
	r, err := again(ctx, &h.cfg, o)
	for errors.Is(err, retention.ErrRunning) && time.Now().Before(until) {
		if err := wait.For(ctx, time.Second); err != nil {
			return err
		}
		r, err = again(ctx, &h.cfg, o)
	}
	if err != nil {
		return fmt.Errorf("what was erased before may be there again (run this again, or exactly erase --again): %w", err)
	}
	for i := range r.Partitions {
		h.log.Info("erased again", zap.String("what", r.Partitions[i].String()))
	}
	return nil
}

// eraseRebuilt blanks what of a window was erased before, in the transaction that writes it: nobody ever reads it there again.
func (h *postgres) eraseRebuilt(ctx context.Context, tx pgx.Tx, p *part, w *window) error {
	n, err := h.erased.Again(ctx, tx, p.id, w.from, w.to, h.erasure())
	if n > 0 {
		h.log.Info("erased again what was rebuilt", zap.Int32("partition", p.id), zap.Int64("records", n))
	}
	return err
}

// readErasures reads once what was erased.
func (h *postgres) readErasures(ctx context.Context) error {
	if h.erased != nil {
		return nil
	}
	src := h.desk.Source()
	var err error
	if h.erased, err = retention.ReadErasures(ctx, &h.cfg, h.desk.DB(), &src); err != nil {
		return err
	}
	for _, note := range h.erased.Notes {
		h.log.Warn(note)
	}
	return nil
}
