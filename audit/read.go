package audit

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/outbox"
	"github.com/exactly-pipeline/exactly/schema"
)

// Record is one input record in each of its forms, bytes and all. Locate says where it is; this is what is there, found by indexes and by seeking,
// so that a person can look at it: personal data is in it.
type Record struct {
	Topic     string
	Partition int32
	Offset    int64
	Stored    int64
	Group     int64  // -1: none
	State     string // for people, as in Place
	Input     *Message
	Click     *schema.Click // the input decoded, its address in the form that privacy.ip gives it
	Entries   []LedgerPlace
	Rows      []StoredRow
	Dead      []DeadRow
	Outbox    []Message
	Events    []Message // of both output topics
	Sought    string    // why an event may be there though it was not found; empty: it is not there, or it is
	Checks    []Check
}

// Message is a Kafka record, or one to be.
type Message struct {
	At          At
	TimestampMs int64
	Key, Value  []byte
	Headers     []outbox.Header
	Enriched    *schema.EnrichedClick // decoded; nil: it is no enriched click

	// of the outbox
	Table        string
	CreatedAt    time.Time
	Seq          int16
	Erased       bool
	Salt         []byte
	RecordHash   []byte
	HeaderDamage bool
}

// StoredRow is a row of enriched_clicks.
type StoredRow struct {
	Table      string
	CapturedAt time.Time
	schema.EnrichedClick
	Geo string
}

// DeadRow is a row of dead_letters.
type DeadRow struct {
	Table                 string
	CreatedAt             time.Time
	Class, Stage, Message string
	Key, Value            []byte
}

// Reader reads single records. It keeps its connection to Kafka, which is made when it is first needed. It is safe for concurrent use.
type Reader struct {
	opts Options
	mu   sync.Mutex // one at a time: a person waits for each
	r    *run
	done func()
}

// NewReader makes a reader.
func NewReader(o Options) (*Reader, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	o.StableWait = time.Millisecond // the last stable group offset is as true, only older
	return &Reader{opts: o}, nil
}

// Close ends the connections.
func (d *Reader) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.r != nil {
		d.r.kafka.close()
		d.done()
		d.r = nil
	}
}

func (d *Reader) open(ctx context.Context) error {
	if d.r != nil {
		return nil
	}
	r := newRun(d.opts)
	dec, done, err := newDecoder(&r.opts)
	if err != nil {
		return err
	}
	r.dec = dec
	if r.kafka, err = newKafka(ctx, &r.opts); err != nil {
		done()
		return err
	}
	d.r, d.done = r, done
	return nil
}

// DB is what a Reader reads Postgres with: a pgx pool or connection.
type DB interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Read is the record at a coordinate of the source.
func (d *Reader) Read(ctx context.Context, db DB, sourceID int16, n int32, offset int64) (*Record, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	what := func(err error) error { return fmt.Errorf("read %s/%d/%d: %w", d.opts.Input, n, offset, err) }
	if err := d.open(ctx); err != nil {
		return nil, what(err)
	}
	r := &Record{Topic: d.opts.Input, Partition: n, Offset: offset, Group: -1}
	group, _, err := d.r.groupOffsets(ctx)
	if err != nil {
		return nil, what(err)
	}
	if at, ok := group[n]; ok {
		r.Group = at
	}
	err = db.QueryRow(ctx, `SELECT coalesce((SELECT next_offset FROM partition_offsets WHERE source_id = $1 AND source_partition = $2), 0)`, sourceID, n).Scan(&r.Stored)
	if err == nil {
		err = r.readPostgres(ctx, db, sourceID)
	}
	if err == nil {
		err = d.readKafka(ctx, r)
	}
	if err != nil {
		return nil, what(err)
	}
	d.decode(ctx, r)
	r.State = r.place().state()
	r.Checks = d.r.checks(r)
	return r, nil
}

// place is the record as Locate has it, as far as its state goes.
func (r *Record) place() *Place {
	l := &Place{Offset: r.Offset, Stored: r.Stored, Group: r.Group, Entries: r.Entries, Rows: make([]RowPlace, len(r.Rows)), DeadLetters: make([]RowPlace, len(r.Dead)), Events: make([]At, len(r.Events))}
	if r.Input != nil {
		l.Input = &time.Time{}
	}
	return l
}

