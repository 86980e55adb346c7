package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/pgcopy"
	"github.com/exactly-pipeline/exactly/outbox"
	"github.com/exactly-pipeline/exactly/txn"
)

// What a worker runs with: the defaults of configs/exactly.yaml, and what is derived from them.
const (
	sessionTimeout     = 10 * time.Second
	heartbeatInterval  = 3 * time.Second
	transactionTimeout = sessionTimeout
	stableTimeout      = time.Second
	lockTimeout        = 2 * time.Second
	idleTimeout        = sessionTimeout / 2
	stopTimeout        = 8 * time.Second
)

// worker is one process: an incarnation of a worker id.
type worker struct {
	s  *sim
	n  int // 1.. in the order they were started
	id string

	dead, frozen, ending    bool
	returning               bool // a membership was closed: the engine may be about to return
	quits                   bool // asked to stop in a quiet world: has to end without an error
	running, exited, leaves bool
	err                     error
	missed                  []event // what came while it was frozen
	calls                   []*call
	stop                    context.CancelFunc
	states                  map[int32]engine.State
	initialised             bool // its first producer
	replaced                bool // it was told so
	doubted                 bool // the outcome of its next commit stays unknown to it
	token                   int  // the step in which the handler may go on without parking
	refuse                  int  // records until the handler meets a transient error; 0 never

	client *consumer
	store  *store
}

func (w *worker) name() string { return fmt.Sprintf("%s#%d", w.id, w.n) }

// spawn starts a process under a worker id. It registers its incarnation, then runs the engine.
func (s *sim) spawn(id string) *worker {
	w := &worker{s: s, n: len(s.workers) + 1, id: id, states: map[int32]engine.State{}, leaves: s.chance(700)}
	w.store = newStore(w)
	s.workers = append(s.workers, w)
	s.say(w, "starts", 0, 0)
	s.at(s.between(0, 50*time.Millisecond), w, nil, func() { w.register() })
	return w
}

// register is txn.OpenStore, tried until Postgres is there.
func (w *worker) register() {
	w.store.poolQuery(nil, "register", func(reply func()) {
		w.s.pg.incarnations[w.id] = w.n
		reply()
	}, func(err error) {
		if err != nil {
			w.s.at(w.s.between(100*time.Millisecond, time.Second), w, nil, w.register)
			return
		}
		w.run()
	})
}

func (w *worker) run() {
	ctx, stop := context.WithCancel(background)
	w.stop, w.running = stop, true
	cfg := w.config()
	w.s.letGo = true
	go func() {
		err := engine.Run(ctx, cfg)
		w.s.mu.Lock()
		w.exited, w.err = true, err
		w.s.exits = append(w.s.exits, w)
		w.s.mu.Unlock()
		select {
		case w.s.wake <- struct{}{}:
		default:
		}
	}()
}

func (w *worker) config() engine.Config {
	s := w.s
	log := zap.NewNop()
	if s.trace.verbose {
		log = zap.New(logCore{w})
	}
	return engine.Config{
		WorkerID: w.id, SourceID: 1, Handler: handler{w}, Log: log, Observer: observer{w}, Clock: clock{w}, Leave: w.leaves,
		Shape:      engine.Shape{Input: "in", DLQ: "dlq", Partitions: map[string]int{"out": 2, "dlq": 1}},
		MaxRecords: s.p.maxRecords, MaxBytes: 1 << 20, MaxInFlight: s.p.maxInFlight, DrainRecords: s.p.drainRecords,
		QuarantineAfter: s.p.quarantine,
		BackoffMax:      min(5*time.Second, sessionTimeout/2), CheckEvery: 5 * time.Second, StopTimeout: stopTimeout,
		Rand: rand.New(rand.NewPCG(s.seed, uint64(w.n)+1000)),
		Source: func(l engine.Listener) (engine.Source, error) {
			if w.dead {
				return nil, errDead
			}
			w.client = newConsumer(w, l)
			return w.client, nil
		},
		Store: w.store, Group: &admin{w},
		Publisher: &txn.Publisher{
			Topic: "in", Timeout: transactionTimeout, Log: log,
			New: func() (txn.Producer, error) { return &producer{w: w, s: s}, nil },
		},
	}
}

// quit asks the worker to stop, as SIGTERM does.
func (w *worker) quit() {
	if !w.running {
		w.kill()
	}
	if w.dead || w.ending || w.exited {
		return
	}
	w.s.say(w, "is asked to stop", 0, 0)
	w.ending = true
	w.stop()
	w.s.letGo = true
}

// kill ends the process: nothing it does from now on reaches anybody. Its connections are closed by the kernel, unless the host went with it.
func (w *worker) kill() {
	if w.dead {
		return
	}
	w.s.mu.Lock()
	w.dead = true
	w.s.mu.Unlock()
	calls := w.calls
	w.calls = nil
	for _, c := range calls {
		c.over.over, c.err = true, errDead
		close(c.done)
	}
	if w.stop != nil {
		w.stop()
	}
	w.s.letGo = true
}

// freeze is SIGSTOP: what comes is left lying, what was sent is on its way.
func (w *worker) freeze() {
	if !w.dead && !w.frozen {
		w.s.say(w, "is frozen", 0, 0)
		w.frozen = true
	}
}

