package chaos

import (
	"context"
	"strconv"
	"time"

	"github.com/exactly-pipeline/exactly/clicks"
	"github.com/exactly-pipeline/exactly/schema"
)

// badShare of the clicks are broken on purpose, so that there are dead letters.
const badShare = 0.002

// load is the generator at work: paced while the schedule lasts, then as fast as it goes.
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
	registry, err := schema.NewRegistry(c.cfg.Registry.URL)
	if err != nil {
		return err
	}
	id, err := clicks.RegisterClick(ctx, registry, c.cfg.Topics.Input, schema.ClickAvsc, func(string) {})
	registry.Close()
	if err != nil {
		return err
	}
	paced, hurry := context.WithCancel(ctx)
	l := &load{hurry: hurry, ended: make(chan struct{})}
	c.load = l
	source := clicks.Made{Generator: clicks.NewGenerator(clicks.GeneratorConfig{Seed: c.opt.Seed, BadShare: badShare, Live: true})}
	one := func(ctx context.Context, rate float64, count int64) error {
		got, err := clicks.Generate(ctx, clicks.GenerateConfig{
			Brokers: c.cfg.Kafka.Brokers, Topic: c.cfg.Topics.Input, SchemaID: id, Source: source, Rate: rate, Count: count, StopTimeout: c.opt.Limit,
			Say: func(s string) { c.say("generator: %s", s) },
		})
		l.sent += got.Acknowledged
		l.invalid += got.Invalid
		return err
	}
	go func() {
		defer close(l.ended)
		defer hurry()
		l.err = one(paced, float64(c.opt.Clicks)/c.opt.Pace.Seconds(), c.opt.Clicks)
		if left := c.opt.Clicks - l.sent; l.err == nil && left > 0 && ctx.Err() == nil {
			c.say("the schedule has ended: the other %d clicks at once", left)
			l.err = one(ctx, 0, left)
		}
	}()
	return nil
}

// some sends a few clicks at once, beside the others.
func (c *Chaos) some(ctx context.Context, n int64) error {
	registry, err := schema.NewRegistry(c.cfg.Registry.URL)
	if err != nil {
		return err
	}
	defer registry.Close()
	id, err := clicks.RegisterClick(ctx, registry, c.cfg.Topics.Input, schema.ClickAvsc, func(string) {})
	if err != nil {
		return err
	}
	_, err = clicks.Generate(ctx, clicks.GenerateConfig{
		Brokers: c.cfg.Kafka.Brokers, Topic: c.cfg.Topics.Input, SchemaID: id, Count: n, StopTimeout: c.opt.Limit,
		Source: clicks.Made{Generator: clicks.NewGenerator(clicks.GeneratorConfig{Seed: c.opt.Seed + 1, BadShare: badShare, Live: true})},
	})
	return err
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
