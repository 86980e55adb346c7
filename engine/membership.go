package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/guard"
)

const (
	membershipsInARow = 5           // that may end for good, each soon after it began, before the worker does
	steadyAfter       = time.Minute // a membership that lasted this long is none of them
)

// join begins a membership: it joins the group, and polls.
func (w *Worker) join() error {
	w.membership++
	n := w.membership
	src, err := w.cfg.Source(&listener{w, n})
	if err != nil {
		return fmt.Errorf("join the group: %w", err)
	}
	p := newPoller(src, w)
	w.poll, w.joined, w.rebalances, w.unowned = p, true, 0, 0
	go func() { w.pollEnded <- p.run() }()
	w.after(steadyAfter, func() {
		if w.membership == n {
			w.memberships = 0
		}
	})
	return nil
}

// close has the membership end, and with it the worker.
func (w *Worker) close() {
	w.closing = true
	if w.joined {
		w.poll.close()
	}
}

// membershipEnded: the client says that its membership is over for good, as it does when another one joined under the same instance id. That
// need not be another process: a client that asks its coordinator twice, because the first answer was lost with the broker that
// should have given it, is taken for its own successor (FENCED_INSTANCE_ID). What we own is lost; unless another process really is
// registered under our worker id, we join again.
func (w *Worker) membershipEnded(err error) {
	w.joined = false
	old := w.poll.src
	w.beside.Go(func() {
		if err := old.Close(); err != nil {
			w.log.Warn("close the consumer whose membership has ended", zap.Error(err))
		}
	})
	if w.closing {
		return
	}
	w.membership++ // whatever the old one still tells is for nobody
	w.rebalance(evRebalance{w.membership, EvLost, w.ids(), nil, make(chan struct{})})
	if w.memberships++; w.memberships > membershipsInARow {
		w.err = err
		return
	}
	w.log.Warn("the group ended our membership: joining again", zap.Error(err))
	w.rejoin(w.memberships)
}

// rejoin tries until we are a member again. Ended by whom? If another process is registered under our worker id, we stop: two workers
// never fence each other in turns. So there is no joining as long as Postgres can't tell.
func (w *Worker) rejoin(attempt int) {
	w.after(w.backoff(attempt), func() {
		w.beside.Go(func() {
			ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
			defer cancel()
			current, err := w.cfg.Store.Incarnation(ctx)
			if err == nil && !current {
				w.send(evFatal{ErrReplaced})
				return
			}
			w.send(func() {
				if w.closing {
					return
				}
				if err == nil {
					err = w.join()
				}
				if err != nil {
					if attempt == 1 {
						w.log.Warn("not a member again yet, trying on", zap.Error(err))
					}
					w.rejoin(attempt + 1)
				}
			})
		})
	})
}

// isFatal says whether an error of the source ends the membership.
func isFatal(err error) bool {
	var fatal *FatalError
	return errors.As(err, &fatal)
}

// checkUnowned looks for partitions that nobody has, as long as the rebalance in which we joined is the last there was. A process that dies
// between giving a partition up and joining again, and comes back under its worker id within the session timeout, is given what
// it had left, without a rebalance (KIP-345): what it gave up is nobody's until there is one. Nobody but us knows that we came back,
// so it is ours to see to it: found twice, since a former owner may only be slow to join again, we leave, and the client joins anew.
func (w *Worker) checkUnowned() {
	if !w.joined || w.stopping || w.rebalances != 1 || w.unowned < 0 || guard.Off(guard.Unowned) {
		return
	}
	membership := w.membership
	w.beside.Go(func() {
		ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
		defer cancel()
		parts, rests, err := w.cfg.Group.Unowned(ctx)
		if err == nil && rests { // else the next look tells
			w.send(func() {
				if w.membership == membership && w.rebalances == 1 && !w.stopping {
					w.unownedFound(parts)
				}
			})
		}
	})
}

func (w *Worker) unownedFound(parts []int32) {
	if len(parts) == 0 {
		w.unowned = -1 // nor will there be, without another rebalance
		return
	}
	if w.unowned++; w.unowned < 2 {
		return
	}
	w.log.Warn("nobody has these partitions: leaving the group, to join it anew, so that it shares them out", zap.Int32s("partitions", parts))
	w.unowned = 0
	w.beside.Go(func() {
		ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
		defer cancel()
		if err := w.cfg.Group.Leave(ctx); err != nil {
			w.log.Warn("could not leave the group, trying on", zap.Error(err))
		}
	})
}
