package clicks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/wait"
	"github.com/exactly-pipeline/exactly/schema"
)

// GenerateConfig is one run of the generator: which clicks, how many and how fast, and where to.
type GenerateConfig struct {
	Brokers     string        // host:port, comma separated
	Topic       string        // must exist
	SchemaID    int           // of Click in the registry
	Source      Source        // which clicks
	Rate        float64       // clicks a second; 0: as fast as it goes
	Count       int64         // clicks in all; 0: until the source ends or ctx does
	StopTimeout time.Duration // how long, once ctx has ended, unacknowledged clicks are waited for; 0: 8 s
	Debug       string        // librdkafka debug contexts
	Security    *config.Kafka // TLS and SASL; nil: none
	Say         func(string)  // told what a person should know: a broker that is away, and that it is back. May be nil
	// Probe asks a broker for anything, while none can be reached: it explains a refusal (*security.Error) that librdkafka can't. May be nil.
	Probe func(context.Context) error
	// Trace begins the trace of one click in TraceEach; it returns the traceparent header, "" for none, and what is told when the click was handed over. May be nil.
	Trace     func() (traceparent string, sent func(error))
	TraceEach int64
	// Progress is told once a second how it goes. May be nil.
	Progress func(Generated)
}

// Generated is how far a run has come.
type Generated struct {
	Clicks       int64         `json:"clicks"`            // handed to the producer
	Acknowledged int64         `json:"acknowledged"`      // by all in-sync replicas
	Failed       int64         `json:"failed"`            // will never be
	Invalid      int64         `json:"invalid"`           // of the clicks: made invalid on purpose
	Unreadable   int64         `json:"unreadable"`        // lines that were no click
	PerSecond    float64       `json:"per_second"`        // acknowledged: in Progress during the last second, at the end over the whole run
	Elapsed      time.Duration `json:"-"`                 // since the first click
	Stopped      bool          `json:"stopped,omitempty"` // by ctx, before Count or the source's end
}

// run is one run's state. All of it belongs to one goroutine; watch reads only p.
type run struct {
	cfg     GenerateConfig
	p       *producer
	enc     *schema.ClickEncoder
	start   time.Time
	invalid int64
}

// Generate produces clicks until there are Count, the source ends or ctx does, then waits until all are acknowledged. It returns nil
// only if they are; an end by ctx is no error. A broker that is away is waited for, until ctx ends. What it has done is in the
// result, whatever the error.
func Generate(ctx context.Context, cfg GenerateConfig) (Generated, error) {
	if cfg.Say == nil {
		cfg.Say = func(string) {}
	}
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = 8 * time.Second
	}
	if cfg.Security == nil {
		cfg.Security = &config.Kafka{}
	}
	p, err := newProducer(cfg.Brokers, cfg.Topic, cfg.Debug, cfg.Security, cfg.Say)
	if err != nil {
		return Generated{}, err
	}
	defer p.close()
	r := &run{cfg: cfg, p: p, enc: schema.NewClickEncoder(cfg.SchemaID), start: time.Now()}
	if err := p.waitForTopic(ctx, cfg.Probe, cfg.Say); err != nil {
		if ctx.Err() != nil {
			return r.result(true), nil // nothing was sent, so nothing is owed
		}
		return r.result(false), err
	}
	r.start = time.Now()
	done := make(chan struct{})
	watched := make(chan struct{})
	go func() { defer close(watched); r.watch(done) }()
	err = r.produce(ctx)
	stopped := ctx.Err() != nil && errors.Is(err, ctx.Err())
	if stopped {
		err = nil
	}
	if ferr := r.flush(ctx); err == nil {
		err = ferr
	}
	close(done)
	<-watched
	out := r.result(stopped)
	if err == nil && out.Acknowledged != out.Clicks { // cannot be: then say so rather than exit 0
		err = fmt.Errorf("%d of %d clicks acknowledged", out.Acknowledged, out.Clicks)
	}
	return out, err
}

// produce sends clicks at the rate asked for. It returns ctx's error if that ended it.
func (r *run) produce(ctx context.Context) error {
	var (
		click      schema.Click
		key, value []byte
		pace       = pacer{rate: r.cfg.Rate, start: r.start}
	)
	for n := int64(0); r.cfg.Count == 0 || n < r.cfg.Count; n++ {
		if err := pace.wait(ctx, time.Now); err != nil {
			return err
		}
		defect, err := r.cfg.Source.Next(ctx, &click)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if defect != None {
			r.invalid++
		}
		key = strconv.AppendInt(key[:0], click.UserID, 10)
		value = defect.Damage(r.enc.Append(value[:0], &click))
		if err := r.send(ctx, n, key, value); err != nil {
			return err
		}
	}
	return nil
}

// send hands the n-th click over, with a trace if it is one of those.
func (r *run) send(ctx context.Context, n int64, key, value []byte) error {
	if r.cfg.Trace == nil || n%r.cfg.TraceEach != 0 {
		return r.p.produce(ctx, key, value, "")
	}
	traceparent, sent := r.cfg.Trace()
	err := r.p.produce(ctx, key, value, traceparent)
	sent(err)
	return err
}

// flush waits for the acknowledgements: as long as it takes, or StopTimeout once ctx has ended.
func (r *run) flush(ctx context.Context) error {
	err := r.p.flush(ctx)
	if err == nil || ctx.Err() == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.StopTimeout)
	defer cancel()
	if err = r.p.flush(ctx); errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%d clicks not acknowledged within %v of being stopped", r.p.waiting(), r.cfg.StopTimeout)
	}
	return err
}

func (r *run) result(stopped bool) Generated {
	g := r.p.progress()
	g.Invalid, g.Stopped, g.Elapsed = r.invalid, stopped, time.Since(r.start)
	if s, ok := r.cfg.Source.(interface{ Unreadable() int64 }); ok {
		g.Unreadable = s.Unreadable()
	}
	g.PerSecond = float64(g.Acknowledged) / max(g.Elapsed.Seconds(), 1e-3)
	return g
}

func (p *producer) progress() Generated {
	acked, failed := p.acked.Load(), p.failed.Load()
	return Generated{Clicks: p.sent.Load(), Acknowledged: acked, Failed: failed}
}

// pacer spreads n events evenly: the k-th is due k/rate seconds after the start.
type pacer struct {
	rate  float64 // a second; 0: no waiting
	start time.Time
	n     float64
}

// wait waits until the next event is due.
func (p *pacer) wait(ctx context.Context, now func() time.Time) error {
	if err := ctx.Err(); err != nil || p.rate == 0 {
		return err
	}
	due := p.start.Add(time.Duration(p.n / p.rate * float64(time.Second)))
	p.n++
	left := due.Sub(now())
	if left < -time.Second { // after a broker was away: go on at the rate asked for, not at any
		p.start, p.n = now(), 1
	}
	if left <= 0 {
		return nil
	}
	if p.rate > 100 { // one timer for several clicks: those that are due by then follow it at once
		left = max(left, 10*time.Millisecond)
	}
	return wait.For(ctx, left)
}
