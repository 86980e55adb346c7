package engine

import (
	"context"
	"math/rand/v2"
	"time"
)

// Middleware puts something around a handler. What it adds to out, or takes away, is the record's like what the handler does.
type Middleware func(Handler) Handler

// Use puts middleware around a handler. The first is outermost: it sees a record first and its error last. Around all of them the engine puts
// recovery: a panic of theirs, too, makes a dead letter.
func Use(h Handler, m ...Middleware) Handler {
	for i := len(m) - 1; i >= 0; i-- {
		h = m[i](h)
	}
	return h
}

// Around makes middleware of a function, which calls next or does not.
func Around(f func(ctx context.Context, r *Record, out *Out, next Handler) error) Middleware {
	return func(next Handler) Handler { return &around{next, f} }
}

type around struct {
	next Handler
	f    func(context.Context, *Record, *Out, Handler) error
}

func (a *around) Tables() []Table { return a.next.Tables() }

func (a *around) Handle(ctx context.Context, r *Record, out *Out) error {
	return a.f(ctx, r, out, a.next)
}

// Validated makes a dead letter of a record that check has something against, before the handler sees it. nil: nothing.
func Validated(check func(r *Record) *Permanent) Middleware {
	return Around(func(ctx context.Context, r *Record, out *Out, next Handler) error {
		if why := check(r); why != nil {
			return why
		}
		return next.Handle(ctx, r, out)
	})
}

// measuredEach is how many records share one reading of the clock, which costs as much as a simple handler.
const measuredEach = 64

// Measured tells observe how long the handler took over a record, and its error: of one record in 64, and of each that failed (0 if it was not
// timed). It is called by the goroutine that handles and must not block.
func Measured(observe func(took time.Duration, err error)) Middleware {
	n := 0
	return Around(func(ctx context.Context, r *Record, out *Out, next Handler) error {
		n++
		if n%measuredEach != 0 {
			err := next.Handle(ctx, r, out)
			if err != nil {
				observe(0, err)
			}
			return err
		}
		start := time.Now()
		err := next.Handle(ctx, r, out)
		observe(time.Since(start), err)
		return err
	})
}

// Retried tries a record again after a transient error, up to tries times in all, with a jittered wait between that doubles. Other records are
// held up meanwhile: it is for blips, milliseconds. What lasts is the engine's, which lets the partition alone wait.
func Retried(tries int, wait time.Duration) Middleware {
	var m mark
	return Around(func(ctx context.Context, r *Record, out *Out, next Handler) error {
		out.b.mark(&m)
		seq := out.seq
		for try := 1; ; try++ {
			err := next.Handle(ctx, r, out)
			if err == nil || asPermanent(err) != nil || try >= tries {
				return err
			}
			out.b.takeBack(&m)
			out.seq = seq
			d := wait << (try - 1)
			t := time.NewTimer(d/2 + rand.N(d/2+1))
			select {
			case <-ctx.Done():
				t.Stop()
				return err
			case <-t.C:
			}
		}
	})
}

// recovery is the outermost middleware: a panic makes a dead letter, since the same would happen again.
func (p *preparer) recovery(next Handler) Handler { return &recovered{next, p} }

type recovered struct {
	Handler
	p *preparer
}

func (h *recovered) Handle(ctx context.Context, r *Record, out *Out) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = h.p.panicked(v, r)
		}
	}()
	return h.Handler.Handle(ctx, r, out)
}
