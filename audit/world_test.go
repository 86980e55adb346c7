package audit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/migrations"
	"github.com/exactly-pipeline/exactly/outbox"
	"github.com/exactly-pipeline/exactly/schema"
)

var serial atomic.Int32

const geoBuild = "2026-01-01"

// forEver is the retention of topics whose records are of last January: by default they would go at the broker's next look.
var forEver = map[string]*string{"retention.ms": kadm.StringPtr("-1")}

var day1, day2 = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// inputRec is a committed input record. click is nil where it can't be decoded.
type inputRec struct {
	part       int32
	offset     int64
	key, value []byte
	ms         int64
	click      *schema.Click
}

type rowRec struct {
	source  int16
	part    int32
	offset  int64
	click   schema.Click
	country string
	geo     string
	at      time.Time
}

type deadRec struct {
	part       int32
	offset     int64
	key, value []byte
	at         time.Time
	message    string
}

type message struct {
	part int32 // source partition
	outbox.Message
	at     time.Time
	salt   ledger.Salt
	record [32]byte
}

type offsetsRow struct {
	next, floor, seq int64
	head             []byte
}

// world is a consistent state of both stores, as a worker would have left it. A damage changes it before it is stored, or what is
// stored after.
//
// Input partition 0: clicks at 0 1 2, marker 3, an aborted transaction at 4 5, marker 6, clicks at 7 9 10 and garbage at 8, marker 11.
// Partition 1: clicks at 0 1 2 4 5 and garbage at 3, written without a transaction.
type world struct {
	t      testing.TB
	ctx    context.Context
	opts   Options
	cl     *kgo.Client
	adm    *kadm.Client
	db     *pgx.Conn
	clicks *schema.ClickEncoder
	events *schema.EnrichedEncoder

	input   []inputRec
	rows    []rowRec
	dead    []deadRec
	outbox  []message
	ledger  []ledger.Entry
	offsets map[int32]*offsetsRow
	publish [][]message // one committed transaction each
	group   map[int32]int64
}

func newWorld(t testing.TB) *world {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	n := serial.Add(1)
	w := &world{t: t, ctx: ctx, offsets: map[int32]*offsetsRow{}, group: map[int32]int64{}}
	admin, err := pgx.Connect(ctx, shared.DSN())
	require.NoError(t, err)
	_, err = admin.Exec(ctx, fmt.Sprintf(`CREATE SCHEMA audit_%d`, n)) // a schema is as good as a database of its own, and cheaper
	require.NoError(t, err)
	require.NoError(t, admin.Close(ctx))
	dsn := inSchema(shared.DSN(), fmt.Sprintf("audit_%d", n))
	_, err = migrations.Up(ctx, dsn)
	require.NoError(t, err)
	w.opts = Options{
		Brokers: strings.Split(shared.Brokers(), ","), DSN: dsn, RegistryURL: shared.RegistryURL(), Group: fmt.Sprintf("audit_g%d", n),
		Input: fmt.Sprintf("audit_in%d", n), Output: fmt.Sprintf("audit_out%d", n), DLQ: fmt.Sprintf("audit_dlq%d", n),
	}
	w.db, err = pgx.Connect(ctx, dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.db.Close(context.Background()) })
	w.cl = w.client()
	w.adm = kadm.NewClient(w.cl)
	created, err := w.adm.CreateTopics(ctx, 2, 1, forEver, w.opts.Input, w.opts.Output, w.opts.DLQ)
	require.NoError(t, err)
	require.NoError(t, created.Error())
	reg, err := schema.NewRegistry(shared.RegistryURL())
	require.NoError(t, err)
	t.Cleanup(reg.Close)
	id, _, err := reg.Register(ctx, "audit_clicks-value", schema.ClickAvsc)
	require.NoError(t, err)
	w.clicks = schema.NewClickEncoder(id)
	id, _, err = reg.Register(ctx, "audit_enriched-value", schema.EnrichedClickAvsc)
	require.NoError(t, err)
	w.events = schema.NewEnrichedEncoder(id)
	return w
}

func inSchema(dsn, name string) string {
	sep := "?"
	if strings.Contains(dsn, "?") {
		sep = "&"
	}
	return dsn + sep + "search_path=" + name
}

func (w *world) client(opts ...kgo.Opt) *kgo.Client {
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(strings.Split(shared.Brokers(), ",")...), kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	require.NoError(w.t, err)
	w.t.Cleanup(cl.Close)
	return cl
}

// producer is a transactional one.
func (w *world) producer() *kgo.Client {
	return w.client(kgo.TransactionalID(fmt.Sprintf("audit_txn%d", serial.Add(1))))
}

// transaction produces the records in one transaction and ends it.
func (w *world) transaction(cl *kgo.Client, end kgo.TransactionEndTry, recs ...*kgo.Record) {
	w.open(cl, recs...)
	require.NoError(w.t, cl.EndTransaction(w.ctx, end))
}