func (w *worker) thaw() {
	if w.dead || !w.frozen {
		return
	}
	w.s.say(w, "wakes up", int64(len(w.missed)), 0)
	w.frozen = false
	missed := w.missed
	w.missed = nil
	for i, e := range missed { // in the order they came, one after the other
		w.s.at(time.Duration(i)*20*time.Microsecond, w, e.o, e.f)
	}
}

// ended: the engine has returned. Whatever supervises the process starts another, unless it was told to stop, or there is one.
func (w *worker) ended() {
	s := w.s
	if w.dead {
		return
	}
	s.say(w, "ended", 0, 0)
	s.detail("%v", w.err)
	w.client.leave()
	w.store.close()
	if w.quits && w.err != nil && !w.replaced && s.pg.incarnations[w.id] == w.n {
		s.broke("stop", "%s was asked to stop and ended with %v", w.name(), w.err)
	}
	s.mu.Lock()
	w.dead = true
	s.mu.Unlock()
	if w.err != nil && !w.quits {
		s.at(s.between(10*time.Millisecond, time.Second), nil, nil, func() {
			if !s.runs(w.id) && !s.closing {
				s.spawn(w.id)
			}
		})
	}
}

// clock gives the worker's timers to the driver.
type clock struct{ w *worker }

func (c clock) AfterFunc(d time.Duration, f func()) {
	s := c.w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timers = append(s.timers, event{at: d, w: c.w, f: func() {
		s.say(c.w, "timer", 0, 0)
		s.letGo = true
		f()
		c.w.client.wake()
	}})
}

// observer notes changes of state. Seeks and pauses go with them: the next poll obeys.
type observer struct{ w *worker }

func (o observer) State(p int32, st engine.State) {
	s := o.w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, note{o.w, p, st})
	o.w.client.wake()
}
func (observer) Event(int32, engine.EventKind)                  {}
func (observer) Offsets(int32, int64, int64)                    {}
func (observer) Captured(int64, int64, int64, time.Duration)    {}
func (observer) Published(int64, time.Duration, engine.Outcome) {}
func (observer) Dead(string, int64)                             {}
func (observer) Failed(int32, string)                           {}
func (observer) Queued(int)                                     {}
func (observer) Careful(int32)                                  {}
func (observer) Rebalanced(engine.EventKind, int)               {}
func (observer) Claimed(int32, *engine.Claim)                   {}
func (observer) Transaction(*engine.Transaction)                {}
func (observer) Landed(int32, *engine.Landing)                  {}
func (observer) Pulse(int32, *engine.PartitionPulse)            {}
func (observer) Polled(time.Duration)                           {}

// handler enriches: no two attempts at a record give the same. One record in some is poison.
type handler struct{ w *worker }

func (handler) Tables() []engine.Table { return []engine.Table{{Name: "rows", Columns: []string{"v"}}} }

var errRegistry = errors.New("sim: registry away")

func (h handler) Handle(ctx context.Context, r *engine.Record, out *engine.Out) error {
	w := h.w
	if r.Value[0] == 'k' {
		return w.park(ctx, "handle", r.Partition, func(c *call) {
			c.at(w.s.between(50*time.Microsecond, 2*time.Millisecond), func() { w.ends(r) })
		})
	}
	if w.token != w.s.steps {
		err := w.park(ctx, "handle", r.Partition, func(c *call) {
			c.at(w.s.between(50*time.Microsecond, 2*time.Millisecond), func() {
				w.s.trapped(w)
				w.token, w.refuse = w.s.steps, 0
				if w.s.faulty && w.s.chance(w.s.p.transient) {
					w.refuse = 1 + w.s.rng.IntN(3)
				}
				c.finish(nil)
			})
		})
		if err != nil {
			return err
		}
	}
	if w.refuse > 0 {
		if w.refuse--; w.refuse == 0 {
			return errRegistry
		}
	}
	if r.Value[0] == 'p' {
		return &engine.Permanent{Class: "poison", Stage: "decode", Message: "poison"}
	}
	w.s.prepare++
	value := fmt.Appendf(nil, "%s %d", r.Value, w.s.prepare)
	out.EndRow(0, pgcopy.Bytea(out.BeginRow(0, 1), value))
	return out.Event("out", r.Key, value, []outbox.Header{{Key: "exactly-source", Value: out.Source()}})
}

// ends is a record that ends the process which handles it. A supervisor starts the next one.
func (w *worker) ends(r *engine.Record) {
	s := w.s
	s.say(w, "ended by a record", int64(r.Partition), r.Offset)
	s.strikeDead(w, false)
	s.at(s.between(10*time.Millisecond, time.Second), nil, nil, func() { s.supervise(w.id) })
}

// supervise starts a process under the id, once there is none: another one that runs under it may be about to end, having been replaced by the dead one.
func (s *sim) supervise(id string) {
	switch {
	case s.closing:
	case s.runs(id):
		s.at(time.Second, nil, nil, func() { s.supervise(id) })
	default:
		s.spawn(id)
	}
}

// logCore writes the engine's log into the trace.
type logCore struct{ w *worker }

func (logCore) Enabled(zapcore.Level) bool          { return true }
func (l logCore) With([]zapcore.Field) zapcore.Core { return l }
func (l logCore) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	return c.AddCore(e, l)
}
func (logCore) Sync() error { return nil }
func (l logCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	s := l.w.s
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logs = append(s.logs, fmt.Sprintf("%-6s   log %s: %s %v", l.w.name(), e.Level, e.Message, enc.Fields))
	return nil
}
