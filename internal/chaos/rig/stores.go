package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/internal/chaos"
	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/stack/apache"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

// Inject is how each of the rig's faults strikes.
func (r *Rig) Inject() map[chaos.Kind]chaos.Inject {
	return map[chaos.Kind]chaos.Inject{
		BrokerKill: r.broker, BrokerStop: r.broker, BrokerDisk: r.brokerDisk, PGKill: r.postgres, PGStop: r.postgres, PGCopy: r.midCapture, PGCommit: r.midCapture,
		PGSessions: r.sessions, ClockJump: r.clockJumps, PGDisk: r.pgDisk, RegistryOff: r.registry, Net: r.network, EndTxnLost: r.endTxnLost, EndTxnLate: r.endTxnLate, CommitLost: r.commitLost,
	}
}

// playing is the broker that has a part now.
func (r *Rig) playing(ctx context.Context, c *apache.Cluster, part string) (*apache.Broker, error) {
	switch part {
	case "group coordinator":
		return c.GroupCoordinator(ctx, r.cfg.Group)
	case "transaction coordinator":
		return c.TxnCoordinator(ctx, r.cfg.TransactionalID(chaos.WorkerA))
	case "output leader":
		return c.Leader(ctx, r.cfg.Topics.Output, 0)
	default:
		return c.Leader(ctx, r.cfg.Topics.Input, 0)
	}
}

// broker ends the broker that has a part, waits until another one has it, and starts it again.
func (r *Rig) broker(ctx context.Context, c *chaos.Chaos, f *chaos.Fault) error {
	r.kafka.Lock()
	defer r.kafka.Unlock()
	cl := r.stack.Cluster()
	if err := r.whole(ctx, cl); err != nil {
		return fmt.Errorf("the cluster was not whole before: %w", err)
	}
	b, err := r.playing(ctx, cl, f.Detail)
	if err != nil {
		return err
	}
	pid, at := b.PID(), time.Now()
	if f.Kind == BrokerKill {
		b.Kill()
	} else if err := b.Stop(); err != nil {
		return err
	}
	c.Struck(f, at, "", string(f.Kind))
	err = c.Until(ctx, "another broker is "+f.Detail, func() bool {
		once, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		now, err := r.playing(once, cl, f.Detail)
		return err == nil && now != b
	})
	if err == nil {
		err = wait.For(ctx, f.Lasts())
	}
	if err := errors.Join(err, b.Start(ctx)); err != nil {
		return err
	}
	f.Confirmed = fmt.Sprintf("broker %d, process %d, was %s and gone for %.1f s; another one took its place", b.ID(), pid, f.Detail, time.Since(at).Seconds())
	return r.whole(ctx, cl)
}

// postgres ends the server and starts it again.
func (r *Rig) postgres(ctx context.Context, c *chaos.Chaos, f *chaos.Fault) error {
	r.pg.Lock()
	defer r.pg.Unlock()
	return r.restart(ctx, c, f, "")
}

func (r *Rig) restart(ctx context.Context, c *chaos.Chaos, f *chaos.Fault, when string) error {
	pid, at := r.stack.PostgresPID(), time.Now()
	how := "immediate shutdown"
	if f.Kind == PGKill {
		how = "SIGKILL"
		r.stack.KillPostgres()
	}
	f.Standstill = true
	c.Struck(f, at, "", string(f.Kind))
	if f.Kind == PGKill {
		if err := wait.For(ctx, f.Lasts()); err != nil {
			return err
		}
	}
	if err := r.stack.RestartPostgres(ctx); err != nil {
		return err
	}
	now := r.stack.PostgresPID()
	if now == pid {
		return errors.New("the server has the same process id as before: it was not restarted")
	}
	f.Confirmed = fmt.Sprintf("process %d ended by %s%s, %d is there after %.1f s", pid, how, when, now, time.Since(at).Seconds())
	return nil
}

