package sim

import (
	"context"
	"errors"
	"slices"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/outbox"
	"github.com/exactly-pipeline/exactly/txn"
)

// store is txn.Store, statement by statement, with its SQL done by postgres. What a row takes, and what a session that meets another
// database leads to, is txn's own code.
type store struct {
	w        *worker
	s        *sim
	identity txn.Identity
	pool     int        // the server the pool's sessions are of; 0: none
	capture  []*session // those that share out a capture; nil: not dialled
	met      int        // the server that was known when a capture last failed, or began
}

func newStore(w *worker) *store {
	return &store{w: w, s: w.s, capture: make([]*session, w.s.p.connections)}
}

// close: the process is gone.
func (st *store) close() { st.hangUp(false) }

func (st *store) hangUp(silent bool) {
	for i, sess := range st.capture {
		if sess != nil {
			sess.hangUp(silent)
			st.capture[i] = nil
		}
	}
}

// dial opens a session and compares identities.
func (st *store) dial(c *call, then func(sess *session, err error)) {
	pg := st.s.pg
	sess := pg.open(st.w)
	identity := ""
	sess.query(c, func(reply func()) {
		identity = pg.identity
		reply()
	}, func(err error) {
		if err == nil {
			_, err = st.identity.Meet(identity)
		}
		if err != nil {
			sess.hangUp(false)
			sess = nil
		}
		then(sess, err)
	})
}

// pooled is a session of the pool: one that is there, or a new one. Sessions of a server that is gone are found out by using them.
func (st *store) pooled(c *call, then func(sess *session, err error)) {
	pg := st.s.pg
	if st.pool == pg.server && !pg.down {
		then(pg.open(st.w), nil)
		return
	}
	if st.pool != 0 && st.s.chance(500) {
		st.pool = 0
		st.s.at(st.s.lag(), st.w, ofCall(c), func() { then(nil, errBroken) })
		return
	}
	server := pg.server
	st.dial(c, func(sess *session, err error) {
		if err == nil {
			st.pool = server
		}
		then(sess, err)
	})
}

func ofCall(c *call) *over {
	if c == nil {
		return nil
	}
	return &c.over
}

