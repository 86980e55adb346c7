// Package chaos owns a run of faults against real worker processes: a seeded schedule of kills, stops and whatever else the caller can break,
// clicks flowing meanwhile, and the audit's verdict at the end, with a report that a person can file.
//
// It promises that every fault it counts was seen to strike, that recovery is measured from the stores and not from what workers say, that
// work is drained to the stable end of the log and never to a count, and that what could not be decided is called so. It never repairs
// anything, never judges the data itself (that is the audit's), and strikes no process but those it started.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

// Options say what a run is made of.
type Options struct {
	Exe        string            // the program, run as workers; built with failpoints if the schedule has any
	Env        map[string]string // settings of the workers and of what looks at the stores; nothing else named EXACTLY_ reaches them
	Dir        string            // for the workers' logs and marks; there already
	Seed       uint64            // of the schedule and of the clicks
	Clicks     int64             // to be generated, at least; 0: none, somebody else sends them
	Pace       time.Duration     // so many in this time, for as long as the schedule lasts; what is left then is sent at once. 0: a minute
	Schedule   []Fault           // what happens; see Plan
	Inject     map[Kind]Inject   // how further kinds strike; those of workers are known
	WorkerEnv  map[string]string // further settings by worker id, as NAME=VALUE lines
	Versions   []Version         // for the report
	What       string            // names the stack, for the report
	Limit      time.Duration     // within which each fault must have struck, and then have been recovered from; else it is stuck. 0: 2 minutes
	Takeover   time.Duration     // the bar for takeovers at p99, beside the session timeout; 0: 3s
	Out        io.Writer         // what happens, a line each
	BeforeEnd  func(context.Context) error
	Partitions int // of the input at the start; 0: as configured
}

// Version is what took part.
type Version struct{ Name, Version string }

// Inject strikes. It returns once the fault is over (healed), having confirmed it by Fault.Struck; the caller then awaits the recovery.
type Inject func(ctx context.Context, c *Chaos, f *Fault) error

// Chaos is one run.
type Chaos struct {
	opt   Options
	cfg   config.Config
	db    *pgxpool.Pool
	adm   *admin.Admin
	watch *watch
	begun time.Time

	mu      sync.Mutex
	workers map[string]*Worker
	faults  []*Fault
	spans   []span // when anything was struck
	notes   []string
	load    *load
	out     sync.Mutex
}

// span is a time during which something was broken.
type span struct {
	from, to time.Time     // to is zero while it lasts
	glow     time.Duration // how long it still tells after that
	what     string
}

// Run starts the workers, lets the schedule strike, waits until all is done and audits. The report says what was found; an error means that
// the run could not be done to its end, and the report, if any, tells how far it came.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	if o.Limit == 0 {
		o.Limit = 2 * time.Minute
	}
	if o.Takeover == 0 {
		o.Takeover = 3 * time.Second
	}
	if o.Pace == 0 {
		o.Pace = time.Minute
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	c := &Chaos{opt: o, workers: map[string]*Worker{}, begun: time.Now()}
	if err := c.open(ctx); err != nil {
		return nil, fmt.Errorf("chaos: %w", err)
	}
	defer c.db.Close()
	defer c.adm.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer c.endWorkers()
	watched := make(chan struct{})
	go func() { defer close(watched); c.watch.run(ctx) }()
	defer func() { cancel(); <-watched }()

	c.say("seed %d", o.Seed)
	for i, f := range o.Schedule {
		c.say("planned %3d  %-10s %s", i+1, f.Lane, f.plan())
	}
	if err := c.startWorkers(ctx); err != nil {
		return nil, fmt.Errorf("chaos: %w", err)
	}
	if err := c.generate(ctx); err != nil {
		return nil, fmt.Errorf("chaos: %w", err)
	}
	c.runLanes(ctx)
	if o.BeforeEnd != nil {
		if err := o.BeforeEnd(ctx); err != nil {
			c.note("not everything could be healed: %v", err)
		}
	}
	rep := c.settle(ctx)
	if ctx.Err() != nil {
		return rep, errors.New("chaos: stopped before its end; the workers it started are gone")
	}
	return rep, nil
}

func (c *Chaos) open(ctx context.Context) (err error) {
	if c.cfg, err = config.Load("", pairs(c.opt.Env), nil); err != nil {
		return err
	}
	if c.opt.Partitions == 0 {
		c.opt.Partitions = c.cfg.Topics.Partitions
	}
	if c.db, err = pgxpool.New(ctx, c.cfg.Postgres.DSN); err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	if c.adm, err = admin.New(&c.cfg, zap.NewNop()); err != nil {
		return err
	}
	c.watch = newWatch(c)
	return os.MkdirAll(filepath.Join(c.opt.Dir, "marks"), 0o755)
}

