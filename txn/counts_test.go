package txn

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/exactly-pipeline/exactly/engine"
)

func minutes(n int) *engine.Counts {
	return &engine.Counts{Table: "click_counts", Label: "country", Amount: "clicks", Window: time.Duration(n) * time.Minute}
}

func (d *db) counting(worker string, c *engine.Counts) *Store {
	d.t.Helper()
	s, err := OpenStore(d.ctx, StoreConfig{
		DSN: d.dsn, Group: "g", Worker: worker, Build: "v1", LockTimeout: 300 * time.Millisecond, IdleTimeout: 20 * time.Second, Connections: 2, Counts: c, Log: zaptest.NewLogger(d.t),
	}, d.src)
	require.NoError(d.t, err)
	d.t.Cleanup(s.Close)
	return s
}

// counted is a batch of [from,to) that counts n clicks from Liechtenstein in a minute of 1970, and one from Austria.
func (d *db) counted(p int32, epoch, from, to, minute, n int64) *engine.Batch {
	b := d.batch(p, epoch, from, to, 0)
	b.Counts = map[engine.Cell]int64{{StartMs: minute * 60_000, Label: "LI"}: n, {StartMs: minute * 60_000, Label: "AT"}: 1}
	return b
}

// is what a partition's count is, and of which offsets.
func (d *db) is(p int32, from, to, clicks int64) {
	d.t.Helper()
	var f, o int64
	require.NoError(d.t, d.conn.QueryRow(d.ctx, `SELECT counted_from, counted_to FROM partition_offsets WHERE source_partition = $1`, p).Scan(&f, &o))
	require.Equal(d.t, []int64{from, to, clicks}, []int64{f, o, d.number(`SELECT coalesce(sum(clicks), 0)::bigint FROM click_counts WHERE source_partition = $1`, p)}, "partition %d", p)
}

// Counts are added to by the captures that land, in rows of the partition's own, and by no other; the view sums them up.
func TestCounts(t *testing.T) {
	d := newDB(t)
	s := d.counting("a", minutes(1))
	d.started(s, 3)
	e0, e1, e2 := d.claim(s, 0).Epoch, d.claim(s, 1).Epoch, d.claim(s, 2).Epoch
	require.Equal(t, []int64{2, 2, 0}, d.capture(s, d.counted(0, e0, 0, 1000, 0, 7), d.counted(1, e1, 0, 1000, 0, 2), d.counted(2, e2-1, 0, 1000, 0, 5)))
	d.capture(s, d.counted(0, e0, 1000, 1001, 0, 1), d.counted(1, e1, 1000, 1005, 5, 1)) // the latter is late, or early: its own window
	d.capture(s, d.batch(0, e0, 1001, 1002, 0))                                          // a dead letter alone
	d.is(0, 0, 1002, 10)
	d.is(1, 0, 1005, 5)
	require.Zero(t, d.number(`SELECT count(*) FROM click_counts WHERE source_partition = 2`))
	rows, err := d.conn.Query(d.ctx, `SELECT to_char(window_start AT TIME ZONE 'UTC', 'MI:SS') || ' ' || country || ' ' || clicks FROM click_counts_total ORDER BY 1`)
	require.NoError(t, err)
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Equal(t, []string{"00:00 AT 3", "00:00 LI 10", "05:00 AT 1", "05:00 LI 1"}, got)

	// A capture that fails at the end, with the counts added, adds nothing.
	d.exec(`ALTER TABLE click_counts ADD CONSTRAINT few CHECK (clicks < 50)`)
	_, err = s.Capture(d.ctx, []*engine.Batch{d.counted(0, e0, 1002, 1003, 0, 99)})
	require.Error(t, err)
	d.is(0, 0, 1002, 10)
	require.EqualValues(t, 1002, d.next(0))
}

// Where a capture was not counted, or in other windows, the partition's counts begin anew: what is there is always what it says.
func TestCountsBeginAnew(t *testing.T) {
	d := newDB(t)
	off, on, wide := d.store("off"), d.counting("on", minutes(1)), d.counting("wide", minutes(5))
	d.started(off, 2)
	next := map[int32]int64{}
	capture := func(s *Store, p int32) {
		t.Helper()
		b := d.counted(p, d.claim(s, p).Epoch, next[p], next[p]+10, 5, 9)
		if s == off {
			_, err := s.Capture(d.ctx, []*engine.Batch{b})
			require.ErrorContains(t, err, "StoreConfig.Counts")
			b.Counts = nil
		}
		require.NotZero(t, d.capture(s, b)[0])
		next[p] += 10
	}
	capture(off, 0)
	require.Zero(t, d.number(`SELECT count(*) FROM click_counts`))
	require.Zero(t, d.number(`SELECT count(counted_to) FROM partition_offsets`))
	capture(on, 0)
	capture(on, 0)
	capture(on, 1)
	d.is(0, 10, 30, 20)
	capture(off, 0)
	d.is(0, 10, 30, 20) // nothing more is counted, and nothing more is said to be
	capture(on, 0)
	d.is(0, 40, 50, 10)
	capture(wide, 0)
	capture(wide, 0)
	d.is(0, 50, 70, 20)
	require.EqualValues(t, 300, d.number(`SELECT counted_window_s FROM partition_offsets WHERE source_partition = 0`))
	d.is(1, 0, 10, 10) // nobody else's business
	capture(on, 1)
	d.is(1, 0, 20, 20)
}

// What a heal rebuilds is counted as a capture is.
func TestCountBatch(t *testing.T) {
	d := newDB(t)
	s := d.counting("a", minutes(1))
	d.started(s, 1)
	e := d.claim(s, 0).Epoch
	d.capture(s, d.counted(0, e, 0, 10, 5, 9))
	count := func(from, to int64) {
		t.Helper()
		require.NoError(t, pgx.BeginFunc(d.ctx, d.conn, func(tx pgx.Tx) error {
			return CountBatch(d.ctx, tx, minutes(1), d.src.ID, d.counted(0, 0, from, to, 5, 9))
		}))
	}
	count(10, 20)
	d.is(0, 0, 20, 20)
	count(25, 30)
	d.is(0, 25, 30, 10)
	require.EqualValues(t, 10, d.next(0), "the stored offset is the caller's")
}