// open leaves the transaction open.
func (w *world) open(cl *kgo.Client, recs ...*kgo.Record) {
	require.NoError(w.t, cl.BeginTransaction())
	require.NoError(w.t, cl.ProduceSync(w.ctx, recs...).FirstErr())
}

// click is the n-th click; every field is its own.
func (w *world) click(n int64) *schema.Click {
	ip := fmt.Sprintf("192.0.2.%d", n%250+1)
	if n%3 == 0 {
		ip = fmt.Sprintf("2001:db8::%x", n%60000+1)
	}
	return &schema.Click{UserID: n + 1, SessionID: fmt.Sprintf("00000000-0000-4000-8000-%012d", n), TimestampMs: 1_767_225_600_000 + n, URL: fmt.Sprintf("https://example.com/%d", n), IP: ip}
}

func (w *world) inputRecord(part int32, n int64, c *schema.Click) *kgo.Record {
	r := &kgo.Record{Topic: w.opts.Input, Partition: part, Key: fmt.Append(nil, n+1), Value: []byte{0, 1}, Timestamp: time.UnixMilli(inputMs(n))}
	if c != nil {
		r.Value = w.clicks.Append(nil, c)
	}
	return r
}

func inputMs(n int64) int64 { return 1_767_225_500_000 + n }

// consistent makes the state described at world: everything captured, everything published.
func consistent(t testing.TB) *world {
	w := newWorld(t)
	add := func(recs ...inputRec) (out []*kgo.Record) {
		for _, r := range recs {
			out = append(out, w.inputRecord(r.part, r.part0n(), r.click))
		}
		w.input = append(w.input, recs...)
		return out
	}
	in := func(part int32, offset int64, good bool) inputRec {
		r := inputRec{part: part, offset: offset}
		if good {
			r.click = w.click(r.part0n())
		}
		return r
	}
	p := w.producer()
	w.transaction(p, kgo.TryCommit, add(in(0, 0, true), in(0, 1, true), in(0, 2, true))...)
	w.transaction(p, kgo.TryAbort, w.inputRecord(0, 4, w.click(4)), w.inputRecord(0, 5, w.click(5)))
	w.transaction(p, kgo.TryCommit, add(in(0, 7, true), in(0, 8, false), in(0, 9, true), in(0, 10, true))...)
	recs := add(in(1, 0, true), in(1, 1, true), in(1, 2, true), in(1, 3, false), in(1, 4, true), in(1, 5, true))
	require.NoError(t, w.cl.ProduceSync(w.ctx, recs...).FirstErr())
	for i := range w.input {
		r := w.inputRecord(w.input[i].part, w.input[i].part0n(), w.input[i].click)
		w.input[i].key, w.input[i].value, w.input[i].ms = r.Key, r.Value, r.Timestamp.UnixMilli()
		w.capture(&w.input[i])
	}
	w.publish = [][]message{w.messages(0, 0, 3), w.messages(1, 0, 3), append(w.messages(0, 3, 99), w.messages(1, 3, 99)...)}
	w.entries(0, 0, 3, 9, 11)
	w.entries(1, 0, 6)
	w.group = map[int32]int64{0: 11, 1: 6}
	return w
}

func (r *inputRec) part0n() int64 { return r.offset + int64(r.part)*100 }

// capture is what a worker makes of an input record.
func (w *world) capture(r *inputRec) {
	at := day1
	if r.part == 1 || r.offset >= 9 {
		at = day2
	}
	m := message{part: r.part, at: at}
	m.SourceOffset, m.Partition, m.TimestampMs, m.Key = r.offset, r.part, 1_767_225_600_000+r.offset, slices.Clone(r.key)
	src := outbox.Header{Key: "exactly-source", Value: fmt.Appendf(nil, "%s/%d/%d", w.opts.Input, r.part, r.offset)}
	if r.click == nil {
		w.dead = append(w.dead, deadRec{r.part, r.offset, slices.Clone(r.key), slices.Clone(r.value), at, "too short"})
		m.Topic, m.Value, m.Headers = w.opts.DLQ, slices.Clone(r.value), []outbox.Header{{Key: "null", Value: nil}, src,
			{Key: "__connect.errors.stage", Value: []byte("parse")}, {Key: "__connect.errors.exception.message", Value: []byte("too short")}, {Key: "exactly-error-class", Value: []byte("decode")}}
	} else {
		w.rows = append(w.rows, rowRec{1, r.part, r.offset, *r.click, "DE", geoBuild, at})
		m.Topic, m.Value = w.opts.Output, w.events.Append(nil, &schema.EnrichedClick{Click: *r.click, Country: "DE"})
		m.Headers = []outbox.Header{src, {Key: "exactly-geo", Value: []byte(geoBuild)}, {Key: "traceparent", Value: []byte("00-1-2-01")}}
	}
	m.salt = ledger.Salt{1, byte(r.part), byte(r.offset), byte(r.offset >> 8)}
	m.record = ledger.RecordHash(m.salt, r.offset, r.ms, r.key, r.value, nil)
	w.outbox = append(w.outbox, m)
}

