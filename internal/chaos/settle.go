package chaos

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/internal/connect"
	"github.com/exactly-pipeline/exactly/internal/transactions"
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
	if r.Audit.Found[audit.Undecided] > 0 {
		c.tellOpen(ctx, r)
	}
	return r.finish(c)
}

// tellOpen notes which Kafka transactions are still open: they hide what the audit could not decide.
func (c *Chaos) tellOpen(ctx context.Context, r *Report) {
	open, err := transactions.New(&c.cfg, c.adm).List(ctx, transactions.Options{})
	if err != nil {
		r.Notes = append(r.Notes, "open transactions could not be listed: "+err.Error())
		return
	}
	for _, t := range open.Transactions {
		line, err := json.Marshal(t)
		if err != nil {
			line = []byte(err.Error())
		}
		r.Notes = append(r.Notes, "left open in Kafka: "+string(line))
	}
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
