package txn

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/engine"
)

// slowCommit makes COMMIT of a capture wait until the returned function is called: a deferred trigger wants an advisory lock.
func (d *db) slowCommit() (release func()) {
	d.t.Helper()
	d.exec(`CREATE FUNCTION slow_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END $$`)
	d.exec(`CREATE CONSTRAINT TRIGGER slow_commit AFTER INSERT ON offset_ledger DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow_commit()`)
	d.exec(`SELECT pg_advisory_lock(42)`)
	return sync.OnceFunc(func() { d.exec(`SELECT pg_advisory_unlock(42)`) })
}

// waiting is the backend whose COMMIT waits for the advisory lock; 0 if there is none yet.
func (d *db) waiting() int64 {
	d.t.Helper()
	return d.number(`SELECT coalesce(max(pid), 0) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
}

func (d *db) untilCommitIsSent() (pid int64) {
	d.t.Helper()
	require.Eventually(d.t, func() bool { pid = d.waiting(); return pid != 0 }, 20*time.Second, 5*time.Millisecond)
	return pid
}

type captured struct {
	seqs []int64
	err  error
}

func (d *db) captureBeside(s *Store, b *engine.Batch) chan captured {
	c := make(chan captured, 1)
	go func() {
		seqs, err := s.Capture(d.ctx, []*engine.Batch{b})
		c <- captured{seqs, err}
	}()
	return c
}

// A claim waits for a capture whose COMMIT is in flight, and then knows of it.
func TestClaimWaitsForACapture(t *testing.T) {
	d := newDB(t)
	a, b := d.store("a"), d.store("b")
	b.cfg.LockTimeout = 20 * time.Second
	d.started(a, 1)
	epoch := d.claim(a, 0).Epoch
	release := d.slowCommit()
	c := d.captureBeside(a, d.batch(0, epoch, 0, 3, 0))
	d.untilCommitIsSent()
	claimed := make(chan engine.Claim, 1)
	go func() {
		got, _ := b.Claim(d.ctx, 0)
		claimed <- got
	}()
	require.Eventually(t, func() bool {
		return d.number(`SELECT count(*) FROM pg_stat_activity WHERE application_name = 'exactly/g/b' AND wait_event_type = 'Lock'`) == 1
	}, 20*time.Second, 5*time.Millisecond)
	release()
	require.NoError(t, (<-c).err)
	got := <-claimed
	require.EqualValues(t, 3, got.Next)
	require.EqualValues(t, 2, got.LedgerSeq)
	require.True(t, got.Captured)
}

// A frozen worker holds the row's lock: its backend is ended after the lock timeout, and what it had not committed never happened.
func TestClaimEndsAFrozenHolder(t *testing.T) {
	d := newDB(t)
	a, b := d.store("a"), d.store("b")
	d.started(a, 2)
	epoch := d.claim(a, 0).Epoch
	release := d.slowCommit()
	defer release()
	c := d.captureBeside(a, d.batch(0, epoch, 0, 3, 0))
	d.untilCommitIsSent()
	got := d.claim(b, 0)
	require.Zero(t, got.Next)
	require.Equal(t, epoch+1, got.Epoch)
	require.Error(t, (<-c).err)
	release()
	require.Equal(t, []int64{0}, d.capture(a, d.batch(0, epoch, 0, 3, 0)), "the former owner is refused, on a session of its own again")
	require.Zero(t, d.number(`SELECT count(*) FROM outbox`))
	require.Equal(t, []int64{2}, d.capture(b, d.batch(0, got.Epoch, 0, 3, 0)))
}

// A person's command holds the row's lock while it waits for Kafka, having said before that it holds the partition: it is left alone.
func TestClaimLeavesACommandAlone(t *testing.T) {
	d := newDB(t)
	s := d.store("a")
	d.started(s, 1)
	d.exec(`UPDATE partition_offsets SET state = 'held', held_by = 'me', held_why = 'test'`)
	command, err := d.conn.Begin(d.ctx)
	require.NoError(t, err)
	defer command.Rollback(d.ctx) //nolint:errcheck // committed below
	_, err = command.Exec(d.ctx, `SELECT FROM partition_offsets FOR UPDATE`)
	require.NoError(t, err)
	_, err = s.Claim(d.ctx, 0)
	var held *engine.HeldError
	require.ErrorAs(t, err, &held)
	require.Equal(t, engine.HeldError{By: "me", Why: "test"}, *held)
	_, err = command.Exec(d.ctx, `UPDATE partition_offsets SET state = 'open', held_by = NULL, held_why = NULL`)
	require.NoError(t, err, "the command's session was ended")
	require.NoError(t, command.Commit(d.ctx))
	d.claim(s, 0)
}

// Guard 9: the answer to COMMIT never comes. Both outcomes are possible, and a claim tells which it was.
func TestUnknownCommit(t *testing.T) {
	for _, happened := range []bool{false, true} {
		d := newDB(t)
		direct := d.dsn
		var p *proxy
		p, d.dsn = newProxy(t, direct)
		s := d.store("a")
		s.cfg.LockTimeout = 20 * time.Second
		d.started(s, 1)
		epoch := d.claim(s, 0).Epoch
		release := d.slowCommit()
		c := d.captureBeside(s, d.batch(0, epoch, 0, 3, 0))
		pid := d.untilCommitIsSent()
		p.muted.Store(true)
		want := int64(0)
		if happened {
			want = 3
			release()
			require.Eventually(t, func() bool { return d.next(0) == want }, 20*time.Second, 5*time.Millisecond)
		} else {
			d.exec(`SELECT pg_terminate_backend($1)`, pid)
			require.Eventually(t, func() bool { return d.waiting() == 0 }, 20*time.Second, 5*time.Millisecond)
		}
		p.cut() // the answer is lost
		got := <-c
		require.Error(t, got.err)
		require.Nil(t, got.seqs)
		release()
		p.muted.Store(false)
		var claim engine.Claim
		require.Eventually(t, func() (ok bool) { // the pool's sessions were cut, too
			var err error
			claim, err = s.Claim(d.ctx, 0)
			return err == nil
		}, 20*time.Second, 5*time.Millisecond)
		require.Equal(t, want, claim.Next, "happened: %v", happened)
		require.Equal(t, happened, claim.Captured)
		require.Equal(t, want, d.number(`SELECT count(*) FROM outbox`), "all or nothing")
		require.Equal(t, []int64{claim.LedgerSeq + 1}, d.capture(s, d.batch(0, claim.Epoch, want, want+2, 0)), "and it goes on")
	}
}

// Guard 11: a new session meets another identity than those before. The capture fails, so that the engine drops its memory.
func TestStoreChanged(t *testing.T) {
	d := newDB(t)
	s := d.store("a")
	d.started(s, 1)
	epoch := d.claim(s, 0).Epoch
	d.capture(s, d.batch(0, epoch, 0, 3, 0))
	s.hangUp()
	s.identity.mu.Lock()
	s.identity.id = "another/00000001"
	s.identity.mu.Unlock()
	_, err := s.Capture(d.ctx, []*engine.Batch{d.batch(0, epoch, 3, 6, 0)})
	require.ErrorIs(t, err, ErrStoreChanged)
	require.EqualValues(t, 3, d.next(0))
	c := d.claim(s, 0)
	require.Equal(t, []int64{3}, d.capture(s, d.batch(0, c.Epoch, 3, 6, 0)), "after the claim it goes on with what is there")
}

// Guard 11: a session of the pool meets it first. The next capture must fail too, though its own session finds nothing new by then:
// the engine drops its memory only when a capture fails.
func TestStoreChangedMetByThePool(t *testing.T) {
	d := newDB(t)
	s := d.store("a")
	d.started(s, 2)
	epoch := d.claim(s, 0).Epoch
	d.capture(s, d.batch(0, epoch, 0, 3, 0))
	s.identity.mu.Lock()
	s.identity.id = "another/00000001"
	s.identity.mu.Unlock()
	s.pool.Reset()
	require.Eventually(t, func() bool { // the pool's sessions are new now
		_, err := s.Claim(d.ctx, 1)
		return err != nil
	}, 10*time.Second, 5*time.Millisecond)
	_, err := s.Capture(d.ctx, []*engine.Batch{d.batch(0, epoch, 3, 6, 0)})
	require.ErrorIs(t, err, ErrStoreChanged)
}

// Guard 11: one of the sessions that share out a capture meets it. None of the others may write: what they would write rests on what is
// remembered of the database before.
func TestStoreChangedMetByOneSession(t *testing.T) {
	d := newDB(t)
	s := d.store("a")
	s.capture = append(s.capture, nil, nil)
	d.started(s, 3)
	var batches []*engine.Batch
	for p := range int32(3) {
		b := d.batch(p, d.claim(s, p).Epoch, 0, 600, 0)
		b.Bytes = len(b.Outbox)
		batches = append(batches, b)
	}
	s.identity.mu.Lock()
	s.identity.id = "another/00000001"
	s.identity.mu.Unlock()
	_, err := s.Capture(d.ctx, batches)
	require.ErrorIs(t, err, ErrStoreChanged)
	require.Zero(t, d.number(`SELECT count(*) FROM outbox`))
	for p := range int32(3) {
		batches[p].Epoch = d.claim(s, p).Epoch
	}
	require.Equal(t, []int64{2, 2, 2}, d.capture(s, batches...), "told once")
}
