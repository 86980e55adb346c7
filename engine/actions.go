package engine

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/guard"
)

// callTimeout bounds every call to a store that is not a capture or a publish.
const callTimeout = 15 * time.Second

// do carries out one action of a partition's machine.
func (w *Worker) do(s *slot, a Action) {
	id := s.m.ID
	switch a.Kind {
	case DoClaim:
		w.async(id, a.Life, w.claim)
	case DoLook:
		w.looks.add(w, id, ask{life: a.Life, leaderEpoch: s.m.LeaderEpoch})
	case DoStart:
		w.async(id, a.Life, func(ctx context.Context, id int32) (Event, error) {
			return Event{Kind: EvStarted}, w.cfg.Store.Start(ctx, id, w.cfg.Group.StartOffsets)
		})
	case DoFence:
		w.fences.add(w, id, ask{life: a.Life, before: slices.Clone(s.m.Predecessors)})
	case DoScan:
		w.fences.add(w, id, ask{life: a.Life, before: slices.Clone(s.m.Predecessors), scan: true})
	case DoDrain:
		w.drain(s, a)
	case DoDrained:
		epoch := s.m.Epoch
		w.async(id, a.Life, func(ctx context.Context, id int32) (Event, error) {
			if err := w.cfg.Store.Drained(ctx, id, epoch); err != nil {
				w.log.Warn("could not note that the gap is drained: the next owner may fence a predecessor for nothing", zap.Int32("partition", id), zap.Error(err))
			}
			return Event{}, nil
		})
	case DoConsume:
		s.sought, s.fresh, s.buf, s.bytes, s.next, s.failing = 0, true, nil, 0, a.From, nil
		s.begun, s.free = false, false
		s.forget(a.From)
		w.poll.command(command{partition: id, kind: cmdSeek, offset: a.From, life: a.Life})
		w.log.Info("consuming", zap.Int32("partition", id), zap.Int64("offset", a.From), zap.Int64("epoch", s.m.Epoch))
		w.careSaid(s)
	case DoPublish:
		if !guard.Off(guard.CaptureFirst) {
			w.enqueue(s.captured)
		}
	case DoWithdraw:
		w.leave(s)
		w.withdraw(s, a)
	case DoRelease:
		w.lives[id] = s.m.Life // a life is never lived twice: what is still under way may come back when the partition is ours again
		delete(w.parts, id)
		w.obs.State(id, Unassigned)
		for _, f := range s.release {
			f()
		}
	case DoRetry:
		d := w.backoff(a.Attempt)
		if a.Why == "held" {
			d = w.cfg.CheckEvery
			if s.said != s.m.Reason {
				s.said = s.m.Reason
				w.log.Warn("partition is held", zap.Int32("partition", id), zap.String("why", s.m.Reason))
			}
		}
		w.after(d, evStep{id, Event{Kind: EvRetry, Life: a.Life}})
	case DoStop:
		if a.Why != "" && s.said != a.Why {
			s.said = a.Why
			w.log.Error("partition stopped: "+a.Why, zap.Int32("partition", id))
		}
		w.after(w.cfg.CheckEvery, evStep{id, Event{Kind: EvRetry, Life: a.Life}})
	}
}

// async runs f beside and reports its event, or its failure, under the life it began in.
func (w *Worker) async(id int32, life uint64, f func(context.Context, int32) (Event, error)) {
	w.beside.Go(func() {
		ctx, cancel := context.WithTimeout(w.ctx, callTimeout)
		defer cancel()
		e, err := f(ctx, id)
		if err != nil {
			w.send(evFailed{id, life, ReasonPostgres, err})
			return
		}
		if e.Kind != "" {
			e.Life = life
			w.send(evStep{id, e})
		}
	})
}

func (w *Worker) claim(ctx context.Context, id int32) (Event, error) {
	failpoint.Hit(failpoint.ClaimBefore)
	c, err := w.cfg.Store.Claim(ctx, id)
	var held *HeldError
	switch {
	case errors.As(err, &held):
		return Event{Kind: EvHeld, Why: held.Error()}, nil
	case errors.Is(err, ErrNoRow):
		return Event{Kind: EvUnclaimed, Claim: Claim{LeaderEpoch: -1}}, nil
	}
	return Event{Kind: EvClaimed, Claim: c}, err
}

// fence ends what predecessors that are no member of the group any more have left open. A live worker is never fenced: it may have
// lost this partition and still own others.
func (w *Worker) fence(ctx context.Context, asked map[int32]ask) (out evAll) {
	ids := slices.Sorted(maps.Keys(asked))
	var workers, fenced []string
	for _, a := range asked {
		workers = append(workers, a.before...)
	}
	slices.Sort(workers)
	var err error
	if !guard.Off(guard.TakenOver) {
		fenced, err = w.cfg.Group.FenceAbsent(ctx, slices.Compact(workers))
	}
	if len(fenced) > 0 {
		w.log.Info("took over: fenced the predecessors' transactional ids", zap.Int32s("partitions", ids), zap.Strings("workers", fenced))
	}
	for _, id := range ids {
		a := asked[id]
		switch {
		case err != nil:
			out = append(out, evFailed{id, a.life, ReasonKafka, err})
		case a.scan:
			out = append(out, func() { w.scans.add(w, id, ask{life: a.life}) })
		default:
			out = append(out, evStep{id, Event{Kind: EvFenced, Life: a.life}})
		}
	}
	return out
}

