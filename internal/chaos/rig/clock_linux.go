package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/exactly-pipeline/exactly/internal/chaos"
	"github.com/exactly-pipeline/exactly/internal/stack/apache"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

// clockFile says in a broker's folder by how many seconds its wall clock is off. The monotonic clock is left alone: that one does not jump.
const clockFile = "clock"

// clocks gives every broker a wall clock of its own, by libfaketime, which reads the file anew every second.
func (r *Rig) clocks(o *apache.Options) error {
	found, err := filepath.Glob("/usr/lib*/*/faketime/libfaketimeMT.so.1")
	if err != nil || len(found) == 0 {
		return errors.Join(err, errors.New("libfaketime is missing, by which a broker's clock jumps: apt-get install libfaketime"))
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
	o.Env = append(o.Env, "LD_PRELOAD="+found[0], "FAKETIME_TIMESTAMP_FILE="+clockFile, "FAKETIME_CACHE_DURATION=1",
		"FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1")
	return nil
}

func setClock(dir string, off time.Duration) error {
	return os.WriteFile(filepath.Join(dir, clockFile), fmt.Appendf(nil, "%+d\n", int64(off.Seconds())), 0o600)
}

// clockJumps has the wall clock of a transaction coordinator jump, and jump back. It struck once a transaction has begun at the wrong time.
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
		off = -off
	}
	dir := r.brokerDir(b.ID())
	defer func() { err = errors.Join(err, setClock(dir, 0)) }()
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
				if d := began.Sub(at); t.StartTimestamp > 0 && (d-off).Abs() < 10*time.Minute {
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
