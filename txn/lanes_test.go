package txn

import (
	"testing"

	"github.com/stretchr/testify/require"

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
