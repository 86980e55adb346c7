package chaos

import (
	"context"
	"strconv"
	"time"

	"github.com/exactly-pipeline/exactly/clicks"
	"github.com/exactly-pipeline/exactly/internal/connect"
)

// badShare of the clicks are broken on purpose, so that there are dead letters.
const badShare = 0.002

// load is the generator at work: paced while the schedule lasts, however long that is, since a fault shows nothing where nothing flows;
// then, as fast as it goes, what is left of the clicks asked for.
type load struct {
	hurry func() // the schedule has ended
	ended chan struct{}
	// Set before ended is closed:
	sent, invalid int64
	err           error
}

// generate starts the clicks.
func (c *Chaos) generate(ctx context.Context) error {
	if c.opt.Clicks == 0 {
		return nil
	}
	how, err := c.generator(ctx, c.opt.Seed, func(s string) { c.say("generator: %s", s) })
	if err != nil {
		return err
	}
	paced, hurry := context.WithCancel(ctx)
	l := &load{hurry: hurry, ended: make(chan struct{})}
	c.load = l
	one := func(ctx context.Context, rate float64, count int64) error {
		how.Rate, how.Count = rate, count
		got, err := clicks.Generate(ctx, how)
		l.sent += got.Acknowledged
		l.invalid += got.Invalid
		return err
	}
	go func() {
		defer close(l.ended)
		defer hurry()
		l.err = one(paced, float64(c.opt.Clicks)/c.opt.Pace.Seconds(), 0)
		if left := c.opt.Clicks - l.sent; l.err == nil && left > 0 && ctx.Err() == nil {
			c.say("the schedule has ended: the other %d clicks at once", left)
			l.err = one(ctx, 0, left)
		}
	}()
	return nil
}

// some sends a few clicks at once, beside the others.
func (c *Chaos) some(ctx context.Context, n int64) error {
	how, err := c.generator(ctx, c.opt.Seed+1, func(string) {})
	if err != nil {
		return err
	}
	how.Count = n
	_, err = clicks.Generate(ctx, how)
	return err
}

// generator makes clicks from a seed, with the run's patience.
func (c *Chaos) generator(ctx context.Context, seed uint64, say func(string)) (clicks.GenerateConfig, error) {
	how, err := connect.Generator(ctx, &c.cfg, say)
	how.Source = clicks.Made{Generator: clicks.NewGenerator(clicks.GeneratorConfig{Seed: seed, BadShare: badShare, Live: true})}
	how.StopTimeout = c.opt.Limit
	return how, err
}

// generated waits for the last click.
func (l *load) generated(ctx context.Context) error {
	if l == nil {
		return nil
	}
	l.hurry()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-l.ended:
		return l.err
	}
}

func itoa(p int32) string { return strconv.Itoa(int(p)) }

func itoa64(n int64) string { return strconv.FormatInt(n, 10) }

// quiet is how long nothing may move before it is taken for done.
const quiet = 3 * time.Second