// digest is that of the messages the outbox has of the entry.
func (w *world) digest(e *ledger.Entry) []byte {
	d := ledger.NewDigest()
	for i := range w.outbox {
		if m := &w.outbox[i]; m.part == e.Partition && m.SourceOffset >= e.From && m.SourceOffset < e.To {
			hash := ledger.MessageHash(m.salt, &m.Message)
			d.Hash(m.record[:])
			d.Hash(hash[:])
		}
	}
	return d.Sum()
}

// messages are deep copies of the outbox's: what is published must be damaged without damaging what is stored.
func (w *world) messages(part int32, from, to int64) (out []message) {
	for _, m := range w.outbox {
		if m.part == part && m.SourceOffset >= from && m.SourceOffset < to {
			m.Key, m.Value, m.Headers = slices.Clone(m.Key), slices.Clone(m.Value), slices.Clone(m.Headers)
			out = append(out, m)
		}
	}
	return out
}

// entries writes the ledger of one partition: a start, then captures that end at each of ends.
func (w *world) entries(part int32, start int64, ends ...int64) {
	e := ledger.Entry{SourceID: 1, Partition: part, Seq: 1, Kind: ledger.Start, From: start, To: start, Worker: "w", Why: "earliest", CommittedAt: day1}
	w.ledger = append(w.ledger, e)
	for i, end := range ends {
		e = ledger.Entry{SourceID: 1, Partition: part, Seq: int64(i) + 2, Kind: ledger.Capture, From: e.To, To: end, Epoch: 1, Worker: "w", CommittedAt: day1.Add(1234567 * time.Microsecond)}
		for _, r := range w.input {
			if r.part == part && r.offset >= e.From && r.offset < e.To {
				e.Records++
				e.Events++
				if r.click != nil {
					e.Rows++
				} else {
					e.DeadLetters++
				}
			}
		}
		e.Digest = w.digest(&e)
		w.ledger = append(w.ledger, e)
	}
	w.offsets[part] = &offsetsRow{next: e.To}
	w.seal()
}

// seal makes the chain true again.
func (w *world) seal() {
	heads := map[int32][]byte{}
	for i := range w.ledger {
		e := &w.ledger[i]
		e.PrevHash = heads[e.Partition]
		heads[e.Partition] = e.Hash()
		w.offsets[e.Partition].seq, w.offsets[e.Partition].head = e.Seq, heads[e.Partition]
	}
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	tag, err := w.db.Exec(w.ctx, sql, args...)
	require.NoError(w.t, err)
	require.False(w.t, (tag.Update() || tag.Delete() || tag.Insert()) && tag.RowsAffected() == 0, "a damage that did nothing: %s", sql)
}

// find is the place of what came from the coordinate.
func find[T any](t testing.TB, of []T, is func(*T) bool) int {
	for i := range of {
		if is(&of[i]) {
			return i
		}
	}
	require.Fail(t, "the fixture has no such thing")
	return -1
}

func (w *world) event(part int32, offset int64) *message {
	for _, txn := range w.publish {
		for i := range txn {
			if txn[i].part == part && txn[i].SourceOffset == offset {
				return &txn[i]
			}
		}
	}
	require.Fail(w.t, "the fixture has no such event")
	return nil
}

func (w *world) msg(part int32, offset int64) *message {
	return &w.outbox[find(w.t, w.outbox, func(m *message) bool { return m.part == part && m.SourceOffset == offset })]
}

func (w *world) row(part int32, offset int64) *rowRec {
	return &w.rows[find(w.t, w.rows, func(r *rowRec) bool { return r.part == part && r.offset == offset })]
}

// unpublish takes an event out of what will be produced.
func (w *world) unpublish(part int32, offset int64) message {
	gone := *w.event(part, offset)
	for i := range w.publish {
		w.publish[i] = slices.DeleteFunc(w.publish[i], func(m message) bool { return m.part == part && m.SourceOffset == offset })
	}
	return gone
}

func ownHash(e *ledger.Entry) []byte { return e.Hash() }

// said is the findings as "class sink coordinate", sorted.
func said(rep *Report) []string {
	out := []string{}
	for _, f := range rep.Findings {
		at := f.Coordinate()
		if f.Partition < 0 {
			at = "@" + fmt.Sprint(f.At.Partition)
		}
		out = append(out, fmt.Sprintf("%s %s %s", f.Class, f.Sink, at))
	}
	slices.Sort(out)
	return out
}

func (w *world) audit() *Report {
	w.t.Helper()
	rep, err := Run(w.ctx, w.opts)
	require.NoError(w.t, err)
	for _, f := range rep.Findings { // no value of a click in a report
		require.NotContains(w.t, f.Says, "example.com")
		require.NotContains(w.t, f.Says, "192.0.2.")
	}
	return rep
}

func sentences(rep *Report) string {
	var b strings.Builder
	for _, f := range rep.Findings {
		fmt.Fprintf(&b, "%s %s %s: %s\n", f.Class, f.Sink, f.Coordinate(), f.Says)
	}
	return b.String()
}