// runLanes runs the lanes side by side, the faults of each one after the other. Calm faults come one at a time; everything else begins when
// the last of them is over.
func (c *Chaos) runLanes(ctx context.Context) {
	lanes := map[string][]*Fault{}
	var order []string
	for i := range c.opt.Schedule {
		f := c.opt.Schedule[i]
		f.N = i + 1
		c.faults = append(c.faults, &f)
		if lanes[f.Lane] == nil {
			order = append(order, f.Lane)
		}
		lanes[f.Lane] = append(lanes[f.Lane], &f)
	}
	var wg, calm sync.WaitGroup
	one := make(chan struct{}, 1)
	for _, f := range c.faults {
		if f.Calm {
			calm.Add(1)
		}
	}
	for _, name := range order {
		wg.Go(func() {
			for _, f := range lanes[name] {
				if f.Calm {
					one <- struct{}{}
				} else {
					calm.Wait()
				}
				if wait.For(ctx, f.After) == nil {
					c.strike(ctx, f)
				}
				if f.Calm {
					<-one
					calm.Done()
				}
			}
		})
	}
	wg.Wait()
}

// strike has one fault happen and awaits the recovery. What goes wrong is noted in the fault; the run goes on.
func (c *Chaos) strike(ctx context.Context, f *Fault) {
	inject := c.opt.Inject[f.Kind]
	if inject == nil {
		inject = workerFaults[f.Kind]
	}
	if inject == nil {
		f.fail("nobody knows how to do that")
		return
	}
	limited, cancel := context.WithTimeout(ctx, 2*c.opt.Limit)
	defer cancel()
	err := inject(limited, c, f)
	if err == nil && f.at.IsZero() {
		err = errors.New("it did not strike")
	}
	if err != nil {
		if ctx.Err() == nil {
			f.fail("%v", err)
			c.say("fault %3d  %s: %s", f.N, f.plan(), f.Failed)
		}
		c.closeSpan(f)
		return
	}
	c.closeSpan(f)
	c.awaitRecovery(limited, f)
	if ctx.Err() != nil {
		return
	}
	c.overlaps(f)
	c.say("fault %3d  %s: %s", f.N, f.plan(), f.outcome())
}

// Struck notes that the fault has struck, when, and how that is known. For faults of stores and of the network: what is broken until the
// injection returns; empty: a worker.
func (c *Chaos) Struck(f *Fault, at time.Time, confirmed, broken string) {
	f.at, f.Confirmed, f.AtMs = at, confirmed, at.Sub(c.begun).Milliseconds()
	f.before = c.watch.at(at)
	glow := afterglow
	if broken == "" {
		broken, glow = string(f.Kind), 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.span > 0 { // struck before, as one that takes two kills: what was broken then is so until now
		c.spans[f.span-1].to = at
	}
	c.spans = append(c.spans, span{from: at, glow: glow, what: fmt.Sprintf("%d: %s", f.N, broken)})
	f.span = len(c.spans)
}

func (c *Chaos) closeSpan(f *Fault) {
	if f.at.IsZero() {
		return
	}
	now := time.Now()
	f.healed = c.watch.last()
	f.HealedMs = now.Sub(c.begun).Milliseconds()
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.span > 0 {
		c.spans[f.span-1].to = now
	}
}

// overlaps notes what else was broken while the fault was being recovered from, or shortly before: a takeover then takes what that takes. A
// worker that dies while the group is at work on another's death is waited for as well, for a session more.
func (c *Chaos) overlaps(f *Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	end := f.at.Add(time.Duration(f.TookMs) * time.Millisecond)
	for i, s := range c.spans {
		if i+1 != f.span && s.from.Before(end) && (s.to.IsZero() || s.to.Add(s.glow).After(f.at)) {
			f.Beside = append(f.Beside, s.what)
		}
	}
}

// afterglow is how long a store that is back still makes others slow: leaders move back, sessions are made anew.
const afterglow = 3 * time.Second

func (c *Chaos) say(format string, a ...any) {
	c.out.Lock()
	defer c.out.Unlock()
	fmt.Fprintf(c.opt.Out, "%7.1f s  %s\n", time.Since(c.begun).Seconds(), fmt.Sprintf(format, a...))
}

func (c *Chaos) note(format string, a ...any) {
	c.say("note: "+format, a...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.notes = append(c.notes, fmt.Sprintf(format, a...))
}

func pairs(env map[string]string) []string {
	var out []string
	for k, v := range env {
		out = append(out, k+"="+v)
	}
	return out
}