// look, fence and scan return what to report, partition by partition in order: several reports of one call are sent at once.
func (w *Worker) look(ctx context.Context, asked map[int32]ask) (out evAll) {
	epochs := map[int32]int32{}
	for id, a := range asked {
		epochs[id] = a.leaderEpoch
	}
	changed, err := w.topicsChanged(ctx)
	var looks map[int32]Look
	if err == nil {
		looks, err = w.cfg.Group.Look(ctx, epochs)
	}
	for _, id := range slices.Sorted(maps.Keys(asked)) {
		life := asked[id].life
		l, ok := looks[id]
		l.Changed = changed
		switch {
		case err != nil:
			out = append(out, evFailed{id, life, ReasonKafka, err})
		case !ok && changed == "":
			out = append(out, evStep{id, Event{Kind: EvUnstable, Life: life}})
		default:
			out = append(out, evStep{id, Event{Kind: EvLooked, Life: life, Look: l}})
		}
	}
	return out
}

func (w *Worker) scan(ctx context.Context, asked map[int32]ask) (out evAll) {
	ids := slices.Sorted(maps.Keys(asked))
	w.log.Warn("group offsets are gone: scanning the output topics for the last event of each partition", zap.Int32s("partitions", ids))
	found, err := w.cfg.Group.ScanOutputs(ctx, ids)
	for _, id := range ids {
		life := asked[id].life
		if err != nil {
			out = append(out, evFailed{id, life, ReasonKafka, err})
			continue
		}
		out = append(out, evStep{id, Event{Kind: EvScanned, Life: life, To: found[id]}})
	}
	return out
}

// drain reads the next part of the gap, to be published like any other item.
func (w *Worker) drain(s *slot, a Action) {
	id, epoch, seq, head := s.m.ID, s.m.Epoch, s.m.LedgerSeq, s.m.Head
	if s.draining != a.Life { // said once a gap, not once a part of it
		s.draining = a.Life
		w.log.Info("draining the gap", zap.Int32("partition", id), zap.Int64("from", a.From), zap.Int64("to", a.To))
	}
	w.beside.Go(func() {
		ctx, cancel := context.WithTimeout(w.ctx, callTimeout)
		defer cancel()
		msgs, upTo, err := w.cfg.Store.Gap(ctx, id, a.From, a.To, w.cfg.DrainRecords)
		if err == nil {
			err = w.unpublishable(msgs)
		}
		failpoint.Hit(failpoint.DrainRead)
		it := Item{Partition: id, Life: a.Life, To: upTo, LeaderEpoch: -1, Epoch: epoch, LedgerSeq: seq, Head: head, Messages: msgs, Drain: true}
		for i := range msgs {
			it.Bytes += msgs[i].Size()
			if i == 0 || msgs[i].SourceOffset != msgs[i-1].SourceOffset {
				it.Records++
			}
		}
		w.send(evGap{id, a.Life, it, err})
	})
}

func (w *Worker) gap(e evGap) {
	s := w.parts[e.partition]
	var broken interface{ Broken() string }
	switch {
	case s == nil || s.m.Life != e.life:
	case errors.As(e.err, &broken):
		w.step(e.partition, Event{Kind: EvBroken, Life: e.life, Why: broken.Broken()})
	case e.err != nil:
		w.failed(e.partition, e.life, ReasonPostgres, e.err)
	default:
		w.enqueue(e.item)
	}
}

// withdraw gives a partition up: its queued items go, and if part of it is in the open transaction, that is waited for (and aborted,
// if the partition was lost).
func (w *Worker) withdraw(s *slot, a Action) {
	id := s.m.ID
	w.queue = slices.DeleteFunc(w.queue, func(it Item) bool {
		if it.Partition != id || guard.Off(guard.Withdraw) {
			return false
		}
		w.inFlight -= it.Bytes
		return true
	})
	open := slices.ContainsFunc(w.sending, func(it Item) bool { return it.Partition == id })
	if !open || guard.Off(guard.Withdraw) {
		w.step(id, Event{Kind: EvWithdrawn, Life: a.Life})
		return
	}
	if a.Abort && !guard.Off(guard.LostIsAborted) {
		w.cancel.set()
	}
	s.waits = a.Life
}

// coalescer collects partitions that want the same of Kafka and serves them with one call at a time.
type coalescer struct {
	run     func(context.Context, map[int32]ask) evAll
	waiting map[int32]ask
	busy    bool
}

// ask is one partition's part of such a call.
type ask struct {
	life        uint64
	leaderEpoch int32    // for a look: stored with its offset; -1 unknown
	before      []string // for a fence: workers that may have left a transaction open
	scan        bool     // likewise: a scan follows it
}

func (c *coalescer) add(w *Worker, id int32, a ask) {
	if c.waiting == nil {
		c.waiting = map[int32]ask{}
	}
	c.waiting[id] = a
	c.start(w)
}

func (c *coalescer) start(w *Worker) {
	if c.busy || len(c.waiting) == 0 {
		return
	}
	c.busy = true
	asked := c.waiting
	c.waiting = nil
	w.beside.Go(func() {
		ctx, cancel := context.WithTimeout(w.ctx, 4*callTimeout)
		defer cancel()
		w.send(append(c.run(ctx, asked), func() { c.busy = false; c.start(w) }))
	})
}
