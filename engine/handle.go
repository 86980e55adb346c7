package engine

import (
	"context"
	"time"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/guard"
)

// handle takes one report. It is the only place where partitions change.
func (w *Worker) handle(e any) {
	switch e := e.(type) {
	case evRebalance:
		w.rebalance(e)
	case evStep:
		w.step(e.partition, e.e)
	case evFailed:
		w.failed(e.partition, e.life, e.reason, e.err)
	case evSourceError:
		for id, s := range w.parts { // which it is, the claim's look finds out
			if id == e.partition || e.partition == SomePartition && s.m.State == Consuming {
				w.failed(id, s.m.Life, ReasonKafka, e.err)
			}
		}
		close(e.done)
	case evPrepared:
		w.prepared(e.p)
	case evCaptured:
		w.captured(e)
	case evPublished:
		w.published(e)
	case evGap:
		w.gap(e)
	case evCheck:
		w.pulse()
		w.check()
		w.checkUnowned()
		w.after(w.cfg.CheckEvery, evCheck{})
	case evChecked:
		if e.changed != "" {
			for _, id := range w.ids() {
				w.step(id, Event{Kind: EvBroken, Life: w.parts[id].m.Life, Why: e.changed})
			}
		}
	case evForce:
		if !w.closing {
			w.log.Warn("stop timeout: what is captured and not yet published is left to the next owner")
			w.close()
		}
	case evAll:
		for _, one := range e {
			w.handle(one)
		}
	case evFatal:
		w.err = e.err
	case func():
		e()
	}
}

// rebalance applies what the group has decided. The stamp is renewed here and nowhere else: it stands for what is owned now, and what
// is no longer owned leaves the queue before the callback returns.
func (w *Worker) rebalance(e evRebalance) {
	if e.membership != w.membership { // of one that has ended: all it had is lost already
		close(e.done)
		return
	}
	if w.stamp == nil || !guard.Off(guard.StampedAnew) {
		w.stamp = e.stamp
	}
	w.paused = 0
	w.obs.Rebalanced(e.kind, len(e.partitions))
	if e.kind != EvLost || len(e.partitions) > 0 { // a client that can't join loses nothing, at each try
		w.log.Info("rebalance: "+string(e.kind), zap.Int32s("partitions", e.partitions))
	}
	if e.kind == EvAssigned {
		w.rebalances++
		for _, id := range e.partitions {
			if w.parts[id] == nil {
				w.parts[id] = &slot{m: NewPartition(id)}
				w.parts[id].m.Life = w.lives[id]
				w.parts[id].m.producerUp = w.producerUp
			}
			w.step(id, Event{Kind: EvAssigned})
		}
		close(e.done)
		return
	}
	left := len(e.partitions)
	if left == 0 {
		close(e.done)
		return
	}
	release := func() {
		if left--; left == 0 {
			close(e.done)
		}
	}
	for _, id := range e.partitions {
		s := w.parts[id]
		if s == nil {
			release()
			continue
		}
		s.release = append(s.release, release)
		w.step(id, Event{Kind: e.kind})
	}
}

// step feeds one event to a partition's machine and does what it asks.
func (w *Worker) step(partition int32, e Event) {
	s := w.parts[partition]
	if s == nil {
		return
	}
	before, next, published := s.m.State, s.m.Next, s.m.Published
	if e.Life == 0 || e.Life == s.m.Life {
		w.obs.Event(partition, e.Kind)
	}
	actions := s.m.Step(e)
	working := s.m.State == Consuming || s.m.State == Draining // elsewhere the two may be of different lives
	if working && (s.m.State != before || s.m.Next != next || s.m.Published != published) {
		w.obs.Offsets(partition, s.m.Next, s.m.Published)
	}
	if e.Kind == EvClaimed && s.m.State == Looking {
		w.obs.Claimed(partition, &e.Claim)
	}
	if s.m.State != before {
		w.obs.State(partition, s.m.State)
		w.log.Debug("partition", zap.Int32("partition", partition), zap.String("event", string(e.Kind)),
			zap.String("from", string(before)), zap.String("to", string(s.m.State)), zap.Uint64("life", s.m.Life))
		if before == Consuming {
			s.buf, w.buffered, s.bytes, s.full = nil, w.buffered-s.bytes, 0, false
			w.poll.command(command{partition: partition})
		}
	}
	for _, a := range actions {
		w.do(s, a)
	}
}

// failed: transient trouble. It is said once per partition and text, and the partition goes back to claim after a back-off.
func (w *Worker) failed(partition int32, life uint64, reason string, err error) {
	s := w.parts[partition]
	if s == nil || s.m.Life != life {
		return
	}
	if text := err.Error(); text != s.said {
		s.said = text
		w.log.Warn("trying again", zap.Int32("partition", partition), zap.String("state", string(s.m.State)), zap.String("reason", reason), zap.Error(err))
	}
	w.obs.Failed(partition, reason)
	w.step(partition, Event{Kind: EvFailed, Life: life})
}

// dropMemory sends every partition back to claim: what Postgres holds decides, not what we remember.
func (w *Worker) dropMemory(trace string, err error) {
	w.log.Warn("Postgres: the outcome of a capture is unknown, or the connection was lost: everything in memory is dropped and every partition claimed again", traceID(trace), zap.Error(err))
	for _, id := range w.ids() {
		switch s := w.parts[id]; s.m.State {
		case Stopped, Held, Waiting, NoProducer: // the next claim is still to come
		default: // a claim under way as well: its answer may be the former database's
			w.obs.Failed(id, ReasonPostgres)
			w.step(id, Event{Kind: EvFailed, Life: s.m.Life})
		}
	}
}

// check looks whether topics were recreated underneath us.
func (w *Worker) check() {
	if w.stopping || len(w.parts) == 0 {
		return
	}
	w.beside.Go(func() {
		ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
		defer cancel()
		changed, err := w.topicsChanged(ctx)
		if err == nil { // away: the next look will tell
			w.send(evChecked{changed})
		}
	})
}

func (w *Worker) topicsChanged(ctx context.Context) (string, error) {
	want, err := w.cfg.Store.TopicIDs(ctx)
	if err != nil {
		return "", err
	}
	have, err := w.cfg.Group.TopicIDs(ctx)
	if err != nil {
		return "", err
	}
	for topic, id := range want {
		if have[topic] != id && !guard.Off(guard.Recreated) {
			now := have[topic]
			if now == "" {
				now = "gone"
			}
			heal := ""
			if topic != w.cfg.Shape.Input {
				heal = "to publish again what it had: exactly heal kafka --reason …; "
			}
			return "topic " + topic + " is not the one this source was set up with (topic id " + id + ", now " + now +
				"): it was deleted or recreated, and its records with it; " + heal + "to go on with the new one: exactly setup --accept-recreated REASON", nil
		}
	}
	return "", nil
}