// midCapture stops Postgres while a worker is in the middle of a capture: all rows copied, or COMMIT sent and its answer unread.
func (r *Rig) midCapture(ctx context.Context, c *chaos.Chaos, f *chaos.Fault) error {
	r.pg.Lock()
	defer r.pg.Unlock()
	f.Point, f.Detail = failpoint.CaptureCopied, ""
	action := "hold@3"
	if f.Kind == PGCommit {
		f.Point, action = failpoint.CaptureCommitSent, "stop@3" // beside the call: a hold would hold nothing
	}
	w, err := c.Replace(f.Worker, f.Client, "EXACTLY_FAILPOINT="+f.Point+"="+action)
	if err != nil {
		return err
	}
	if err := c.Until(ctx, "the worker is at "+f.Point, func() bool { return w.Hit(f.Point) }); err != nil {
		return err
	}
	err = r.restart(ctx, c, f, " with worker "+w.ID+" at "+f.Point)
	w.Signal(syscall.SIGCONT)
	return errors.Join(err, w.Release(f.Point))
}

// sessions ends every session of every worker.
func (r *Rig) sessions(ctx context.Context, c *chaos.Chaos, f *chaos.Fault) error {
	r.pg.Lock()
	defer r.pg.Unlock()
	conn, err := pgx.Connect(ctx, r.stack.DSN())
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing left to lose
	var n int
	err = c.Until(ctx, "there are sessions to terminate", func() bool {
		at := time.Now()
		if conn.QueryRow(ctx, `SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE $1`,
			"exactly/"+r.cfg.Group+"/%").Scan(&n) != nil || n == 0 {
			return false
		}
		c.Struck(f, at, fmt.Sprintf("%d sessions terminated", n), string(f.Kind))
		return true
	})
	return err
}

// registry is away for a while: the schemas are known, so that nothing stands still, and who starts meanwhile waits for it.
func (r *Rig) registry(ctx context.Context, c *chaos.Chaos, f *chaos.Fault) error {
	at := time.Now()
	_, stored, _ := c.Last().Sums()
	r.reg.Stop()
	c.Struck(f, at, "", string(f.Kind))
	err := wait.For(ctx, f.Lasts())
	refused := errors.New("it was not away")
	if conn, derr := net.DialTimeout("tcp", r.reg.Listen, time.Second); derr != nil {
		refused = nil
	} else {
		_ = conn.Close() // it is there
	}
	if err == nil {
		err = c.Until(ctx, "clicks are captured without the registry", func() bool { _, now, _ := c.Last().Sums(); return now > stored })
	}
	_, now, _ := c.Last().Sums()
	if err := errors.Join(err, refused, r.reg.Start()); err != nil {
		return err
	}
	f.Confirmed = fmt.Sprintf("connections refused for %.1f s; %d clicks captured meanwhile", time.Since(at).Seconds(), now-stored)
	return nil
}

// network strikes the way between WorkerN and one of the stores.
func (r *Rig) network(ctx context.Context, c *chaos.Chaos, f *chaos.Fault) error {
	store, name, _ := strings.Cut(f.Detail, ": ")
	ps := []*proxy{r.net.postgres}
	if store == "Kafka" {
		ps = r.net.kafka
	}
	for _, t := range troubles {
		if t.name != name {
			continue
		}
		var seen string
		err := errNothing
		for tried := 0; tried < 4 && errors.Is(err, errNothing); tried++ { // the worker may have had no connection for what else was broken
			if err := r.networked(ctx, c, f); err != nil {
				return err
			}
			broken := "network of " + WorkerN
			if tried > 0 {
				broken = "" // still
			}
			c.Struck(f, time.Now(), "", broken)
			seen, err = t.strike(ctx, ps, f.Lasts())
		}
		if err != nil {
			return err
		}
		f.Confirmed = fmt.Sprintf("for %v: %s", f.Lasts(), seen)
		return nil
	}
	return fmt.Errorf("no such trouble: %s", name)
}

var consuming = regexp.MustCompile(`\tconsuming\t`)

// networked waits until WorkerN has something to do, with the client the fault asks for. The rows may still name it for what it was before it was
// started again: a process that has only just begun has no connection that could be struck.
func (r *Rig) networked(ctx context.Context, c *chaos.Chaos, f *chaos.Fault) error {
	if w := c.WorkerOf(WorkerN); !w.Running() || f.Client != "" && w.Client != f.Client {
		w, err := c.Replace(WorkerN, f.Client)
		if err != nil {
			return err
		}
		from := w.LogSize()
		if err := c.Until(ctx, WorkerN+" consumes", func() bool { return w.Says(consuming, from) || !w.Running() }); err != nil {
			return err
		}
	}
	return c.Until(ctx, WorkerN+" has partitions", func() bool {
		for _, p := range c.Last().Positions {
			if p.Worker == WorkerN {
				return true
			}
		}
		return false
	})
}
