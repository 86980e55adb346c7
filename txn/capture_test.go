package txn

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/stack"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/migrations"
	"github.com/exactly-pipeline/exactly/outbox"
)

// shared is one Postgres for the tests that need a real one; each has a database of its own.
var shared *stack.Stack

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "exactly-txn-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the system's temporary folder
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if shared, err = stack.Start(ctx, stack.Options{Dir: filepath.Join(dir, "stack"), NoSyncKafka: true, NoSyncPostgres: true}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer shared.Stop() //nolint:errcheck // its directory goes as well
	return m.Run()
}

// db is a database with one source, and a plain connection to look at it.
type db struct {
	t    *testing.T
	ctx  context.Context
	dsn  string
	src  Source
	conn *pgx.Conn
}

func newDB(t *testing.T) *db {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	d := &db{t: t, ctx: ctx}
	var err error
	d.dsn, err = shared.NewDatabase(ctx, fmt.Sprintf("t%d", time.Now().UnixNano()))
	require.NoError(t, err)
	_, err = migrations.Up(ctx, d.dsn)
	require.NoError(t, err)
	d.conn, err = pgx.Connect(ctx, d.dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = d.conn.Close(context.Background()) })
	d.src = Source{
		Topic: "in", ClusterID: "c", Group: "g", Start: "earliest",
		TopicIDs: map[string]string{"in": "6f1ed002-0000-0000-0000-000000000001", "out": "6f1ed002-0000-0000-0000-000000000002"},
	}
	d.src.ID, err = AddSource(ctx, d.conn, d.src)
	require.NoError(t, err)
	return d
}

func (d *db) store(worker string) *Store {
	d.t.Helper()
	s, err := OpenStore(d.ctx, StoreConfig{
		DSN: d.dsn, Group: "g", Worker: worker, Build: "v1", LockTimeout: 300 * time.Millisecond, IdleTimeout: 20 * time.Second, Log: zaptest.NewLogger(d.t),
	}, d.src)
	require.NoError(d.t, err)
	d.t.Cleanup(s.Close)
	return s
}

func (d *db) exec(sql string, args ...any) {
	d.t.Helper()
	_, err := d.conn.Exec(d.ctx, sql, args...)
	require.NoError(d.t, err)
}

func (d *db) number(sql string, args ...any) (n int64) {
	d.t.Helper()
	require.NoError(d.t, d.conn.QueryRow(d.ctx, sql, args...).Scan(&n))
	return n
}

func (d *db) next(p int32) int64 {
	d.t.Helper()
	return d.number(`SELECT next_offset FROM partition_offsets WHERE source_partition = $1`, p)
}

// started makes the rows of n partitions, at 0.
func (d *db) started(s *Store, n int32) {
	d.t.Helper()
	require.NoError(d.t, s.Start(d.ctx, 0, func(context.Context) (map[int32]int64, error) {
		m := map[int32]int64{}
		for p := range n {
			m[p] = 0
		}
		return m, nil
	}))
}

func (d *db) claim(s *Store, p int32) engine.Claim {
	d.t.Helper()
	c, err := s.Claim(d.ctx, p)
	require.NoError(d.t, err)
	return c
}

// batch is what [from,to) of a partition makes: one event a record.
func (d *db) batch(p int32, epoch, from, to, floor int64) *engine.Batch {
	b := &engine.Batch{Partition: p, Epoch: epoch, From: from, To: to, Records: to - from, Floor: floor, LeaderEpoch: 2, Schemas: "3>4", Geo: "geo/1"}
	dig := ledger.NewDigest()
	for o := from; o < to; o++ {
		m := outbox.Message{SourceOffset: o, Topic: "out", Partition: 1, TimestampMs: 1000 + o, Key: []byte("k"), Value: fmt.Appendf(nil, "%d/%d", p, o), Headers: []outbox.Header{{Key: "null"}}}
		b.Messages = append(b.Messages, m)
		salt := ledger.Salt{byte(o)}
		b.Outbox = outbox.AppendTuple(b.Outbox, d.src.ID, p, &m, salt[:], dig.Record(salt, o, 1000+o, m.Key, m.Value, nil))
		dig.Message(&m)
	}
	b.Digest = dig.Sum()
	return b
}

func (d *db) capture(s *Store, bs ...*engine.Batch) []int64 {
	d.t.Helper()
	seqs, err := s.Capture(d.ctx, bs)
	require.NoError(d.t, err)
	return seqs
}

