// Package demo owns `exactly demo`: the whole story on a stack of its own, told to somebody who has never used Kafka. Two workers
// process clicks, one is killed at the worst moment, and the audit says whether anything was lost, doubled or altered.
//
// It promises that what it tells is read from the stores while it happens, never assumed; that it touches no stack but its own; and that
// it leaves no process and, unless told to keep them, no file behind, however it ends. It never decides what is right: that is the audit's.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/stack"
)

const (
	// MinClicks is the fewest that make a story: with less, a worker may be done before there is anything to kill.
	MinClicks = 1000
	// DefaultClicks take a quarter of a minute to send.
	DefaultClicks = 50_000

	seed     = 1
	badShare = 0.001 // so that there are some dead letters

	// The first clicks come all at once: the workers have a lot to do, their batches are large, and a kill leaves something to see.
	burstShare = 0.4
	// The others come well below what two cores can do, so that they still arrive while one worker is dead and after it is back.
	clicksPerSecond = 2000
	session         = 3 * time.Second // how long a silent worker keeps its partitions
	// Small, so that there are many transactions to be killed in, also on a slow machine.
	batchRecords = 1000

	startTimeout = 5 * time.Minute  // of the stack: it may have to fetch PostgreSQL over a slow line
	patience     = 60 * time.Second // without anything moving
)

// Options are what a demo can be told.
type Options struct {
	Clicks int64     // how many are generated; at least MinClicks
	Keep   string    // directory to keep everything in, absent or empty; empty: a temporary one that is removed
	Damage bool      // delete one row before the audit, which must then find it
	Out    io.Writer // where the story is told; on a terminal with colours and a line that moves
}

// Result is what happened, for programs.
type Result struct {
	Clean         bool      `json:"clean"`
	Verdict       string    `json:"verdict"`
	Clicks        int64     `json:"clicks"`         // generated
	BadOnPurpose  int64     `json:"bad_on_purpose"` // of these
	FromAccessLog int64     `json:"from_access_log"`
	Killed        Killed    `json:"killed"`
	Takeover      Takeover  `json:"takeover"`
	Restarted     Restarted `json:"restarted"`
	Audit         Counts    `json:"audit"`
	Examples      []Example `json:"examples"`
	Kept          string    `json:"kept,omitempty"` // directory
	TookMs        int64     `json:"took_ms"`
}

// demo is one run.
type demo struct {
	opt     Options
	dir     string
	exe     string
	begun   time.Time
	screen  *screen
	stack   *stack.Stack
	env     map[string]string // settings of the workers
	cfg     config.Config     // the same, read
	db      *pgxpool.Pool
	adm     *admin.Admin
	workers []*worker
	victim  *worker
	owns    map[string][]int32 // worker id to partitions, before the kill
	source  *generation        // where clicks come from now; nil before the first
	damaged string             // what was deleted on purpose
	res     Result
}

// errStopped ends a demo that was asked to.
var errStopped = errors.New("demo: stopped before its end; nothing was left running")

// Run tells the story. An error means that it could not be told to its end; what the audit found is in the result.
func Run(ctx context.Context, o Options) (_ *Result, err error) {
	d := &demo{opt: o, begun: time.Now(), screen: newScreen(o.Out)}
	if d.exe, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("demo: find this program to run it as a worker: %w", err)
	}
	if err := d.makeDir(); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	// A closed terminal or pipe (exactly demo | head) would end us before we have cleaned up.
	ctx, unhook := signal.NotifyContext(ctx, syscall.SIGPIPE, syscall.SIGHUP)
	defer unhook()
	// What is started here ends with the demo, also what the generator has under way.
	inner, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		err = errors.Join(err, d.end(ctx, err))
	}()
	for _, act := range []func(context.Context) error{d.setUp, d.work, d.kill, d.takeOver, d.restart, d.accessLog, d.audit} {
		if err := act(inner); err != nil {
			if ctx.Err() != nil {
				return nil, errStopped
			}
			return nil, fmt.Errorf("demo: %w", err)
		}
	}
	d.res.TookMs = time.Since(d.begun).Milliseconds()
	return &d.res, nil
}

