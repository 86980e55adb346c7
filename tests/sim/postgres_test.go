package sim

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/outbox"
)

// row is one row of partition_offsets, or the one of sources.
type row struct {
	next, epoch, seq, floor int64
	leaderEpoch             int32
	worker                  string
	claimants               []string
	held                    bool

	care               engine.Care
	begunBy            int // worker.n; 0: none
	begunFrom, begunTo int64

	holder  *session
	waiters []*waiter
}

type waiter struct {
	over
	sess    *session
	granted func()
}

// entry is one capture in the ledger.
type entry struct {
	seq, from, to int64
	messages      int // in the outbox up to and with this one
}

// table is what captures of one partition have written.
type table struct {
	outbox []outbox.Message
	ledger []entry
}

// postgres is the server, as far as locks, transactions and what is committed go.
type postgres struct {
	s            *sim
	rows         []*row // by partition; nil: none
	source       row
	started      bool
	tables       []table
	incarnations map[string]int // worker id to worker.n

	server   int // raised when all sessions end
	identity string
	down     bool
	sessions []*session
	backups  []backup
}

// session is a backend. Its messages arrive in the order they were sent.
type session struct {
	pg      *postgres
	w       *worker
	closed  bool // the backend is gone
	inTxn   bool
	locks   []*row
	waiting *waiter
	arrives time.Duration
	idle    *over  // the idle-in-transaction timeout under way
	answer  func() // to the query under way
}

var errBroken = errors.New("sim: connection to Postgres broken")

func newPostgres(s *sim) *postgres {
	pg := &postgres{s: s, rows: make([]*row, s.p.partitions), tables: make([]table, s.p.partitions), incarnations: map[string]int{}, server: 1, identity: "1/1"}
	return pg
}

func (pg *postgres) open(w *worker) *session {
	sess := &session{pg: pg, w: w}
	pg.sessions = append(slices.DeleteFunc(pg.sessions, func(x *session) bool { return x.closed }), sess)
	return sess
}

// query is one round trip of a session; any trouble ends the session, and what becomes of a request on its way the client can't tell.
func (sess *session) query(c *call, serve func(reply func()), back func(err error)) {
	s := sess.pg.s
	f := s.fate(sess.w, toPostgres)
	at := max(s.now+f.lag, sess.arrives+1)
	f.lag = at - s.now
	sess.arrives = at
	served := false
	s.deliver(sess.w, c, toPostgres, f, nil, func(reply func()) {
		if sess.closed || sess.pg.down {
			reply()
			return
		}
		sess.busy()
		sess.answer = reply // if the backend ends, so does the connection
		serve(func() {
			if sess.answer != nil {
				served = true
				sess.answer = nil
				sess.atRest()
				reply()
			}
		})
	}, func(answered bool) {
		if !answered || !served {
			back(errBroken)
			return
		}
		back(nil)
	})
}

func (sess *session) busy() {
	if sess.idle != nil {
		sess.idle.over = true
		sess.idle = nil
	}
}

// atRest: the next message is the client's. In a transaction it has idle_in_transaction_session_timeout for it.
func (sess *session) atRest() {
	if !sess.inTxn || sess.closed {
		return
	}
	sess.idle = &over{}
	sess.pg.s.at(idleTimeout, nil, sess.idle, func() {
		sess.pg.s.say(sess.w, "idle in transaction: ended", 0, 0)
		sess.terminate()
	})
}

// terminate ends the backend, and rolls back what it has not committed.
func (sess *session) terminate() {
	if sess.closed {
		return
	}
	sess.closed = true
	sess.busy()
	answer := sess.answer
	sess.answer = nil
	sess.end()
	if answer != nil {
		answer()
	}
}

// release is a session going back to its pool.
func (sess *session) release() {
	if sess.inTxn {
		sess.hangUp(false)
		return
	}
	sess.closed = true
}

// hangUp is the client's end of the connection, behind whatever it has sent. A host that is gone says nothing.
func (sess *session) hangUp(silent bool) {
	if sess.closed {
		return
	}
	s := sess.pg.s
	d := max(s.now+s.between(100*time.Microsecond, 5*time.Millisecond), sess.arrives+1) - s.now
	if silent {
		d += s.between(idleTimeout, 2*idleTimeout)
	}
	s.at(d, nil, nil, sess.terminate)
}

// lock takes a row's lock, now or when it is free.
func (sess *session) lock(r *row, granted func()) *waiter {
	sess.inTxn = true
	wt := &waiter{sess: sess, granted: granted}
	if r.holder == nil || r.holder == sess {
		r.holder = sess
		wt.over.over = true
		sess.locks = append(sess.locks, r)
		granted()
		return wt
	}
	sess.pg.s.say(sess.w, "waits for a row's lock", 0, 0)
	r.waiters = append(r.waiters, wt)
	sess.waiting = wt
	return wt
}

