package txn

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/engine"
)

func (d *db) begin(s *Store, ms ...engine.Mark) map[int32]bool {
	d.t.Helper()
	ours, err := s.Begin(d.ctx, ms)
	require.NoError(d.t, err)
	return ours
}

// A mark is written where epoch and stored offset match, and nowhere else.
func TestBeginCompares(t *testing.T) {
	d := newDB(t)
	a, b := d.store("a"), d.store("b")
	d.started(a, 3)
	e0, e1, e2 := d.claim(a, 0).Epoch, d.claim(a, 1).Epoch, d.claim(a, 2).Epoch
	d.claim(b, 1)
	ours := d.begin(a, engine.Mark{Partition: 0, Epoch: e0, From: 0, To: 7}, engine.Mark{Partition: 1, Epoch: e1, From: 0, To: 7}, engine.Mark{Partition: 2, Epoch: e2, From: 3, To: 7})
	require.Equal(t, map[int32]bool{0: true}, ours)
	require.EqualValues(t, 1, d.number(`SELECT count(*) FROM partition_offsets WHERE begun_by IS NOT NULL`))
	require.EqualValues(t, 7, d.number(`SELECT begun_to FROM partition_offsets WHERE source_partition = 0`))
}

// A process that is gone in the middle of what it had begun leaves care to the next; over one record alone, an attempt. The capture ends both.
func TestGoneWhileBegun(t *testing.T) {
	d := newDB(t)
	a := d.store("a")
	d.started(a, 1)
	c := d.claim(a, 0)
	require.Equal(t, engine.Care{}, c.Care)
	require.True(t, d.begin(a, engine.Mark{Partition: 0, Epoch: c.Epoch, From: 0, To: 50})[0])

	again := d.claim(a, 0) // we ourselves: nobody is gone
	require.Equal(t, engine.Care{}, again.Care)
	require.True(t, d.begin(a, engine.Mark{Partition: 0, Epoch: again.Epoch, From: 0, To: 50})[0])

	b := d.store("a") // the next process under the same worker id
	c = d.claim(b, 0)
	require.Equal(t, engine.Care{To: 50, Step: 1}, c.Care)
	require.False(t, d.begin(a, engine.Mark{Partition: 0, Epoch: again.Epoch, From: 0, To: 50})[0], "an old owner marks")
	for attempt := 1; attempt <= 3; attempt++ {
		require.True(t, d.begin(b, engine.Mark{Partition: 0, Epoch: c.Epoch, From: 0, To: 1})[0])
		b = d.store("a")
		c = d.claim(b, 0)
		require.Equal(t, engine.Care{To: 50, Step: 1, Attempts: attempt}, c.Care)
	}
	c = d.claim(d.store("b"), 0) // that one had begun nothing
	require.Equal(t, engine.Care{To: 50, Step: 1, Attempts: 3}, c.Care)

	b = d.store("c")
	c = d.claim(b, 0)
	require.True(t, d.begin(b, engine.Mark{Partition: 0, Epoch: c.Epoch, From: 0, To: 1})[0])
	batch := d.batch(0, c.Epoch, 0, 1, 0)
	batch.Care = c.Care.Behind(1)
	require.NotZero(t, d.capture(b, batch)[0])
	c = d.claim(d.store("d"), 0)
	require.Equal(t, engine.Care{To: 50, Step: 1}, c.Care, "the next record has its own attempts")

	b = d.store("e")
	c = d.claim(b, 0)
	require.True(t, d.begin(b, engine.Mark{Partition: 0, Epoch: c.Epoch, From: 1, To: 2})[0])
	require.NotZero(t, d.capture(b, d.batch(0, c.Epoch, 1, 2, 0))[0])
	require.Equal(t, engine.Care{}, d.claim(d.store("f"), 0).Care)
}

// A partition that is given up in order leaves nothing; nor does one whose mark is another's by now.
func TestLeave(t *testing.T) {
	d := newDB(t)
	a, b := d.store("a"), d.store("b")
	d.started(a, 1)
	c := d.claim(a, 0)
	d.begin(a, engine.Mark{Partition: 0, Epoch: c.Epoch, From: 0, To: 5})
	require.NoError(t, a.Leave(d.ctx, []engine.Mark{{Partition: 0, Epoch: c.Epoch}}))
	next := d.claim(b, 0)
	require.Equal(t, engine.Care{}, next.Care)
	d.begin(b, engine.Mark{Partition: 0, Epoch: next.Epoch, From: 0, To: 5})
	require.NoError(t, a.Leave(d.ctx, []engine.Mark{{Partition: 0, Epoch: c.Epoch}}))
	require.EqualValues(t, 1, d.number(`SELECT count(*) FROM partition_offsets WHERE begun_by IS NOT NULL`), "a late leave takes another's mark")
}

// Marks wait for each other's locks in one order, whatever order they come in.
func TestBeginBesideCaptures(t *testing.T) {
	d := newDB(t)
	a := d.store("a")
	d.started(a, 2)
	e0, e1 := d.claim(a, 0).Epoch, d.claim(a, 1).Epoch
	done := make(chan error, 1)
	go func() {
		for range 50 {
			if _, err := a.Begin(d.ctx, []engine.Mark{{Partition: 1, Epoch: e1}, {Partition: 0, Epoch: e0}}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for range 50 {
		for _, seq := range d.capture(a, d.batch(0, e0-1, 0, 1, 0), d.batch(1, e1-1, 0, 1, 0)) {
			require.Zero(t, seq)
		}
	}
	require.NoError(t, <-done)
}