// readKafka reads the record itself, and its events where the outbox says that they go, or would.
func (d *Reader) readKafka(ctx context.Context, r *Record) error {
	k := d.r.kafka
	if int(r.Partition) >= len(k.topics[r.Topic].Partitions) {
		return fmt.Errorf("topic %s has no partition %d", r.Topic, r.Partition)
	}
	starts, err := k.offsets(ctx, "start offsets", k.adm.ListStartOffsets, r.Topic, d.opts.Output, d.opts.DLQ)
	if err != nil {
		return err
	}
	ends, err := k.offsets(ctx, "stable ends", k.adm.ListCommittedOffsets, r.Topic, d.opts.Output, d.opts.DLQ)
	if err != nil {
		return err
	}
	if r.Offset >= starts[r.Topic][r.Partition] && r.Offset < ends[r.Topic][r.Partition] {
		recs, _, err := k.fetchOnce(ctx, r.Topic, r.Partition, k.topics[r.Topic].Partitions[r.Partition].Leader, r.Offset, seekBytes)
		if err != nil {
			return err
		}
		if len(recs) > 0 && recs[0].Offset == r.Offset {
			m := asRecord(recs[0])
			r.Input = &m
		}
	}
	for at := range r.targets(k, d.opts.Output, d.opts.DLQ) {
		s := &seeker{k: k, input: r.Topic, topic: at.Topic, partition: at.Partition, want: source{r.Partition, r.Offset}, left: seekFetches}
		rec, err := s.seek(ctx, starts[at.Topic][at.Partition], ends[at.Topic][at.Partition])
		switch {
		case err != nil && ctx.Err() == nil:
			r.Sought = fmt.Sprintf("%s/%d: %v", at.Topic, at.Partition, err)
		case err != nil:
			return err
		case rec != nil:
			r.Events = append(r.Events, asRecord(rec))
		}
	}
	return nil
}

// targets are the output partitions that an event of the record can be in.
func (r *Record) targets(k *kafka, output, dlq string) map[At]bool {
	out := map[At]bool{}
	for _, m := range r.Outbox {
		out[At{m.At.Topic, m.At.Partition, 0}] = true
	}
	if len(out) > 0 || r.Offset >= r.Stored {
		return out
	}
	topic := output // the outbox was pruned: where capture put it, by the same rule
	if len(r.Dead) > 0 {
		topic = dlq
	}
	var key []byte
	if r.Input != nil {
		key = r.Input.Key
	} else if len(r.Rows) > 0 {
		key = fmt.Append(nil, r.Rows[0].UserID)
	}
	if n := len(k.topics[topic].Partitions); n > 0 && (key != nil || r.Input != nil) {
		out[At{topic, outbox.Partition(key, r.Partition, n), 0}] = true
	}
	return out
}

func asHeaders(hs []kgo.RecordHeader) []outbox.Header {
	out := make([]outbox.Header, len(hs))
	for i, h := range hs {
		out[i] = outbox.Header{Key: h.Key, Value: h.Value}
	}
	return out
}

func asRecord(r *kgo.Record) Message {
	return Message{At: At{r.Topic, r.Partition, r.Offset}, TimestampMs: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value, Headers: asHeaders(r.Headers)}
}

// decode decodes what can be. What can't, stays as bytes.
func (d *Reader) decode(ctx context.Context, r *Record) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second) // a registry that is away costs the decoded view, not the page
	defer cancel()
	if r.Input != nil {
		var c schema.Click
		if d.r.dec.click(ctx, r.Input.Value, &c) == nil {
			r.Click = &c
		}
	}
	for _, ms := range [][]Message{r.Outbox, r.Events} {
		for i := range ms {
			var e schema.EnrichedClick
			if ms[i].At.Topic == d.opts.Output && !ms[i].Erased && d.r.dec.enriched(ctx, ms[i].Value, &e) == nil {
				ms[i].Enriched = &e
			}
		}
	}
}

// Trace is the trace id (W3C) that the record came with, empty if none.
func (r *Record) Trace() string {
	var hs []outbox.Header
	switch {
	case r.Input != nil:
		hs = r.Input.Headers
	case len(r.Outbox) > 0:
		hs = r.Outbox[0].Headers
	}
	if f := strings.Split(header(hs, "traceparent"), "-"); len(f) == 4 && len(f[1]) == 32 {
		return f[1]
	}
	return ""
}