// poolQuery is one statement on a session of the pool.
func (st *store) poolQuery(c *call, what string, serve func(reply func()), back func(err error)) {
	st.pooled(c, func(sess *session, err error) {
		if err != nil {
			back(err)
			return
		}
		sess.query(c, serve, func(err error) {
			st.s.say(st.w, what, int64(len(errText(err))), 0)
			if err != nil {
				sess.hangUp(false)
			} else {
				sess.release()
			}
			back(err)
		})
	})
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func (st *store) simple(ctx context.Context, what string, p int32, serve func()) error {
	return st.w.park(ctx, what, p, func(c *call) {
		st.poolQuery(c, what, func(reply func()) { serve(); reply() }, c.finish)
	})
}

// Claim implements engine.Store.
func (st *store) Claim(ctx context.Context, p int32) (cl engine.Claim, err error) {
	err = st.w.park(ctx, "claim", p, func(c *call) { st.claim(c, p, 1, &cl) })
	return cl, err
}

var errLockTimeout = errors.New("sim: lock timeout")

func (st *store) claim(c *call, p int32, attempt int, cl *engine.Claim) {
	pg := st.s.pg
	st.pooled(c, func(sess *session, err error) {
		if err != nil {
			c.finish(err)
			return
		}
		c.late = func() { sess.hangUp(false) }
		fail := func(err error) {
			sess.hangUp(false)
			c.finish(err)
		}
		var locked error
		var read row
		sess.query(c, func(reply func()) {
			r := pg.rows[p]
			if r == nil {
				locked = engine.ErrNoRow
				reply()
				return
			}
			before := *r
			wt := sess.lock(r, func() {
				read = *r
				if st.s.cheat.staleClaim {
					read.next, read.seq, read.claimants = before.next, before.seq, before.claimants
				}
				reply()
			})
			if !wt.over.over {
				st.s.at(lockTimeout, nil, &wt.over, func() {
					wt.over.over = true
					locked = errLockTimeout
					sess.end()
					reply()
				})
			}
		}, func(err error) {
			switch {
			case err != nil:
				fail(err)
			case errors.Is(locked, errLockTimeout) && attempt <= 3:
				sess.hangUp(false)
				st.endHolder(c, p, func() { st.claim(c, p, attempt+1, cl) })
			case locked != nil:
				fail(locked)
			case read.held:
				fail(&engine.HeldError{By: "sim", Why: "held"})
			default:
				st.claimed(c, sess, p, &read, cl, fail)
			}
		})
	})
}

// claimed raises the epoch of a row that is locked, and commits.
func (st *store) claimed(c *call, sess *session, p int32, read *row, cl *engine.Claim, fail func(error)) {
	pg := st.s.pg
	var epoch int64
	care := read.care.Claimed(read.next, read.begunFrom, read.begunTo, read.begunBy != 0 && read.begunBy != st.w.n)
	sess.query(c, func(reply func()) {
		r := pg.rows[p]
		r.epoch++
		epoch = r.epoch
		r.care, r.begunBy = care, 0
		if !slices.Contains(r.claimants, st.w.id) {
			r.claimants = append(slices.Clone(r.claimants), st.w.id)
		}
		st.s.say(st.w, "claimed", int64(p), epoch)
		st.s.truth.claimed(st.w, p, epoch)
		sess.end()
		reply()
	}, func(err error) {
		if err != nil {
			fail(err)
			return
		}
		*cl = engine.Claim{
			Epoch: epoch, Next: read.next, LeaderEpoch: read.leaderEpoch, LedgerSeq: read.seq, Floor: read.floor, Captured: read.seq > 1,
			Predecessors: txn.Predecessors(read.worker, read.claimants), Care: care,
		}
		sess.release()
		c.finish(nil)
	})
}

// endHolder is pg_terminate_backend of whoever holds the row's lock.
func (st *store) endHolder(c *call, p int32, then func()) {
	pg := st.s.pg
	st.poolQuery(c, "end the holder", func(reply func()) {
		if r := pg.rows[p]; r != nil && r.holder != nil {
			r.holder.terminate()
		}
		reply()
	}, func(err error) {
		if err != nil {
			c.finish(err)
			return
		}
		then()
	})
}

// Drained implements engine.Store.
func (st *store) Drained(ctx context.Context, p int32, epoch int64) error {
	return st.simple(ctx, "drained", p, func() {
		if r := st.s.pg.rows[p]; r != nil && r.epoch == epoch {
			r.worker, r.claimants = st.w.id, nil
		}
	})
}

// Incarnation implements engine.Store.
func (st *store) Incarnation(ctx context.Context) (current bool, err error) {
	err = st.simple(ctx, "incarnation", -1, func() { current = st.s.pg.incarnations[st.w.id] == st.w.n })
	if err == nil && !current {
		st.w.replaced = true
	}
	return current, err
}

// TopicIDs implements engine.Store.
func (st *store) TopicIDs(context.Context) (map[string]string, error) {
	return map[string]string{"in": "1", "out": "2", "dlq": "3"}, nil
}

// Gap implements engine.Store.
func (st *store) Gap(ctx context.Context, p int32, from, to int64, limit int) (out []outbox.Message, upTo int64, err error) {
	upTo = to
	err = st.simple(ctx, "gap", p, func() {
		for _, m := range st.s.pg.tables[p].outbox {
			if m.SourceOffset < from || m.SourceOffset >= to {
				continue
			}
			if len(out) >= limit && out[len(out)-1].SourceOffset != m.SourceOffset {
				upTo = m.SourceOffset
				break
			}
			if st.s.cheat.reEnrich && m.Topic == "out" {
				m.Value = append(slices.Clone(m.Value), " again"...)
			}
			out = append(out, m)
		}
	})
	return out, upTo, err
}

// Start implements engine.Store.
func (st *store) Start(ctx context.Context, p int32, from func(context.Context) (map[int32]int64, error)) error {
	pg := st.s.pg
	var sess *session
	chosen := false
	err := st.w.park(ctx, "start", p, func(c *call) {
		st.pooled(c, func(got *session, err error) {
			if err != nil {
				c.finish(err)
				return
			}
			sess = got
			c.late = func() { sess.hangUp(false) }
			sess.query(c, func(reply func()) {
				sess.lock(&pg.source, func() { chosen = pg.started; reply() })
			}, c.finish)
		})
	})
	if err != nil {
		return err
	}
	offsets := map[int32]int64{p: 0}
	if !chosen {
		offsets, err = from(ctx)
	}
	return st.w.park(ctx, "start ends", p, func(c *call) {
		c.late = func() { sess.hangUp(false) }
		if err != nil {
			sess.hangUp(false)
			c.finish(err)
			return
		}
		sess.query(c, func(reply func()) {
			pg.started = true
			for p := range pg.rows {
				if o, is := offsets[int32(p)]; is && pg.rows[p] == nil {
					pg.rows[p] = &row{next: o, seq: 1, leaderEpoch: -1}
				}
			}
			sess.end()
			reply()
		}, func(err error) {
			sess.hangUp(false)
			c.finish(err)
		})
	})
}
