package engine

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/guard"
)

// cancelFlag asks the publish under way to abort.
type cancelFlag struct{ v atomic.Bool }

func (c *cancelFlag) set()      { c.v.Store(true) }
func (c *cancelFlag) get() bool { return c.v.Load() }

// publishBytes bounds one Kafka transaction, so that it ends well inside the transaction timeout.
const publishBytes = 16 << 20

// What one partition may have buffered, as shares of MaxInFlight: from where on it is not fetched, and again. A burst on one would else fill all there is,
// and then nothing of any partition is fetched until there is room, which the burst fills again: the others wait until it is over. Wide apart,
// because pausing throws away what the client has prefetched.
const (
	fullShare = 3
	roomShare = 8
)

// accept takes a chunk from the poller: records of partitions that are being consumed and were set to their offset under this life.
func (w *Worker) accept(c chunk) {
	for _, m := range c.sought {
		if s := w.parts[m.partition]; s != nil && s.m.Life == m.life {
			s.sought = m.life
		}
	}
	now := time.Now()
	for i := range c.records {
		r := &c.records[i]
		r.arrived = now
		s := w.parts[r.Partition]
		if s == nil || s.m.State != Consuming || s.sought != s.m.Life {
			continue
		}
		if n := len(s.buf); (n > 0 && r.Offset <= s.buf[n-1].Offset) || (n == 0 && r.Offset < s.next) {
			continue
		}
		if s.fresh && w.newLeader(s, r.LeaderEpoch) {
			continue
		}
		s.fresh = false
		if s.buf == nil {
			s.buf = getRecords()
		}
		s.buf = append(s.buf, *r)
		s.bytes += r.Size()
		w.buffered += r.Size()
		w.enough(s)
	}
	putRecords(c.records)
}

// enough: from here on a partition is not fetched.
func (w *Worker) enough(s *slot) {
	if !s.full && s.bytes >= w.cfg.MaxInFlight/fullShare {
		s.full = true
		w.poll.command(command{partition: s.m.ID, kind: cmdFull})
	}
}

// newLeader: the first record since the claim is of a later leader than the one before it, which is captured. That is most times no more than
// it says. But if the log was truncated after the look (an unclean election), and has grown past our position since, no offset shows it, and
// what took the place of captured records would never be read. So the partition is claimed and looked at once more before anything
// of that leader's is captured: where the epoch before it ended is final by now (KIP-320).
func (w *Worker) newLeader(s *slot, epoch int32) bool {
	before := s.m.LeaderEpoch
	if before < 0 || epoch <= max(before, s.leader) || guard.Off(guard.NewLeader) {
		return false
	}
	s.leader = epoch
	w.log.Info("the input has a new leader since the last capture: looking again", zap.Int32("partition", s.m.ID), zap.Int32("leader_epoch", epoch))
	w.step(s.m.ID, Event{Kind: EvFailed, Life: s.m.Life})
	return true
}

// pump starts each stage that is idle and has work: batches grow while the stages behind are busy and go at once when they are idle.
func (w *Worker) pump() {
	w.pumpPrepare()
	w.pumpCapture()
	w.pumpPublish()
}

func (w *Worker) pumpCapture() {
	if w.capturing || len(w.ready) == 0 {
		return
	}
	var batches []*Batch
	for _, b := range w.ready {
		s := w.parts[b.Partition]
		if s == nil || s.m.Life != b.Life || s.m.State != Consuming || w.stopping {
			w.inFlight -= b.Bytes
			continue
		}
		b.Floor = s.m.Published
		batches = append(batches, b)
		if guard.Off(guard.CaptureFirst) {
			w.enqueue(item(b, s.m.LedgerSeq+1))
		}
	}
	w.ready = nil
	if len(batches) == 0 {
		return
	}
	slices.SortFunc(batches, func(a, b *Batch) int { return int(a.Partition - b.Partition) }) // locks are taken in this order
	w.capturing = true
	w.beside.Go(func() {
		failpoint.Hit(failpoint.CaptureBefore)
		start := time.Now()
		seqs, err := w.cfg.Store.Capture(w.ctx, batches)
		if err == nil {
			failpoint.Hit(failpoint.CaptureCommitted)
		}
		w.send(evCaptured{batches, seqs, err, int64(time.Since(start))})
	})
}