// makeDir makes the directory for everything. One that is kept must be new: the counts of an earlier demo would be in the way.
func (d *demo) makeDir() (err error) {
	if d.opt.Keep == "" {
		d.dir, err = os.MkdirTemp("", "exactly-demo-")
		return err
	}
	if d.dir, err = filepath.Abs(d.opt.Keep); err != nil {
		return err
	}
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return err
	}
	there, err := os.ReadDir(d.dir)
	if err == nil && len(there) > 0 {
		err = fmt.Errorf("%s is not empty: name a new directory to keep the demo in", d.dir)
	}
	d.res.Kept = d.dir
	return err
}

// end leaves nothing running and, unless it is kept, no file. After a failure it first shows what the workers said last.
func (d *demo) end(ctx context.Context, failure error) error {
	d.screen.still()
	if failure != nil && ctx.Err() == nil {
		d.showLogs()
	}
	orderly := failure == nil
	d.screen.progress("stopping the workers and the stack")
	stopWorkers(d.workers, orderly)
	if d.source != nil {
		<-d.source.ended // its context has ended
	}
	if d.adm != nil {
		d.adm.Close()
	}
	if d.db != nil {
		d.db.Close()
	}
	var errs []error
	if d.stack != nil {
		errs = append(errs, d.stack.Stop())
	}
	if d.opt.Keep == "" {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	d.screen.still()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("demo: clean up: %w", err)
	}
	if orderly {
		d.howToGoOn()
	}
	return nil
}

// showLogs is for a person who has to find out what went wrong.
func (d *demo) showLogs() {
	shown := map[string]bool{} // a worker that was started again has one log
	for _, w := range d.workers {
		if shown[w.log] {
			continue
		}
		shown[w.log] = true
		d.screen.say("")
		d.screen.say("the end of %s's log:", w.id)
		for _, line := range strings.Split(strings.TrimSpace(w.tail()), "\n") {
			d.screen.say("  %s", line)
		}
	}
	d.screen.say("")
	if d.opt.Keep != "" {
		d.screen.tell("Everything is in %s.", d.dir)
	} else {
		d.screen.tell("%s is removed; to keep the logs and the data: exactly demo --keep DIR", d.dir)
	}
}

// setUp is the first act.
func (d *demo) setUp(ctx context.Context) error {
	d.screen.title("exactly demo", "every click into Postgres and into Kafka, once each, while a worker is killed")
	d.screen.act(1, "Setup")
	d.screen.progress("starting a Kafka broker, a schema registry and Postgres")
	c, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var err error
	// Nothing here must survive a power failure.
	d.stack, err = stack.Start(c, stack.Options{Dir: filepath.Join(d.dir, "stack"), NoSyncKafka: true, NoSyncPostgres: true, Log: zap.NewNop()})
	if err != nil {
		return err
	}
	d.env = d.stack.Env()
	for k, v := range map[string]string{
		"EXACTLY_GROUP": "exactly", "EXACTLY_HTTP_ADDR": "", "EXACTLY_KAFKA_SESSION_TIMEOUT": session.String(), "EXACTLY_KAFKA_HEARTBEAT_INTERVAL": "300ms",
		"EXACTLY_KAFKA_STABLE_TIMEOUT": "500ms", "EXACTLY_POSTGRES_LOCK_TIMEOUT": "1s", "EXACTLY_BATCH_MAX_RECORDS": fmt.Sprint(batchRecords),
	} {
		d.env[k] = v
	}
	// Only these: a person's own EXACTLY_ settings name other stacks.
	if d.cfg, err = config.Load("", settings(d.env), nil); err != nil {
		return err
	}
	if d.db, err = pgxpool.New(ctx, d.cfg.Postgres.DSN); err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	if d.adm, err = admin.New(&d.cfg, zap.NewNop()); err != nil {
		return err
	}
	return d.provision(ctx)
}
