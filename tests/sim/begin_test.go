package sim

import (
	"context"
	"slices"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/outbox"
)

// Begin implements engine.Store: the rows' locks in order, then what matches is marked.
func (st *store) Begin(ctx context.Context, marks []engine.Mark) (map[int32]bool, error) {
	pg := st.s.pg
	ours := map[int32]bool{}
	err := st.w.park(ctx, "begin", marks[0].Partition, func(c *call) {
		st.pooled(c, func(sess *session, err error) {
			if err != nil {
				c.finish(err)
				return
			}
			c.late = func() { sess.hangUp(false) }
			sess.query(c, func(reply func()) {
				var next func(i int)
				next = func(i int) {
					if i == len(marks) {
						for _, m := range marks {
							if r := pg.rows[m.Partition]; r != nil && r.next == m.From && r.epoch == m.Epoch && !r.held {
								ours[m.Partition] = true
								r.begunBy, r.begunFrom, r.begunTo = st.w.n, m.From, m.To
								if r.care.On(r.next) && r.care.Step == 1 {
									st.s.truth.begun(m.Partition, m.From)
								}
							}
						}
						sess.end()
						reply()
						return
					}
					if r := pg.rows[marks[i].Partition]; r != nil {
						sess.lock(r, func() { next(i + 1) })
						return
					}
					next(i + 1)
				}
				next(0)
			}, func(err error) {
				st.s.say(st.w, "begin", int64(len(ours)), int64(len(errText(err))))
				if err != nil {
					sess.hangUp(false)
				} else {
					sess.release()
				}
				c.finish(err)
			})
		})
	})
	return ours, err
}

// Leave implements engine.Store.
func (st *store) Leave(ctx context.Context, marks []engine.Mark) error {
	for _, m := range marks {
		err := st.simple(ctx, "leave", m.Partition, func() {
			if r := st.s.pg.rows[m.Partition]; r != nil && r.epoch == m.Epoch && r.begunBy == st.w.n {
				r.begunBy = 0
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// begun notes a record that is marked alone.
func (t *truth) begun(p int32, from int64) {
	for i := range t.s.k.in[p].records {
		if o := t.s.k.in[p].records[i].Offset; o >= from {
			t.alone[[2]int64{int64(p), o}]++
			return
		}
	}
}

// quarantine checks a capture's quarantined records: it was begun alone, again and again, before it was not handled any more.
func (t *truth) quarantine(b *copied) {
	for i := range b.Messages {
		m := &b.Messages[i]
		if !slices.ContainsFunc(m.Headers, func(h outbox.Header) bool {
			return h.Key == "exactly-error-class" && string(h.Value) == engine.ClassQuarantined
		}) {
			continue
		}
		t.s.say(nil, "quarantined", int64(b.Partition), m.SourceOffset)
		if n := t.alone[[2]int64{int64(b.Partition), m.SourceOffset}]; n <= t.s.p.quarantine { // the last time is its capture's
			t.s.broke("quarantined", "partition %d, offset %d: begun alone %d times", b.Partition, m.SourceOffset, n)
		}
	}
}