func (w *Worker) captured(e evCaptured) {
	w.capturing = false
	w.tellCapture(&e)
	if guard.Off(guard.DropMemory) && e.err != nil { // takes it for undone
		w.ready = append(e.batches, w.ready...)
		return
	}
	for _, b := range e.batches {
		b.captured()
	}
	if guard.Off(guard.UnknownCapture) && e.err != nil { // takes it for done
		e.err, e.seqs = nil, make([]int64, len(e.batches))
		for i, b := range e.batches {
			if s := w.parts[b.Partition]; s != nil {
				e.seqs[i] = s.m.LedgerSeq + 1
			}
		}
	}
	if e.err != nil {
		for _, b := range e.batches {
			w.inFlight -= b.Bytes
		}
		var refused *RefusedError
		if errors.As(e.err, &refused) {
			w.refusedRows(refused)
		}
		w.dropMemory(e.batches[0].Trace, e.err)
		return
	}
	var records, rows, dead int64
	for i, b := range e.batches {
		s := w.parts[b.Partition]
		if s == nil || s.m.Life != b.Life {
			w.inFlight -= b.Bytes // given up meanwhile: the next owner drains it
			continue
		}
		if e.seqs[i] == 0 {
			w.inFlight -= b.Bytes
			w.log.Warn("capture refused: fenced, another worker has claimed the partition", zap.Int32("partition", b.Partition),
				zap.Int64("offset", b.From), zap.Int64("epoch", b.Epoch), traceID(b.Trace))
			w.step(b.Partition, Event{Kind: EvRefused, Life: b.Life})
			continue
		}
		records, rows, dead = records+b.Records, rows+b.Rows, dead+b.DeadLetters
		for class, n := range b.classes {
			w.obs.Dead(class, n)
		}
		s.m.LedgerSeq = e.seqs[i]
		s.markGone(b)
		s.captured = item(b, e.seqs[i])
		w.inFlight -= b.Bytes // queued again by the publish that the capture leads to
		w.step(b.Partition, Event{Kind: EvCaptured, Life: b.Life, To: b.To})
		s.captured = Item{}
		s.said = ""
		if s.failing != nil {
			w.notHandled(b.Partition, b.Life, s.failing)
		}
	}
	w.obs.Captured(records, rows, dead, time.Duration(e.took))
}

// item is what a captured batch owes Kafka.
func item(b *Batch, ledgerSeq int64) Item {
	return Item{
		Partition: b.Partition, Life: b.Life, To: b.To, LeaderEpoch: b.LeaderEpoch, Epoch: b.Epoch,
		LedgerSeq: ledgerSeq, Head: b.Head, Messages: b.Messages, Bytes: b.Bytes, Records: b.Records, Trace: b.Trace, arrived: b.arrived,
	}
}

func (w *Worker) enqueue(it Item) {
	w.queue = append(w.queue, it)
	w.inFlight += it.Bytes
}

func (w *Worker) pumpPublish() {
	w.obs.Queued(w.inFlight)
	if w.publishing || !w.producerUp || w.paused != 0 || w.stamp == nil || len(w.queue) == 0 {
		return
	}
	var items []Item
	bytes, n := 0, 0
	for _, it := range w.queue { // in the order of capture
		if n > 0 && bytes+it.Bytes > publishBytes {
			break
		}
		n++
		s := w.parts[it.Partition]
		if (s == nil || s.m.Life != it.Life) && !guard.Off(guard.Withdraw) { // withdraw takes these out; this is the second look
			w.inFlight -= it.Bytes
			continue
		}
		items = append(items, it)
		bytes += it.Bytes
	}
	w.queue = slices.Delete(w.queue, 0, n)
	if len(items) == 0 {
		return
	}
	w.sending, w.publishing, w.cancel = items, true, &cancelFlag{}
	stamp, cancelled := w.stamp, w.cancel.get
	w.sentStamp = stamp
	w.beside.Go(func() {
		start := time.Now()
		o, err := w.cfg.Publisher.Publish(items, stamp, cancelled)
		took, trace := time.Since(start), ""
		if t, ok := w.cfg.Publisher.(Traced); ok {
			trace = t.Trace()
		}
		w.send(evPublished{o, err, int64(took), trace})
	})
}

