package sim

import (
	"context"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/txn"
)

// Capture implements engine.Store as txn.Store does: shared out over sessions, each a transaction of its own: the rows' locks in order, what
// matches, COPY, COMMIT. Any error ends the sessions when all are through, and leaves the outcome unknown, batch by batch.
func (st *store) Capture(ctx context.Context, batches []*engine.Batch) ([]int64, error) {
	seqs := make([]int64, len(batches))
	err := st.w.park(ctx, "capture", batches[0].Partition, func(c *call) {
		c.late = func() { st.hangUp(false) }
		if st.identity.Tell() {
			st.failCapture(c, txn.ErrStoreChanged)
			return
		}
		lanes := st.share(len(batches))
		left := len(lanes)
		var failed error
		for i, at := range lanes {
			l := &lane{st: st, c: c, session: i}
			for _, b := range at {
				l.batches = append(l.batches, batches[b])
				l.seqs = append(l.seqs, &seqs[b])
			}
			l.end = func(err error) {
				if err != nil {
					failed = err
				}
				if left--; left > 0 {
					return
				}
				if failed != nil {
					st.identity.Tell() // told by this error
					st.failCapture(c, failed)
					return
				}
				c.finish(nil)
			}
			l.begin()
		}
	})
	return seqs, err
}

// share deals the batches out by chance, over as many sessions as there are or fewer, in order within each.
func (st *store) share(n int) [][]int {
	lanes := make([][]int, len(st.capture))
	for i := range n {
		l := 0
		if len(lanes) > 1 {
			l = st.s.rng.IntN(len(lanes))
		}
		lanes[l] = append(lanes[l], i)
	}
	out := lanes[:0]
	for _, l := range lanes {
		if len(l) > 0 {
			out = append(out, l)
		}
	}
	return out
}

func (st *store) failCapture(c *call, err error) {
	st.s.say(st.w, "capture failed", 0, 0)
	st.hangUp(false)
	st.met = st.s.pg.server
	c.finish(err)
}

// lane is one session's part of a capture, and its transaction.
type lane struct {
	st      *store
	c       *call
	session int
	batches []*engine.Batch
	seqs    []*int64
	end     func(error)
}

func (l *lane) begin() {
	st := l.st
	if sess := st.capture[l.session]; sess != nil {
		l.lock(sess)
		return
	}
	st.dial(l.c, func(sess *session, err error) {
		if err == nil && st.identity.Changed() {
			sess.hangUp(false)
			err = txn.ErrStoreChanged
		}
		if err != nil {
			l.end(err)
			return
		}
		st.capture[l.session] = sess
		l.lock(sess)
	})
}

// lock takes the rows' locks one after the other, then compares.
func (l *lane) lock(sess *session) {
	pg := l.st.s.pg
	rows := make([]txn.Row, len(l.batches))
	sess.query(l.c, func(reply func()) {
		var next func(i int)
		next = func(i int) {
			if i == len(l.batches) {
				reply()
				return
			}
			r := pg.rows[l.batches[i].Partition]
			if r == nil {
				next(i + 1)
				return
			}
			sess.lock(r, func() {
				rows[i] = txn.Row{Next: r.next, Epoch: r.epoch, Seq: r.seq, Open: !r.held}
				next(i + 1)
			})
		}
		next(0)
	}, func(err error) {
		if err != nil {
			l.end(err)
			return
		}
		var matching []*engine.Batch
		for i, b := range l.batches {
			if rows[i].Takes(b) {
				matching = append(matching, b)
				*l.seqs[i] = rows[i].Seq + 1
			}
		}
		l.commit(sess, matching)
	})
}

// commit copies and commits what matches, or rolls back.
func (l *lane) commit(sess *session, matching []*engine.Batch) {
	st := l.st
	copied := make([]copied, len(matching)) // on the wire: the engine takes its buffers back when the call ends
	for i, b := range matching {
		copied[i] = copyOf(b)
	}
	last := func(serve func()) {
		sess.query(l.c, func(reply func()) {
			serve()
			sess.end()
			reply()
		}, l.end)
	}
	if len(matching) == 0 {
		last(func() { st.s.say(st.w, "refused", 0, 0) })
		return
	}
	sess.query(l.c, func(reply func()) { reply() }, func(err error) { // COPY
		if err != nil {
			l.end(err)
			return
		}
		last(func() { // COMMIT
			for i := range copied {
				st.s.pg.write(st.w, &copied[i])
			}
		})
	})
}
