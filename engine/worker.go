package engine

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/failpoint"
)

// Config is what a worker is made of. Parts are interfaces, so that another client or store can follow.
type Config struct {
	WorkerID string
	SourceID int16
	Shape    Shape
	Handler  Handler

	MaxRecords   int       // records in one capture
	MaxBytes     int       // input bytes in one capture; outputShare times as many of output
	MaxInFlight  int       // bytes read and not yet published
	DrainRecords int       // outbox rows in one transaction of a drain
	DeadShare    DeadShare // how much may become dead letters

	QuarantineAfter int    // deaths of processes over one record, until it becomes a dead letter; 0: never, and no care is taken
	Turns           *Turns // shared with the other workers of this process; nil: there are none

	BackoffMin  time.Duration // first back-off before claiming again; default 50 ms
	BackoffMax  time.Duration // default 5 s
	CheckEvery  time.Duration // how often topic ids are compared while consuming, and stopped partitions looked at; default 5 s
	StopTimeout time.Duration // how long a stop may take to finish what is captured; default 8 s
	Leave       bool          // leave the group for good on stop
	// Leaves, where there is one, is asked at the stop whether to leave, in place of Leave.
	Leaves func(context.Context) bool

	Source    func(Listener) (Source, error) // joins the group
	Store     Store
	Group     Group
	Publisher Publisher
	Observer  Observer // may be nil
	Log       *zap.Logger

	Clock Clock      // nil: the real one
	Rand  *rand.Rand // jitter, and which partition goes first; nil: seeded by chance. Run alone uses it
}

// Worker is one member of the group. All of its decisions are taken by one goroutine, run's; everything that blocks is done by
// others, which report back through events.
type Worker struct {
	cfg   Config
	log   *zap.Logger
	obs   Observer
	prep  *preparer
	poll  *poller
	evs   chan any // what comes back; see handle
	parts map[int32]*slot
	lives map[int32]uint64 // the last life of partitions that were released

	stamp      Stamp
	sentStamp  Stamp // of the open transaction
	paused     int   // the pause publishing is in, 0 for none; see pausePublish
	pauses     int
	aborts     int // in a row
	producerUp bool

	preparing, capturing, publishing bool
	ready                            []*Batch // prepared, not yet captured
	queue                            []Item   // captured or read from the outbox, not yet published
	sending                          []Item   // in the open transaction
	cancel                           *cancelFlag
	alone                            bool // records are with prepare or capture that are handled with care
	othersFirst                      bool // their turn
	leaving                          int  // marks being taken back
	buffered                         int  // bytes read and not yet prepared
	inFlight                         int  // bytes prepared and not yet published

	joined      bool // there is a membership, and poll's goroutine
	membership  int  // how many there were: what an old one tells is for nobody
	memberships int  // in a row that ended soon
	rebalances  int  // in this membership, that gave us something or nothing
	unowned     int  // looks in a row that found a partition nobody has; -1: no more in this membership
	pollEnded   chan error

	looks, fences, scans coalescer

	stopping bool
	closing  bool
	err      error // ends the worker
	ctx      context.Context
	beside   sync.WaitGroup // calls of stores and producer under way
}

// slot is a partition with its records.
type slot struct {
	m        *Partition
	sought   uint64 // the life under which the consumer was set to the right offset; records are taken only under it
	fresh    bool   // no record was taken since the seek
	leader   int32  // the newest leader epoch that was read, and looked at since; see newLeader
	buf      []Record
	bytes    int
	full     bool   // as many as one partition may have: it is not fetched for now
	next     int64  // from here on the next capture begins; records before it are with prepare or behind
	waits    uint64 // the life whose withdrawal waits for the open transaction
	draining uint64 // the life whose drain was told
	captured Item   // on its way from capture to publish
	release  []func()
	said     string               // the last trouble told, so that it is told once
	refused  map[int64]*Permanent // records the store refused; never changed, only replaced
	window   window               // records and dead letters of the last minute
	failing  error                // the handler failed after the records that are being captured: given up once they are
	begun    bool                 // marked records are not captured yet
	free     bool                 // marked ones were since the claim
}

