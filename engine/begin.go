package engine

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"
)

// pumpPrepare hands records to the handler: those of all partitions at once, or, where care is taken, a few of one partition and nobody else's until they
// are captured. The two take turns.
func (w *Worker) pumpPrepare() {
	if w.alone && !w.preparing && len(w.ready) == 0 && !w.capturing { // captured, or given up
		w.alone = false
		w.cfg.Turns.give(true)
	}
	if w.preparing || w.alone || w.leaving > 0 || len(w.ready) > 0 || w.stopping || w.inFlight >= w.cfg.MaxInFlight {
		return
	}
	s := w.careful()
	if s == nil || w.othersFirst {
		w.othersFirst = false
		if jobs := w.jobs(); len(jobs) > 0 {
			w.prepare(jobs, false)
			return
		}
	}
	if s != nil && !w.capturing {
		w.othersFirst = true
		w.prepare([]prepJob{w.carefully(s)}, true)
	}
}

// jobs takes what one capture takes of all partitions that need no care. The first of a partition since its claim is marked, and captured before the next:
// so many records, no more, are in doubt if we die of them.
func (w *Worker) jobs() (jobs []prepJob) {
	records, bytes := 0, 0
	ids := w.ids()
	for i, first := 0, w.cfg.Rand.IntN(max(len(ids), 1)); i < len(ids); i++ { // from a random one on, so that no partition is always last
		s := w.parts[ids[(first+i)%len(ids)]]
		if !w.waits(s) || w.needsCare(s) || s.begun {
			continue
		}
		n, b := 0, 0
		for n < len(s.buf) && records+n < w.cfg.MaxRecords && (bytes+b < w.cfg.MaxBytes || records+n == 0) {
			b += s.buf[n].Size()
			n++
		}
		if n == 0 {
			break
		}
		records, bytes = records+n, bytes+b
		job := w.take(s, n, b)
		job.marked = !s.free && w.cfg.QuarantineAfter > 0
		s.begun = job.marked
		jobs = append(jobs, job)
	}
	return jobs
}

// waits says whether a partition has records to be handled.
func (w *Worker) waits(s *slot) bool {
	return s.m.State == Consuming && len(s.buf) > 0 && s.failing == nil
}

func (w *Worker) needsCare(s *slot) bool { return w.cfg.QuarantineAfter > 0 && s.m.Care.On(s.next) }

// careful is a partition that waits and needs care; nil: none.
func (w *Worker) careful() *slot {
	var found []*slot
	for _, id := range w.ids() {
		if s := w.parts[id]; w.waits(s) && w.needsCare(s) && !s.begun {
			found = append(found, s)
		}
	}
	if len(found) < 2 {
		return append(found, nil)[0]
	}
	return found[w.cfg.Rand.IntN(len(found))]
}

// carefully takes the next few records of a partition that needs care. One that was begun often enough is not handled again, and what is behind
// it needs no care any more.
func (w *Worker) carefully(s *slot) prepJob {
	care, n, b := s.m.Care, 1, s.buf[0].Size()
	for n < len(s.buf) && n < care.Step && s.buf[n].Offset < care.To && b < w.cfg.MaxBytes {
		b += s.buf[n].Size()
		n++
	}
	job := w.take(s, n, b)
	job.marked, job.care = true, &care
	s.begun = true
	if care.Step == 1 && care.Attempts >= w.cfg.QuarantineAfter {
		why := quarantined(care.Attempts)
		job.care, job.refused = &Care{}, map[int64]*Permanent{job.records[0].Offset: why}
		w.log.Error("quarantined: the record becomes a dead letter without being handled again", zap.Int32("partition", job.partition),
			zap.Int64("offset", job.records[0].Offset), zap.Int("attempts", care.Attempts))
	}
	return job
}

// take takes the first n records of a partition, b bytes.
func (w *Worker) take(s *slot, n, b int) prepJob {
	records := s.buf
	next := s.buf[n-1].Offset + 1
	if n == len(s.buf) {
		s.buf = nil
	} else { // rare: the partition alone has more than a capture takes
		records, s.buf = append(getRecords(), s.buf[:n]...), s.buf[n:]
	}
	job := prepJob{partition: s.m.ID, life: s.m.Life, epoch: s.m.Epoch, from: s.next, to: next, records: records, refused: s.refused}
	s.next = next
	s.bytes -= b
	w.buffered -= b
	if s.full && s.bytes <= w.cfg.MaxInFlight/roomShare {
		s.full = false
		w.poll.command(command{partition: s.m.ID, kind: cmdRoom})
	}
	return job
}

// prepare writes the marks, then runs the handler.
func (w *Worker) prepare(jobs []prepJob, alone bool) {
	w.preparing, w.alone = true, alone
	w.beside.Go(func() {
		w.cfg.Turns.take(alone)
		failed, kept := w.mark(jobs)
		p := w.prep.run(w.ctx, kept)
		w.unmark(kept)
		if !alone {
			w.cfg.Turns.give(false)
		}
		if len(failed) > 0 {
			maps.Copy(failed, p.failed)
			p.failed = failed
		}
		w.send(evPrepared{p})
	})
}

