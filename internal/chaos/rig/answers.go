package rig

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/exactly-pipeline/exactly/internal/chaos"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

// first arms the taps and waits for the first at which the moment comes; the others are disarmed.
func (r *Rig) first(ctx context.Context, c *chaos.Chaos, f *chaos.Fault, ps []*proxy, m mode) (*proxy, error) {
	if err := r.networked(ctx, c, f); err != nil {
		return nil, err
	}
	came := make(chan *proxy, len(ps))
	done := make(chan struct{})
	defer close(done)
	for _, p := range ps {
		moved := p.tap.expect(m)
		go func() {
			select {
			case <-moved:
				came <- p
			case <-done:
			}
		}()
	}
	var got *proxy
	select {
	case got = <-came:
	case <-time.After(time.Minute):
	case <-ctx.Done():
	}
	for _, p := range ps {
		if p != got {
			p.tap.letGo()
		}
	}
	if got == nil {
		return nil, errors.New("the moment did not come")
	}
	return got, nil
}

// lose has an answer swallowed, and the connection cut a moment later.
func (r *Rig) lose(ctx context.Context, c *chaos.Chaos, f *chaos.Fault, ps []*proxy, m mode, what string) error {
	p, err := r.first(ctx, c, f, ps, m)
	if err != nil {
		return err
	}
	c.Struck(f, time.Now(), "", "network of "+WorkerN)
	err = wait.For(ctx, 300*time.Millisecond) // for the server to have done what it was asked to
	closed := p.tap.closed.Load()
	if err := errors.Join(err, p.cut()); err != nil {
		return err
	}
	p.tap.letGo()
	f.Confirmed = fmt.Sprintf("%s at %s, the connections behind it cut (%d before)", what, p.Name[len(p.Name)-8:], closed)
	return nil
}

func (r *Rig) endTxnLost(ctx context.Context, c *chaos.Chaos, f *chaos.Fault) error {
	return r.lose(ctx, c, f, r.net.kafka, loseEndTxn, "EndTxn seen on its way to the broker, its answer swallowed")
}

func (r *Rig) commitLost(ctx context.Context, c *chaos.Chaos, f *chaos.Fault) error {
	return r.lose(ctx, c, f, []*proxy{r.net.postgres}, loseCommit, "COMMIT answered by Postgres, the answer swallowed")
}

var renewed = regexp.MustCompile(`new producer ready`)

// endTxnLate keeps an EndTxn back until the worker has given up, has a new producer and publishes again. Delivered then, it must end nothing.
func (r *Rig) endTxnLate(ctx context.Context, c *chaos.Chaos, f *chaos.Fault) error {
	p, err := r.first(ctx, c, f, r.net.kafka, holdEndTxn)
	if err != nil {
		return err
	}
	w := c.WorkerOf(WorkerN)
	defer p.tap.letGo()
	at, from := time.Now(), w.LogSize()
	c.Struck(f, at, "", "network of "+WorkerN)
	if err := c.Until(ctx, "the worker has given up and has a new producer", func() bool { return w.Says(renewed, from) }); err != nil {
		return err
	}
	gave := time.Since(at)
	if err := r.networked(ctx, c, f); err != nil {
		return err
	}
	_, _, published := c.Last().Sums()
	if err := c.Until(ctx, "clicks are published again", func() bool { _, _, now := c.Last().Sums(); return now > published }); err != nil {
		return err
	}
	p.tap.letGo()
	f.Confirmed = fmt.Sprintf("EndTxn kept back; the worker gave up and had a new producer after %.1f s; delivered after %.1f s", gave.Seconds(), time.Since(at).Seconds())
	return nil
}
