package sim

import (
	"context"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/txn"
)

// Capture implements engine.Store as txn.Store does: a session of its own, the rows' locks in order, what matches, COPY, COMMIT. Any error
// ends the session, and leaves the outcome unknown.
func (st *store) Capture(ctx context.Context, batches []*engine.Batch) ([]int64, error) {
	seqs := make([]int64, len(batches))
	err := st.w.park(ctx, "capture", batches[0].Partition, func(c *call) {
		c.late = func() { st.hangUp(false) }
		if st.identity.Tell() {
			st.failCapture(c, txn.ErrStoreChanged)
			return
		}
		if st.capture != nil {
			st.lock(c, batches, seqs)
			return
		}
		st.dial(c, func(sess *session, err error) {
			if err != nil {
				st.identity.Tell() // told by this error
				st.failCapture(c, err)
				return
			}
			st.capture = sess
			st.lock(c, batches, seqs)
		})
	})
	return seqs, err
}

func (st *store) failCapture(c *call, err error) {
	st.s.say(st.w, "capture failed", 0, 0)
	st.hangUp(false)
	st.met = st.s.pg.server
	c.finish(err)
}

// lock takes the rows' locks one after the other, then compares.
func (st *store) lock(c *call, batches []*engine.Batch, seqs []int64) {
	pg, sess := st.s.pg, st.capture
	rows := make([]txn.Row, len(batches))
	sess.query(c, func(reply func()) {
		var next func(i int)
		next = func(i int) {
			if i == len(batches) {
				reply()
				return
			}
			r := pg.rows[batches[i].Partition]
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
			st.failCapture(c, err)
			return
		}
		var matching []*engine.Batch
		for i, b := range batches {
			if rows[i].Takes(b) {
				matching = append(matching, b)
				seqs[i] = rows[i].Seq + 1
			}
		}
		st.commit(c, sess, matching)
	})
}

// commit copies and commits what matches, or rolls back.
func (st *store) commit(c *call, sess *session, matching []*engine.Batch) {
	pg := st.s.pg
	copied := make([]copied, len(matching)) // on the wire: the engine takes its buffers back when the call ends
	for i, b := range matching {
		copied[i] = copyOf(b)
	}
	last := func(serve func()) {
		sess.query(c, func(reply func()) {
			serve()
			sess.end()
			reply()
		}, func(err error) {
			if err != nil {
				st.failCapture(c, err)
				return
			}
			c.finish(nil)
		})
	}
	if len(matching) == 0 {
		last(func() { st.s.say(st.w, "refused", 0, 0) })
		return
	}
	sess.query(c, func(reply func()) { reply() }, func(err error) { // COPY
		if err != nil {
			st.failCapture(c, err)
			return
		}
		last(func() { // COMMIT
			for i := range copied {
				pg.write(st.w, &copied[i])
			}
		})
	})
}
