package rig

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/exactly-pipeline/exactly/internal/chaos"
	"github.com/exactly-pipeline/exactly/internal/stack/apache"
	"github.com/exactly-pipeline/exactly/internal/transactions"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

// clockFile says in a broker's folder by how many seconds its wall clock is off, 8 bytes. The monotonic clock is left alone: that one does not jump.
const clockFile = "clock"

//go:embed clock/clock.c
var clockC []byte

// clocks gives every broker a wall clock of its own. libfaketime would, too, but a JVM under it spins: it meddles with timed waits.
func (r *Rig) clocks(ctx context.Context, o *apache.Options) error {
	lib := filepath.Join(r.opt.Dir, "clock.so")
	cc := exec.CommandContext(ctx, cmp.Or(os.Getenv("CC"), "cc"), "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-x", "c", "-o", lib, "-", "-ldl")
	cc.Stdin = bytes.NewReader(clockC)
	if out, err := cc.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the clock that jumps: %w: %s", err, out)
	}
	for i := range o.Brokers {
		dir := r.brokerDir(i)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := setClock(dir, 0); err != nil {
			return err
		}
	}
	o.Env = append(o.Env, "LD_PRELOAD="+lib)
	return nil
}

// setClock writes in place: brokers have the file mapped.
func setClock(dir string, off time.Duration) error {
	f, err := os.OpenFile(filepath.Join(dir, clockFile), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(int64(off.Seconds()))), 0)
	return errors.Join(err, f.Close())
}

// clockJumps has the wall clock of a transaction coordinator jump. It struck once a transaction has begun at the wrong time. The broker is started
// again with the right one, as whoever has to mend this would: by the clock's jump back alone, Kafka's own timers stand for as long as it was ahead.
// What was begun in that future and not ended since is aborted, as `exactly txn abort` does: its timeout comes when the future is there.
func (r *Rig) clockJumps(ctx context.Context, c *chaos.Chaos, f *chaos.Fault) (err error) {
	r.kafka.Lock()
	defer r.kafka.Unlock()
	cl := r.stack.Cluster()
	if err := r.whole(ctx, cl); err != nil {
		return err
	}
	b, err := cl.TxnCoordinator(ctx, r.cfg.TransactionalID(WorkerN))
	if err != nil {
		return err
	}
	off := time.Hour
	if f.Detail == back {
		off = -10 * time.Second // a broker's own timers stand still for as long
	}
	dir := r.brokerDir(b.ID())
	defer func() {
		b.Kill()
		err = errors.Join(err, setClock(dir, 0), b.Start(ctx))
		if err == nil {
			err = r.whole(ctx, cl)
		}
		if err == nil && off > 0 {
			err = r.endForgotten(ctx, c, f)
		}
	}()
	at := time.Now()
	if err := setClock(dir, off); err != nil {
		return err
	}
	var began time.Time
	err = c.Until(ctx, "a transaction has begun at the wrong time", func() bool {
		for _, id := range []string{WorkerN, chaos.WorkerA, chaos.WorkerB, chaos.WorkerZ} {
			txns, err := c.Admin().Kadm().DescribeTransactions(ctx, r.cfg.TransactionalID(id))
			if err != nil {
				continue
			}
			for _, t := range txns {
				began = time.UnixMilli(t.StartTimestamp)
				if d := time.Until(began); t.StartTimestamp > 0 && (d-off).Abs() < off.Abs()/2 {
					return true
				}
			}
		}
		return false
	})
	if err != nil {
		return err
	}
	c.Struck(f, at, "", "a broker's clock")
	if err := wait.For(ctx, f.Lasts()); err != nil {
		return err
	}
	f.Confirmed = fmt.Sprintf("broker %d's clock was off by %v for %.1f s; a transaction began at %s by it", b.ID(), off, time.Since(at).Seconds(), began.UTC().Format(time.TimeOnly))
	return nil
}

// endForgotten aborts the transactions that began in the future, if they have not ended within a worker's session: nobody is at work on them.
func (r *Rig) endForgotten(ctx context.Context, c *chaos.Chaos, f *chaos.Fault) error {
	desk := transactions.New(&r.cfg, c.Admin())
	open := func() (map[string]transactions.Transaction, error) {
		list, err := desk.List(ctx, transactions.Options{})
		if err != nil {
			return nil, err
		}
		ahead := map[string]transactions.Transaction{}
		for _, t := range list.Transactions {
			if t.AheadMs != nil && t.ID != "" {
				ahead[t.ID] = t
			}
		}
		return ahead, nil
	}
	before, err := open()
	if err != nil || len(before) == 0 {
		return err
	}
	if err := wait.For(ctx, 2*Session); err != nil {
		return err
	}
	after, err := open()
	if err != nil {
		return err
	}
	for id, is := range after {
		was, there := before[id]
		if !there || was.ProducerEpoch != is.ProducerEpoch || !was.StartedAt.Equal(*is.StartedAt) {
			continue // another one
		}
		plan, err := desk.Plan(ctx, transactions.Target{ID: id})
		if err == nil {
			_, err = desk.Abort(ctx, plan)
		}
		var over *transactions.RefusedError
		if errors.As(err, &over) {
			continue // it has ended by itself
		}
		if err != nil {
			return err
		}
		f.Confirmed += fmt.Sprintf("; %s had left a transaction open that began in that future: aborted by hand", id)
	}
	return nil
}