// end is COMMIT's or ROLLBACK's last part: the locks are let go.
func (sess *session) end() {
	locks := sess.locks
	sess.locks, sess.inTxn = nil, false
	if sess.waiting != nil {
		sess.waiting.over.over = true
	}
	for _, r := range locks {
		if r.holder == sess {
			r.holder = nil
			r.next1()
		}
	}
}

// next1 grants the lock to whoever waits first.
func (r *row) next1() {
	for len(r.waiters) > 0 && r.holder == nil {
		wt := r.waiters[0]
		r.waiters = r.waiters[1:]
		if wt.over.over || wt.sess.closed {
			continue
		}
		wt.over.over = true
		wt.sess.waiting = nil
		r.holder = wt.sess
		wt.sess.locks = append(wt.sess.locks, r)
		wt.granted()
	}
}

// copied is one partition's part of a capture, as COPY has sent it.
type copied struct {
	engine.Batch
	offsets []int64 // source offsets of rows and dead letters, in order
}

func copyOf(b *engine.Batch) copied {
	c := copied{Batch: *b, offsets: append(rowOffsets(b.Tables[0]), rowOffsets(b.DeadRows)...)}
	slices.Sort(c.offsets)
	return c
}

// rowOffsets reads the source offsets of binary COPY tuples.
func rowOffsets(b []byte) []int64 {
	var out []int64
	for len(b) > 2 {
		n := int(binary.BigEndian.Uint16(b))
		b = b[2:]
		for i := range n {
			size := int(int32(binary.BigEndian.Uint32(b)))
			b = b[4:]
			if i == 2 {
				out = append(out, int64(binary.BigEndian.Uint64(b)))
			}
			if size > 0 {
				b = b[size:]
			}
		}
	}
	return out
}

// write is what a capture does to one partition when it commits.
func (pg *postgres) write(w *worker, b *copied) {
	r, t := pg.rows[b.Partition], &pg.tables[b.Partition]
	pg.s.say(w, "captured", int64(b.Partition), b.To)
	pg.s.truth.captured(w, r, b)
	r.next, r.seq, r.floor, r.leaderEpoch = b.To, r.seq+1, max(r.floor, b.Floor), b.LeaderEpoch
	r.care, r.begunBy = b.Care, 0
	t.outbox = append(t.outbox, b.Messages...)
	t.ledger = append(t.ledger, entry{r.seq, b.From, b.To, len(t.outbox)})
}

// backup is the state of all tables at one moment.
type backup struct {
	rows         []*row
	started      bool
	outbox       []int
	ledger       []int
	incarnations map[string]int
	claimers     []*worker
}

func (pg *postgres) backup() {
	b := backup{started: pg.started, incarnations: map[string]int{}}
	for p, r := range pg.rows {
		if r != nil {
			c := *r
			c.holder, c.waiters, c.claimants, c.held = nil, nil, slices.Clone(r.claimants), false
			r = &c
		}
		b.rows = append(b.rows, r)
		b.outbox = append(b.outbox, len(pg.tables[p].outbox))
		b.ledger = append(b.ledger, len(pg.tables[p].ledger))
		b.claimers = append(b.claimers, pg.s.truth.parts[p].claimer)
	}
	for _, w := range pg.s.workers {
		if n, is := pg.incarnations[w.id]; is {
			b.incarnations[w.id] = n
		}
	}
	pg.backups = append(pg.backups, b)
}

// restart ends all sessions.
func (pg *postgres) restart() {
	pg.server++
	sessions := pg.sessions
	pg.sessions = nil
	for _, sess := range sessions {
		sess.terminate()
	}
}

// restore brings a backup back. What runs a failover changes the timeline; a volume put back does not.
func (pg *postgres) restore(b backup, newTimeline bool) {
	pg.s.say(nil, "postgres goes back in time", 0, 0)
	pg.restart()
	pg.s.truth.restoring(&b)
	pg.started, pg.incarnations = b.started, map[string]int{}
	for _, w := range pg.s.workers {
		if n, is := b.incarnations[w.id]; is {
			pg.incarnations[w.id] = n
		}
	}
	for p := range pg.rows {
		pg.rows[p] = nil
		if b.rows[p] != nil {
			c := *b.rows[p]
			c.claimants = slices.Clone(c.claimants)
			pg.rows[p] = &c
		}
		t := &pg.tables[p]
		t.outbox, t.ledger = slices.Clone(t.outbox[:b.outbox[p]]), slices.Clone(t.ledger[:b.ledger[p]])
	}
	if newTimeline {
		pg.identity += "+"
	} else { // nobody can tell: whoever claimed last then has claimed last now
		pg.s.truth.repeats = true
		for p := range pg.rows {
			pg.s.truth.parts[p].claimer = b.claimers[p]
		}
	}
}