// Guard 1: epoch and next_offset are compared. What does not match is left out, the others are captured.
func TestCaptureCompares(t *testing.T) {
	d := newDB(t)
	a, b := d.store("a"), d.store("b")
	d.started(a, 5)
	var epoch [5]int64
	for p := range int32(5) {
		epoch[p] = d.claim(a, p).Epoch
	}
	d.claim(b, 1) // partition 1 was claimed by another worker: same offset, newer epoch
	d.exec(`UPDATE partition_offsets SET next_offset = 7 WHERE source_partition = 2`)
	d.exec(`UPDATE partition_offsets SET state = 'held' WHERE source_partition = 3`)
	var batches []*engine.Batch
	for p := range int32(5) {
		batches = append(batches, d.batch(p, epoch[p], 0, 3, 0))
	}
	require.Equal(t, []int64{2, 0, 0, 0, 2}, d.capture(a, batches...))
	require.EqualValues(t, 6, d.number(`SELECT count(*) FROM outbox`))
	for p, want := range []int64{3, 0, 7, 0, 3} {
		require.Equal(t, want, d.next(int32(p)), "partition %d", p)
	}
	require.Equal(t, []int64{0}, d.capture(a, d.batch(0, epoch[0], 0, 3, 0)), "the same again")
	require.Equal(t, []int64{3}, d.capture(a, d.batch(0, epoch[0], 3, 5, 0)), "a refused capture leaves no transaction behind")
}

// The ledger's chain: each entry has the hash of the one before, and the row its newest.
func TestLedgerChain(t *testing.T) {
	d := newDB(t)
	s := d.store("a")
	d.started(s, 1)
	epoch := d.claim(s, 0).Epoch
	for i := range int64(4) {
		require.Equal(t, []int64{i + 2}, d.capture(s, d.batch(0, epoch, i*3, i*3+3, 0)))
	}
	rows, err := d.conn.Query(d.ctx, `SELECT `+ledger.Columns+` FROM offset_ledger ORDER BY seq`)
	require.NoError(t, err)
	var prev []byte
	var captures []ledger.Entry
	seq := int64(0)
	for rows.Next() {
		var e ledger.Entry
		hash, err := e.Scan(rows)
		require.NoError(t, err)
		seq++
		require.Equal(t, seq, e.Seq)
		require.Equal(t, e.Hash(), hash)
		require.True(t, string(prev) == string(e.PrevHash), "entry %d", seq)
		prev = hash
		if e.Kind == ledger.Capture {
			require.Equal(t, []string{"v1", "3>4", "geo/1", ""}, []string{e.Build, e.Schemas, e.Geo, e.Who})
			captures = append(captures, e)
		} else {
			require.Equal(t, []string{"v1", ledger.Whoami()}, []string{e.Build, e.Who})
		}
	}
	require.NoError(t, rows.Err())
	require.EqualValues(t, 5, seq)
	require.Len(t, captures, 4)
	for _, e := range captures {
		require.Equal(t, d.digest(0, e.From, e.To), e.Digest)
	}
	var head []byte
	require.NoError(t, d.conn.QueryRow(d.ctx, `SELECT ledger_head FROM partition_offsets`).Scan(&head))
	require.Equal(t, prev, head)
}

// digest is what the outbox says that the digest of [from,to) must be.
func (d *db) digest(p int32, from, to int64) []byte {
	d.t.Helper()
	rows, err := d.conn.Query(d.ctx, `SELECT source_offset, seq, topic, partition, "timestamp", key, value, headers, salt, record_hash FROM outbox
		WHERE source_partition = $1 AND source_offset >= $2 AND source_offset < $3 ORDER BY source_offset, seq`, p, from, to)
	require.NoError(d.t, err)
	dig := ledger.NewDigest()
	last := int64(-1)
	for rows.Next() {
		var m outbox.Message
		var headers, salt, record []byte
		require.NoError(d.t, rows.Scan(&m.SourceOffset, &m.Seq, &m.Topic, &m.Partition, &m.TimestampMs, &m.Key, &m.Value, &headers, &salt, &record))
		m.Headers, err = outbox.ParseHeaders(headers)
		require.NoError(d.t, err)
		if m.SourceOffset != last {
			dig.Hash(record)
		}
		hash := ledger.MessageHash(ledger.Salt(salt), &m)
		dig.Hash(hash[:])
		last = m.SourceOffset
	}
	require.NoError(d.t, rows.Err())
	return dig.Sum()
}

func TestFloorNeverLowers(t *testing.T) {
	d := newDB(t)
	s := d.store("a")
	d.started(s, 1)
	epoch := d.claim(s, 0).Epoch
	for i, floor := range []int64{2, 1, 0, 3} {
		d.capture(s, d.batch(0, epoch, int64(i)*3, int64(i)*3+3, floor))
		require.Equal(t, max(2, floor), d.number(`SELECT published_at_least FROM partition_offsets`))
	}
	c := d.claim(s, 0)
	require.EqualValues(t, 3, c.Floor)
	require.True(t, c.Captured)
	require.EqualValues(t, 2, c.LeaderEpoch)
	require.EqualValues(t, 12, c.Next)
}

