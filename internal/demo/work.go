package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/clicks"
	"github.com/exactly-pipeline/exactly/internal/connect"
	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/provision"
)

const (
	victim   = "worker-1"
	survivor = "worker-2"

	lookEvery = 100 * time.Millisecond

	// strikeAt is the transaction the victim dies in. The first are small; the fifth is in the burst's full swing, on any machine.
	strikeAt = 5
)

// provision is what `exactly setup` does.
func (d *demo) provision(ctx context.Context) error {
	if _, err := provision.Setup(ctx, &d.cfg, provision.Options{Log: zap.NewNop()}); err != nil {
		return err
	}
	t := d.cfg.Topics
	d.screen.tell("Started: a Kafka broker, a schema registry and PostgreSQL, for this demo only, in %s.", d.dir)
	d.screen.tell("Made in Kafka, with %d partitions each: the topics %s, where clicks come in; %s, where they go out, each with its country; and %s, "+
		"for clicks that cannot be read.", t.Partitions, t.Input, t.Output, t.DLQ)
	d.screen.tell("Made in Postgres: tables for the same clicks as rows, for dead letters, for what Kafka is still owed, and for how far each partition is.")
	return nil
}

// generation is a generator at work.
type generation struct {
	ended chan struct{}
	// Set before ended is closed:
	sent    int64 // acknowledged
	invalid int64 // of these, on purpose
	err     error
}

// failed is the generator's error, nil while it works and if all went well.
func (g *generation) failed() error {
	if g == nil || !g.over() {
		return nil
	}
	return g.err
}

func (g *generation) over() bool {
	select {
	case <-g.ended:
		return true
	default:
		return false
	}
}

// phase is some of a source's clicks, at one rate.
type phase struct {
	rate  float64 // clicks a second; 0: as fast as it goes
	count int64   // 0: all
}

// generate is what `exactly generate` does, beside what follows.
func (d *demo) generate(ctx context.Context, source clicks.Source, phases ...phase) error {
	how, err := connect.Generator(ctx, &d.cfg, func(string) {})
	if err != nil {
		return err
	}
	how.Source, how.StopTimeout = source, time.Second
	g := &generation{ended: make(chan struct{})}
	d.source = g
	go func() {
		defer close(g.ended)
		for _, p := range phases {
			how.Rate, how.Count = p.rate, p.count
			got, err := clicks.Generate(ctx, how)
			g.sent += got.Acknowledged
			g.invalid += got.Invalid
			if g.err = err; err != nil || got.Stopped {
				return
			}
		}
	}()
	return nil
}

// work is the second act: two workers, and clicks for them.
func (d *demo) work(ctx context.Context) (err error) {
	d.screen.act(2, "Two workers, and clicks for them")
	var armed []string
	if failpoint.Enabled {
		armed = []string{fmt.Sprintf("EXACTLY_FAILPOINT=%s=kill@%d", point, strikeAt)}
	}
	if d.victim, err = d.start(victim, armed...); err != nil {
		return err
	}
	if _, err = d.start(survivor); err != nil {
		return err
	}
	err = d.until(ctx, lookEvery, "     waiting for the workers to share the partitions", func(counts) (bool, error) {
		return d.shared(ctx, victim, survivor)
	})
	if err != nil {
		return err
	}
	if d.owns, err = d.owners(ctx); err != nil {
		return err
	}
	for _, w := range d.workers {
		d.screen.say("%s, process %d, has partitions %s", w.id, w.pid(), list(d.owns[w.id]))
	}
	burst := int64(burstShare * float64(d.opt.Clicks))
	d.screen.tell("Now %s made-up clicks: %s at once, then %s a second; one in %d is broken on purpose. A worker writes each batch of clicks into Postgres first, in one "+
		"transaction, and then into Kafka, in another one.", number(d.opt.Clicks), number(burst), number(clicksPerSecond), int(1/badShare))
	d.victim.mayDie = true
	source := clicks.Made{Generator: clicks.NewGenerator(clicks.GeneratorConfig{Seed: seed, BadShare: badShare})}
	return d.generate(ctx, source, phase{0, burst}, phase{clicksPerSecond, d.opt.Clicks - burst})
}

// restart is the fourth act: the killed worker comes back, and all is processed.
func (d *demo) restart(ctx context.Context) error {
	d.screen.act(4, victim+" is started again")
	begun := time.Now()
	w, err := d.start(victim)
	if err != nil {
		return err
	}
	err = d.until(ctx, lookEvery, "", func(counts) (bool, error) { return d.shared(ctx, victim, survivor) })
	if err != nil {
		return err
	}
	own, err := d.owners(ctx)
	if err != nil {
		return err
	}
	d.res.Restarted = Restarted{Worker: w.id, PID: w.pid(), Partitions: own[w.id], TookMs: time.Since(begun).Milliseconds()}
	d.screen.tell("After %s it works again, as process %d, on partitions %s.", seconds(time.Since(begun)), w.pid(), list(own[w.id]))
	if err := d.settle(ctx); err != nil {
		return err
	}
	g := d.source
	d.res.Clicks, d.res.BadOnPurpose = g.sent, g.invalid
	d.screen.tell("All %s clicks are processed. (%d of them were broken on purpose: they are dead letters.)", number(g.sent), g.invalid)
	return nil
}

// settle waits until the generator is done and all it sent is in both stores.
func (d *demo) settle(ctx context.Context) error {
	return d.until(ctx, lookEvery, "", func(c counts) (bool, error) {
		return d.source.over() && d.source.err == nil && c.done() && c.sent >= d.source.sent, d.source.failed()
	})
}

// accessLog is the fifth act: what is not made up goes the same way.
func (d *demo) accessLog(ctx context.Context) error {
	d.screen.act(5, "A web server's log")
	path := filepath.Join(d.dir, "access.log")
	if err := os.WriteFile(path, clicks.SampleAccessLog, 0o644); err != nil {
		return err
	}
	lines, err := clicks.OpenLines(clicks.FromConfig{Path: path, BaseURL: siteURL})
	if err != nil {
		return err
	}
	defer lines.Close() //nolint:errcheck // read only
	before, err := d.counts(ctx)
	if err != nil {
		return err
	}
	if err := d.generate(ctx, lines, phase{}); err != nil {
		return err
	}
	if err := d.settle(ctx); err != nil {
		<-d.source.ended // it reads what is about to be closed
		return err
	}
	after, err := d.counts(ctx)
	if err != nil {
		return err
	}
	g := d.source
	if after.sent-before.sent != g.sent {
		return fmt.Errorf("%d clicks of the access log were sent, %d arrived", g.sent, after.sent-before.sent)
	}
	d.res.FromAccessLog = g.sent
	d.screen.tell("Not made up: %d lines that a real nginx logged, read and sent as exactly generate --from access.log does. They are processed too.", g.sent)
	return nil
}
