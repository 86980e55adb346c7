package sim

import (
	"context"
	"errors"
	"time"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/outbox"
	"github.com/exactly-pipeline/exactly/txn"
)

// producer is librdkafka's transactional producer, before KIP-890: requests are sent again inside a call while their connection breaks
// or the broker says later, and a call that runs out of time leaves them wherever they are.
type producer struct {
	w       *worker
	s       *sim
	epoch   int
	up      bool
	unsent  []outbox.Message
	entered bool // the coordinator may know of the transaction
	flushed bool
	met     int // the Postgres its worker knew when the transaction began
	fatal   error

	repeated bool // a request of this transaction was sent again without having been answered
}

func failed(class txn.Class, what string) error {
	return &txn.Error{Class: class, Err: errors.New(what)}
}

func (p *producer) id() string { return p.w.id }

// ask sends a request until it is answered with something else than later, or the call is over. A copy that is late arrives nevertheless, also
// when another one was answered meanwhile: each goes by a connection of its own.
func (p *producer) ask(c *call, what string, serve func() code, then func(code)) {
	var answer code
	f := p.s.fate(p.w, toKafka)
	if what == commitRequest && p.w.doubted && p.s.faulty {
		p.w.doubted = false
		f = fate{late: true, lag: p.s.between(time.Millisecond, 14*time.Second)}
		if p.s.chance(500) { // at the worst moment there is, or never
			f = fate{lost: true}
			p.s.k.held = append(p.s.k.held, stray{p, serve})
		}
		p.s.p.cuts = append(p.s.p.cuts, cutOff{p.w, toKafka, p.s.now + p.s.between(transactionTimeout-2*time.Second, transactionTimeout+2*time.Second)})
	}
	again := func() {
		c.at(p.s.between(5*time.Millisecond, 100*time.Millisecond), func() { p.ask(c, what, serve, then) })
	}
	p.s.deliver(p.w, c, toKafka, f, &over{}, func(reply func()) {
		answer = serve()
		p.s.say(p.w, what, int64(answer), int64(p.epoch))
		reply()
	}, func(answered bool) {
		switch {
		case !answered, answer.later():
			p.repeated = p.repeated || !answered
			again()
		default:
			then(answer)
		}
	})
}

// call is one blocking call of the client.
func (p *producer) call(ctx context.Context, op string, f func(c *call)) error {
	return p.w.park(ctx, op, -1, func(c *call) {
		if p.fatal != nil {
			c.finish(p.fatal)
			return
		}
		f(c)
	})
}

// timedOut is what the client says when a call has run out of time: call again.
func timedOut(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return failed(txn.Retriable, "timed out")
	}
	return err
}

func (p *producer) die(c *call, why code) {
	p.fatal = failed(txn.Fatal, why.String())
	c.finish(p.fatal)
}

// Init implements txn.Producer.
func (p *producer) Init(ctx context.Context) error {
	return timedOut(p.call(ctx, "init producer", func(c *call) {
		var epoch int
		p.ask(c, "InitProducerId", func() (a code) {
			if p.s.cheat.sameProducer && p.w.initialised {
				epoch = p.s.k.txn(p.id()).epoch
				return ok
			}
			epoch, a = p.s.k.initProducer(p.id(), p.w)
			return a
		}, func(code) {
			p.epoch, p.up, p.w.initialised = epoch, true, true
			p.s.truth.initialised(p.w)
			c.finish(nil)
		})
	}))
}

// Begin implements txn.Producer.
func (p *producer) Begin() error {
	if p.fatal != nil {
		return p.fatal
	}
	p.unsent, p.entered, p.flushed, p.met, p.repeated = nil, false, false, p.w.store.met, false
	return nil
}

// Produce implements txn.Producer: it only enqueues.
func (p *producer) Produce(_ context.Context, m *outbox.Message) error {
	if p.fatal != nil {
		return p.fatal
	}
	p.unsent = append(p.unsent, *m)
	return nil
}

// Send implements txn.Producer: when messages are on their way is drawn in SendOffsets.
func (p *producer) Send(context.Context) error { return nil }