// published takes the outcome of a Kafka transaction. An abort is followed by the same bytes again, or by giving the partition up.
func (w *Worker) published(e evPublished) {
	items := w.sending
	w.sending, w.publishing = nil, false
	var messages int64
	var again []Item
	for _, it := range items {
		s := w.parts[it.Partition]
		alive := s != nil && s.m.Life == it.Life
		switch {
		case e.o == Committed:
			messages += int64(len(it.Messages))
			w.inFlight -= it.Bytes
			w.step(it.Partition, Event{Kind: EvPublished, Life: it.Life, To: it.To})
			if !guard.Off(guard.CaptureFirst) { // without it they are queued twice
				putMessages(it.Messages)
			}
		case alive && (e.o == Aborted || e.o == StaleStamp) && !guard.Off(guard.SameBytesAgain):
			again = append(again, it)
		case e.o == Lost && guard.Off(guard.LookAgain):
			again = append(again, it)
		default:
			w.inFlight -= it.Bytes
		}
	}
	w.queue = append(again, w.queue...)
	w.obs.Published(messages, time.Duration(e.took), e.o)
	w.tellPublish(items, &e)
	switch e.o {
	case Committed:
		w.aborts = 0
	case Aborted:
		w.aborts++
		if w.aborts == 1 { // said once in a row
			w.log.Warn("Kafka transaction aborted: the same bytes again", zap.Int("batches", len(again)), traceID(e.trace), zap.Error(e.err))
		}
		w.pausePublish(w.backoff(w.aborts)) // a broker that refuses for good must not be asked in a hot loop
	case StaleStamp:
		w.log.Warn("fenced by generation: waiting for the rebalance", zap.Int("batches", len(again)), traceID(e.trace), zap.Error(e.err))
		if w.stamp == w.sentStamp { // else it has come meanwhile, and what is still owned goes out under the new stamp
			w.pausePublish(time.Second) // if none comes: ask again with what we have
		}
	case Lost:
		w.producerLost(e.trace, e.err)
	}
	for _, it := range items { // partitions whose withdrawal waited for this transaction
		if s := w.parts[it.Partition]; s != nil && s.waits != 0 {
			life := s.waits
			s.waits = 0
			w.step(it.Partition, Event{Kind: EvWithdrawn, Life: life})
		}
	}
}

// pausePublish holds publishing back until a rebalance brings a new stamp, or for d.
func (w *Worker) pausePublish(d time.Duration) {
	w.pauses++
	w.paused = w.pauses
	n := w.pauses
	w.after(d, func() {
		if w.paused == n {
			w.paused = 0
		}
	})
}

// producerLost: fenced, fatal, or a commit's outcome is unknown. The producer is made anew under the same transactional id, which
// fences every stray request of the old one; everything in memory is dropped and claimed again.
func (w *Worker) producerLost(trace string, err error) {
	w.log.Warn("producer lost (fenced, fatal, or a commit's outcome unknown): a new one takes its place", traceID(trace), zap.Error(err))
	w.producerUp = false
	for _, id := range w.ids() {
		if guard.Off(guard.LookAgain) {
			break
		}
		w.step(id, Event{Kind: EvProducerLost})
	}
	w.renew(1)
}

// renew tries until there is a producer. Fenced by whom? If another process is registered under our worker id, we stop: two workers
// never fence each other in turns. If not, we were taken over for something we had lost, or the broker's transaction timeout struck.
func (w *Worker) renew(attempt int) {
	w.after(w.backoff(attempt), func() {
		w.beside.Go(func() {
			if w.replaced() && !guard.Off(guard.FencedByWhom) {
				w.send(evFatal{ErrReplaced})
				return
			}
			ctx, cancel := context.WithTimeout(w.ctx, 2*callTimeout)
			defer cancel()
			if err := w.cfg.Publisher.Renew(ctx); err != nil {
				if attempt == 1 {
					w.log.Warn("no new producer yet, trying on", zap.Error(err))
				}
				w.send(func() { w.renew(attempt + 1) })
				return
			}
			w.send(func() { w.renewed() })
		})
	})
}

func (w *Worker) renewed() {
	w.producerUp = true
	w.log.Info("new producer ready")
	for _, id := range w.ids() {
		w.step(id, Event{Kind: EvProducerReady})
	}
}
