package chaos

import (
	"context"
	"strings"
	"time"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/internal/connect"
)

// settle drains: until both stores are at the stable end of the log and nothing has moved for a quiet period, or until nothing moves any
// more though it should. It never counts up to a number. Then it audits.
func (c *Chaos) settle(ctx context.Context) *Report {
	r := c.report()
	if err := c.load.generated(ctx); err != nil {
		r.undecided("the generator failed: %v", err)
	}
	if c.load != nil {
		r.Generated, r.Invalid = c.load.sent, c.load.invalid
	}
	r.ScheduleMs = time.Since(c.begun).Milliseconds()
	c.drain(ctx, r)
	if ctx.Err() != nil {
		r.undecided("the run was stopped before its end")
		return r.finish(c)
	}
	c.say("auditing")
	rep, err := c.audit(ctx)
	if err != nil {
		r.undecided("the audit could not be done: %v", err)
		return r.finish(c)
	}
	r.Audit = rep
	return r.finish(c)
}

func (c *Chaos) audit(ctx context.Context) (*audit.Report, error) {
	o, err := connect.Audit(&c.cfg)
	if err != nil {
		return nil, err
	}
	o.Settled = true
	return audit.Run(ctx, o)
}

func (c *Chaos) drain(ctx context.Context, r *Report) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var s State
	var at string
	since := time.Now()
	for {
		var ok bool
		if s, ok = c.watch.next(ctx, s.At); !ok {
			return
		}
		sent, stored, published := s.Sums()
		if now := strings.Join([]string{itoa64(sent), itoa64(stored), itoa64(published)}, " "); now != at {
			at, since = now, time.Now()
		}
		level := true
		for _, p := range s.Positions {
			level = level && p.Stored == p.End && p.Published == p.Stored
		}
		still := time.Since(since)
		switch {
		case level && len(s.Positions) > 0 && still > quiet:
			return
		case !level && still > c.opt.Limit:
			// Transaction markers in an input of transactional producers look like this as well: the audit, which reads the records, decides.
			c.note("nothing moved for %v, with %d offsets in the input, %d stored and %d published", c.opt.Limit, sent, stored, published)
			return
		}
	}
}