// flush sends what is enqueued: AddPartitionsToTxn, then Produce.
func (p *producer) flush(c *call, then func()) {
	if len(p.unsent) == 0 || p.flushed {
		then()
		return
	}
	messages := p.unsent
	p.entered = true
	step := func(what string, serve func() code, then func()) {
		p.ask(c, what, serve, func(a code) {
			switch a {
			case ok:
				then()
			case invalidState:
				c.finish(failed(txn.Abortable, a.String()))
			default:
				p.die(c, a)
			}
		})
	}
	step("AddPartitionsToTxn", func() code {
		_, a := p.s.k.enter(p.id(), p.epoch)
		return a
	}, func() {
		done := false // idempotent: sequence numbers make of two deliveries one
		step("Produce", func() code {
			if done {
				return ok
			}
			a := p.s.k.produce(p.id(), p.epoch, messages)
			done = a == ok
			p.s.k.release(p)
			return a
		}, func() {
			p.flushed = true
			then()
		})
	})
}

// SendOffsets implements txn.Producer. The client sends messages meanwhile, or before, or after.
func (p *producer) SendOffsets(ctx context.Context, _ string, offsets []txn.Offset, s engine.Stamp) error {
	st, _ := s.(*stamp)
	return timedOut(p.call(ctx, "send offsets", func(c *call) {
		if st == nil {
			c.finish(failed(txn.Stale, "no group metadata"))
			return
		}
		if p.s.faulty && p.s.chance(p.s.p.abortable) {
			c.at(p.s.lag(), func() { c.finish(failed(txn.Abortable, "message timed out")) })
			return
		}
		send := func() {
			p.entered = true
			p.ask(c, "AddOffsetsToTxn", func() code {
				_, a := p.s.k.enter(p.id(), p.epoch)
				return a
			}, func(a code) {
				if a != ok {
					p.die(c, a)
					return
				}
				p.ask(c, "TxnOffsetCommit", func() code {
					return p.s.k.stage(p.id(), p.epoch, offsets, p.metadata(st), p.met)
				}, func(a code) {
					switch a {
					case ok:
						c.finish(nil)
					case fenced:
						p.die(c, a)
					case invalidState:
						c.finish(failed(txn.Abortable, a.String()))
					default:
						c.finish(failed(txn.Stale, a.String()))
					}
				})
			})
		}
		if p.s.chance(600) {
			p.flush(c, send)
		} else {
			send()
		}
	}))
}

// metadata is what is sent for a stamp: the stamp, where no cheat says otherwise.
func (p *producer) metadata(st *stamp) *stamp {
	switch {
	case p.s.cheat.freshMetadata:
		return p.w.client.stampNow()
	case p.s.cheat.noGeneration:
		return &stamp{generation: -1}
	}
	return st
}

// Commit implements txn.Producer.
func (p *producer) Commit(ctx context.Context) error {
	return timedOut(p.call(ctx, "commit", func(c *call) {
		if p.s.faulty && p.s.chance(p.s.p.abortable) {
			c.at(p.s.lag(), func() { c.finish(failed(txn.Abortable, "message timed out")) })
			return
		}
		p.flush(c, func() { p.end(c, true) })
	}))
}

// Abort implements txn.Producer.
func (p *producer) Abort(ctx context.Context) error {
	return timedOut(p.call(ctx, "abort", func(c *call) {
		if !p.entered {
			c.at(time.Millisecond, func() { c.finish(nil) })
			return
		}
		p.end(c, false)
	}))
}

func (p *producer) end(c *call, commit bool) {
	what := "EndTxn abort"
	if commit {
		what = commitRequest
	}
	p.ask(c, what, func() code { return p.s.k.end(p.id(), p.epoch, commit) }, func(a code) {
		if a != ok {
			p.die(c, a)
			return
		}
		c.finish(nil)
	})
}

const commitRequest = "EndTxn commit"

// stray is a request that the network holds back until the worker's next producer is in the middle of its transaction.
type stray struct {
	p     *producer
	serve func() code
}

// release lets go what was held back of the producers before this one.
func (k *kafka) release(by *producer) {
	left := k.held[:0]
	for _, st := range k.held {
		if st.p == by || st.p.w.id != by.w.id {
			left = append(left, st)
			continue
		}
		k.s.at(k.s.between(0, 2*time.Millisecond), nil, nil, func() {
			k.s.say(st.p.w, "a request arrives late: "+commitRequest, int64(st.serve()), int64(st.p.epoch))
		})
	}
	k.held = left
}

// Repeated implements txn.Producer.
func (p *producer) Repeated() bool { return p.repeated }

// Close implements txn.Producer.
func (p *producer) Close() {}
