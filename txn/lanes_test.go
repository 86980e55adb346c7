package txn

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/exactly-pipeline/exactly/engine"
)

// A large capture is shared out over the sessions: every batch lands whole, the refused one alone is left out, and the seqs come back in
// the order of the batches.
func TestCaptureSharedOut(t *testing.T) {
	d := newDB(t)
	s := d.store("a")
	s.capture = append(s.capture, nil, nil)
	d.started(s, 6)
	const n = 400
	var batches []*engine.Batch
	want := make([]int64, 6)
	for p := range int32(6) {
		epoch := d.claim(s, p).Epoch
		if p == 4 {
			epoch-- // another has claimed it since
		} else {
			want[p] = 2
		}
		b := d.batch(p, epoch, 0, n, 0)
		b.Bytes = len(b.Outbox)
		batches = append(batches, b)
	}
	require.Len(t, share(batches, 3), 3, "or the test shows nothing")
	require.Equal(t, want, d.capture(s, batches...))
	for p := range int32(6) {
		require.Equal(t, want[p]/2*n, d.number(`SELECT count(*) FROM outbox WHERE source_partition = $1`, p), "partition %d", p)
	}
}

// What fails in one of the transactions fails the capture; what the others did is found by the next claim, batch by batch.
func TestCaptureSharedOutFailsInPart(t *testing.T) {
	d := newDB(t)
	s := d.store("a")
	s.capture = append(s.capture, nil)
	d.started(s, 2)
	var batches []*engine.Batch
	for p := range int32(2) {
		b := d.batch(p, d.claim(s, p).Epoch, 0, 600, 0)
		b.Bytes = len(b.Outbox)
		batches = append(batches, b)
	}
	batches[1].Outbox = append(batches[1].Outbox, 0xff) // not a tuple
	_, err := s.Capture(d.ctx, batches)
	require.Error(t, err)
	require.EqualValues(t, 600, d.claim(s, 0).Next)
	require.EqualValues(t, 0, d.claim(s, 1).Next)
}

// Little work is one transaction: nothing is gained by two commits.
func TestSmallCaptureIsOneTransaction(t *testing.T) {
	small := []*engine.Batch{{Records: 10, Bytes: 10}, {Records: 10, Bytes: 10}}
	require.Equal(t, [][]int{{0, 1}}, share(small, 4))
	large := []*engine.Batch{{Records: 900, Bytes: 9}, {Records: 900, Bytes: 4}, {Records: 900, Bytes: 4}}
	require.Equal(t, [][]int{{0}, {1, 2}}, share(large, 2))
	require.Len(t, share(large[:1], 4), 1)
}

// A database whose sessions are serializable by default: who waits for a row's lock goes on with what it finds then.
func TestDefaultIsolation(t *testing.T) {
	d := newDB(t)
	d.started(d.store("a"), 1)
	d.exec(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', current_database()); END $$`)
	s, err := OpenStore(d.ctx, StoreConfig{DSN: d.dsn, Group: "g", Worker: "b", LockTimeout: time.Minute, IdleTimeout: time.Minute, Log: zaptest.NewLogger(t)}, d.src)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	held := func(then func()) {
		tx, err := d.conn.Begin(d.ctx)
		require.NoError(t, err)
		_, err = tx.Exec(d.ctx, `UPDATE partition_offsets SET epoch = epoch`)
		require.NoError(t, err)
		done := make(chan struct{})
		go func() { defer close(done); then() }()
		require.Eventually(t, func() bool {
			var waits bool
			require.NoError(t, tx.QueryRow(d.ctx, `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid())`).Scan(&waits))
			return waits
		}, time.Minute, 5*time.Millisecond)
		require.NoError(t, tx.Commit(d.ctx))
		<-done
	}
	var c engine.Claim
	held(func() { c, err = s.Claim(d.ctx, 0) })
	require.NoError(t, err)
	held(func() { _, err = s.Capture(d.ctx, []*engine.Batch{d.batch(0, c.Epoch, 0, 3, 0)}) })
	require.NoError(t, err)
	require.EqualValues(t, 3, d.next(0))
}