// Run works until ctx is done (then it finishes what is captured and returns nil) or until it can't go on. ErrReplaced is one such error.
func Run(ctx context.Context, cfg Config) error {
	cfg.BackoffMin = cmp.Or(cfg.BackoffMin, 50*time.Millisecond)
	cfg.BackoffMax = cmp.Or(cfg.BackoffMax, 5*time.Second)
	cfg.CheckEvery = cmp.Or(cfg.CheckEvery, 5*time.Second)
	cfg.StopTimeout = cmp.Or(cfg.StopTimeout, 8*time.Second)
	if cfg.Observer == nil {
		cfg.Observer = nobody{}
	}
	if cfg.Clock == nil {
		cfg.Clock = wallClock{}
	}
	if cfg.Rand == nil {
		cfg.Rand = newRand()
	}
	w := &Worker{
		cfg: cfg, log: cfg.Log, obs: cfg.Observer, evs: make(chan any, 256), parts: map[int32]*slot{}, lives: map[int32]uint64{}, pollEnded: make(chan error, 1),
		prep: newPreparer(cfg.Handler, &cfg.Shape, cfg.SourceID),
	}
	w.prep.log, w.prep.most = cfg.Log, outputShare*cfg.MaxBytes
	w.looks = coalescer{run: w.look}
	w.fences = coalescer{run: w.fence}
	w.scans = coalescer{run: w.scan}
	return w.run(ctx)
}

func (w *Worker) run(ctx context.Context) error {
	// What is under way outlives ctx, so that a stop can finish it; it ends with the worker.
	var end context.CancelFunc
	w.ctx, end = context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	if err := w.firstProducer(ctx); err != nil {
		return err
	}
	defer func() { // whoever called us closes the stores next: nothing may be under way in them any more
		end()
		w.beside.Wait()
		if w.alone {
			w.cfg.Turns.give(true)
		}
		w.cfg.Publisher.Close()
	}()
	if err := w.join(); err != nil {
		return err
	}
	w.after(w.cfg.CheckEvery, evCheck{})
	done := ctx.Done()
	for {
		failpoint.Hit(failpoint.EngineLoop)
		w.pump()
		if w.stopping && !w.closing && w.idle() {
			w.close()
		}
		if w.closing && !w.joined {
			return w.ended(nil)
		}
		chunks := w.poll.chunks
		if w.buffered >= w.cfg.MaxInFlight {
			chunks = nil // back-pressure: the poller pauses the partitions and goes on polling
		}
		select {
		case e := <-w.evs:
			w.handle(e)
		case c := <-chunks:
			w.accept(c)
		case <-done:
			done = nil
			w.stopping = true
			w.after(w.cfg.StopTimeout, evForce{})
			w.log.Info("stopping: finishing what is captured", zap.Int("queued_batches", len(w.queue)))
		case err := <-w.pollEnded:
			if !isFatal(err) {
				return w.ended(err)
			}
			w.membershipEnded(err)
		}
		if w.err != nil && !w.closing {
			w.log.Error("worker ends", zap.Error(w.err))
			w.stopping = true
			w.close()
		}
	}
}

// firstProducer also fences whatever an earlier incarnation left open. A broker that is away is waited for, and said once.
func (w *Worker) firstProducer(ctx context.Context) error {
	said := false
	for attempt := 1; ; attempt++ {
		c, cancel := context.WithTimeout(ctx, 30*time.Second)
		err := w.cfg.Publisher.Renew(c)
		cancel()
		if err == nil {
			w.producerUp = true
			return nil
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // asked to stop before it began
		}
		if !said {
			w.log.Warn("no transactional producer yet, trying on", zap.Error(err))
			said = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(w.backoff(attempt)):
		}
	}
}

// ended: the membership is over; nothing of ours may be left in an open transaction.
func (w *Worker) ended(err error) error {
	for w.publishing {
		if e, ok := (<-w.evs).(evPublished); ok {
			w.published(e)
		}
	}
	if w.err == nil {
		w.err = err
	}
	ctx, cancel := context.WithTimeout(w.ctx, 3*time.Second)
	defer cancel()
	if w.err == nil && w.joined && w.leaves(ctx) {
		if err := w.cfg.Group.Leave(ctx); err != nil {
			w.log.Warn("could not leave the group for good: its partitions move at the session timeout", zap.Error(err))
		}
	}
	return w.err
}

// leaves says whether this stop is for good.
func (w *Worker) leaves(ctx context.Context) bool {
	if w.cfg.Leaves != nil {
		return w.cfg.Leaves(ctx)
	}
	return w.cfg.Leave
}

func (w *Worker) replaced() bool {
	ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
	defer cancel()
	current, err := w.cfg.Store.Incarnation(ctx)
	return err == nil && !current
}

// idle says that all that was captured is published.
func (w *Worker) idle() bool {
	if w.capturing || w.publishing {
		return false
	}
	for i := range w.queue {
		if s := w.parts[w.queue[i].Partition]; s != nil && s.m.Life == w.queue[i].Life && !w.queue[i].Drain {
			return !w.producerUp
		}
	}
	return true
}

// ids are the partitions there are, in order: what is done to all of them is done in the same order each time.
func (w *Worker) ids() []int32 { return slices.Sorted(maps.Keys(w.parts)) }

// send reports back to run. It gives up when the worker has ended.
func (w *Worker) send(e any) {
	select {
	case w.evs <- e:
	case <-w.ctx.Done():
	}
}