// A claim names everybody who may have left a transaction open, until the gap is drained.
func TestPredecessors(t *testing.T) {
	d := newDB(t)
	a, b, c := d.store("a"), d.store("b"), d.store("c")
	d.started(a, 1)
	e := d.claim(a, 0)
	require.Empty(t, e.Predecessors)
	require.NoError(t, a.Drained(d.ctx, 0, e.Epoch))
	require.Equal(t, []string{"a"}, d.claim(b, 0).Predecessors)
	e = d.claim(c, 0)
	require.Equal(t, []string{"a", "b"}, e.Predecessors)
	require.NoError(t, b.Drained(d.ctx, 0, e.Epoch-1), "too late")
	require.Equal(t, []string{"a", "b", "c"}, d.claim(b, 0).Predecessors)
	require.NoError(t, b.Drained(d.ctx, 0, e.Epoch+1))
	require.Equal(t, []string{"b"}, d.claim(a, 0).Predecessors)
}

// A person's deed makes no partition one that something was captured of.
func TestDeedsAreNoCaptures(t *testing.T) {
	d := newDB(t)
	s := d.store("a")
	d.started(s, 1)
	require.NoError(t, pgx.BeginFunc(d.ctx, d.conn, func(tx pgx.Tx) error {
		e, err := ledger.AppendDeed(d.ctx, tx, ledger.Deed{SourceID: d.src.ID, Kind: ledger.Hold, Why: "y", Who: "p"})
		require.EqualValues(t, 2, e.Seq)
		return err
	}))
	c := d.claim(s, 0)
	require.EqualValues(t, 2, c.LedgerSeq)
	require.False(t, c.Captured)
	require.Equal(t, []int64{3}, d.capture(s, d.batch(0, c.Epoch, 0, 3, 0)), "and the chain goes on")
	require.True(t, d.claim(s, 0).Captured)
	err := pgx.BeginFunc(d.ctx, d.conn, func(tx pgx.Tx) error {
		_, err := ledger.AppendDeed(d.ctx, tx, ledger.Deed{SourceID: d.src.ID, Partition: 9, Kind: ledger.Hold})
		return err
	})
	require.ErrorIs(t, err, ledger.ErrNoRow)
}

func TestClaimOfNothingAndOfHeld(t *testing.T) {
	d := newDB(t)
	s := d.store("a")
	_, err := s.Claim(d.ctx, 0)
	require.ErrorIs(t, err, engine.ErrNoRow)
	d.started(s, 1)
	d.exec(`UPDATE partition_offsets SET state = 'held', held_by = 'heal', held_why = 'rebuild'`)
	_, err = s.Claim(d.ctx, 0)
	var held *engine.HeldError
	require.ErrorAs(t, err, &held)
	require.Equal(t, engine.HeldError{By: "heal", Why: "rebuild"}, *held)
	require.Zero(t, d.number(`SELECT epoch FROM partition_offsets`), "a held row's epoch is not raised")
}

// The first start chooses for all partitions, once; those that come later begin at 0.
func TestStart(t *testing.T) {
	d := newDB(t)
	a, b := d.store("a"), d.store("b")
	asked := 0
	from := func(context.Context) (map[int32]int64, error) { asked++; return map[int32]int64{0: 10, 1: 20}, nil }
	require.Error(t, a.Start(d.ctx, 0, func(context.Context) (map[int32]int64, error) { return nil, errors.New("kafka is away") }))
	require.NoError(t, a.Start(d.ctx, 1, from))
	require.NoError(t, b.Start(d.ctx, 0, from))
	require.NoError(t, b.Start(d.ctx, 2, from))
	require.Equal(t, 1, asked)
	for p, want := range []int64{10, 20, 0} {
		require.Equal(t, want, d.next(int32(p)))
		require.EqualValues(t, 1, d.number(`SELECT count(*) FROM offset_ledger WHERE kind = 'start' AND source_partition = $1 AND from_offset = $2`, p, want))
	}
	require.False(t, d.claim(a, 0).Captured)
}

func TestIncarnation(t *testing.T) {
	d := newDB(t)
	first := d.store("a")
	current, err := first.Incarnation(d.ctx)
	require.NoError(t, err)
	require.True(t, current)
	second, other := d.store("a"), d.store("b")
	for s, want := range map[*Store]bool{first: false, second: true, other: true} {
		current, err := s.Incarnation(d.ctx)
		require.NoError(t, err)
		require.Equal(t, want, current)
	}
}