// mark writes the marks of the jobs that need one, and returns those that may be handled.
func (w *Worker) mark(jobs []prepJob) (failed map[int32]prepFailure, kept []prepJob) {
	var marks []Mark
	for i := range jobs {
		if j := &jobs[i]; j.marked {
			marks = append(marks, Mark{j.partition, j.epoch, j.from, j.to})
		}
	}
	if len(marks) == 0 {
		return nil, jobs
	}
	slices.SortFunc(marks, func(a, b Mark) int { return int(a.Partition - b.Partition) }) // locks are taken in this order
	ctx, cancel := context.WithTimeout(w.ctx, callTimeout)
	defer cancel()
	ours, err := w.cfg.Store.Begin(ctx, marks)
	failed = map[int32]prepFailure{}
	for _, j := range jobs {
		switch {
		case j.marked && err != nil:
			failed[j.partition] = prepFailure{j.life, markFailed{err}}
		case j.marked && !ours[j.partition]:
			failed[j.partition] = prepFailure{j.life, errNotOurs}
		default:
			kept = append(kept, j)
			continue
		}
		putRecords(j.records)
	}
	return failed, kept
}

// unmark takes the marks back once the handler has returned, before the capture is waited for: what ends the process from now on, a capture that hangs
// for Postgres' reasons and a person's SIGKILL, is not for the records to answer for. If it can't be, Postgres is away, and the capture will not be made either.
func (w *Worker) unmark(jobs []prepJob) {
	var marks []Mark
	for i := range jobs {
		if j := &jobs[i]; j.marked {
			marks = append(marks, Mark{j.partition, j.epoch, j.from, j.to})
		}
	}
	if len(marks) == 0 {
		return
	}
	slices.SortFunc(marks, func(a, b Mark) int { return int(a.Partition - b.Partition) })
	ctx, cancel := context.WithTimeout(w.ctx, callTimeout)
	defer cancel()
	if err := w.cfg.Store.Leave(ctx, marks); err != nil {
		w.log.Warn("could not take back the marks of records that were handled: the next owner may take care for nothing", zap.Error(err))
	}
}

func (w *Worker) prepared(p prepared) {
	w.preparing = false
	for _, b := range p.batches {
		if w.tooMany(b) {
			b.captured() // what it holds goes back
			continue
		}
		w.giveBack(b)
		w.ready = append(w.ready, b)
		w.inFlight += b.Bytes
	}
	for _, id := range slices.Sorted(maps.Keys(p.failed)) {
		s, f := w.parts[id], p.failed[id]
		switch {
		case s != nil && s.m.Life == f.life && slices.ContainsFunc(p.batches, func(b *Batch) bool { return b.Partition == id }):
			s.failing = f.err // first what came before it
		case errors.Is(f.err, errNotOurs):
			w.log.Warn("mark refused: fenced, another worker has claimed the partition", zap.Int32("partition", id))
			w.step(id, Event{Kind: EvRefused, Life: f.life})
		default:
			w.notHandled(id, f.life, f.err)
		}
	}
}

// notHandled: a record could not be, for now, or until a person has decided.
func (w *Worker) notHandled(id int32, life uint64, err error) {
	var broken interface{ Broken() string }
	if !errors.As(err, &broken) {
		w.failed(id, life, reasonOf(err), err)
		return
	}
	if s := w.parts[id]; s != nil && s.m.Life == life {
		w.obs.Failed(id, reasonOf(err))
		w.step(id, Event{Kind: EvBroken, Life: life, Why: broken.Broken()})
	}
}

// giveBack puts the records that a batch had no room for in front of what has come since.
func (w *Worker) giveBack(b *Batch) {
	rest := b.rest
	b.rest = nil
	s := w.parts[b.Partition]
	if len(rest) == 0 || s == nil || s.m.Life != b.Life || s.m.State != Consuming {
		putRecords(rest)
		return
	}
	for i := range rest {
		s.bytes += rest[i].Size()
		w.buffered += rest[i].Size()
	}
	behind := s.buf
	s.buf, s.next = append(rest, behind...), b.To
	putRecords(behind)
	w.enough(s)
}

// markGone: the batch that was marked is captured, and the mark gone with it.
func (s *slot) markGone(b *Batch) {
	if !s.begun {
		return
	}
	s.begun = false
	if b.careful {
		s.m.Care = b.Care
	} else {
		s.free = true // what comes now is behind something that went well: as fast as it can be
	}
}

// leave takes our mark back: a partition is given up, and we are not gone. As long as that takes nothing else is handled, which the mark could be
// blamed for. If it fails, the next owner takes care for nothing.
func (w *Worker) leave(s *slot) {
	if !s.begun {
		return
	}
	s.begun = false
	w.leaving++
	id, epoch := s.m.ID, s.m.Epoch
	w.beside.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), 3*time.Second) // also when the worker ends
		defer cancel()
		if err := w.cfg.Store.Leave(ctx, []Mark{{Partition: id, Epoch: epoch}}); err != nil {
			w.log.Warn("could not take back the mark of records that were begun: the next owner takes care for nothing", zap.Int32("partition", id), zap.Error(err))
		}
		w.send(func() { w.leaving-- })
	})
}

// careSaid tells that a partition is taken with care.
func (w *Worker) careSaid(s *slot) {
	if !w.needsCare(s) {
		return
	}
	c := s.m.Care
	w.obs.Careful(s.m.ID)
	w.log.Warn("who had the partition before was gone in the middle of its records: they are handled with care", zap.Int32("partition", s.m.ID),
		zap.Int64("offset", s.m.Next), zap.Int64("to", c.To), zap.Int("at_a_time", c.Step), zap.Int("attempts", c.Attempts))
}
