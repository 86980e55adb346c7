package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/outbox"
)

// Place is where one input record is in each sink.
type Place struct {
	Topic       string        `json:"topic"`
	Partition   int32         `json:"partition"`
	Offset      int64         `json:"offset"`
	Stored      int64         `json:"stored"`
	Group       int64         `json:"group"`
	State       string        `json:"state"` // for people: what has become of it
	Input       *time.Time    `json:"input"` // the record's timestamp; null: it is not in the topic (any more)
	Entries     []LedgerPlace `json:"ledger"`
	Rows        []RowPlace    `json:"rows"`
	DeadLetters []RowPlace    `json:"dead_letters"`
	Outbox      []OutboxPlace `json:"outbox"`
	Events      []At          `json:"events"`
	DLQ         []At          `json:"dlq"`
}

// LedgerPlace is an entry that covers the record.
type LedgerPlace struct {
	Seq         int64     `json:"seq"`
	Kind        string    `json:"kind"`
	From        int64     `json:"from"`
	To          int64     `json:"to"`
	Worker      string    `json:"worker"`
	Epoch       int64     `json:"epoch"`
	Who         string    `json:"who"`
	Why         string    `json:"why"`
	Build       string    `json:"build"`
	Schemas     string    `json:"schemas"`
	Geo         string    `json:"geo"`
	Hash        string    `json:"hash"`
	CommittedAt time.Time `json:"committed_at"`
}

// RowPlace is a row in a table.
type RowPlace struct {
	Table      string    `json:"table"` // the time partition
	CapturedAt time.Time `json:"captured_at"`
	Says       string    `json:"says"` // country and geo build of a row, class and stage of a dead letter
}

// OutboxPlace is a message in the outbox.
type OutboxPlace struct {
	Table     string    `json:"table"`
	CreatedAt time.Time `json:"created_at"`
	Seq       int16     `json:"seq"`
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Erased    bool      `json:"erased"`
	Record    string    `json:"record_hash"` // whether it is the hash of the input's record: "is the input's", "is NOT the input's", or why that can't be said
}

// Locate says where one input record is: in each sink, by which capture, under which entry. It reads the record's output partition whole.
func Locate(ctx context.Context, opts Options, n int32, offset int64) (*Place, error) {
	opts.Partition = &n
	if err := opts.fill(); err != nil {
		return nil, err
	}
	r := newRun(opts)
	var err error
	if r.kafka, err = newKafka(ctx, &r.opts); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	defer r.kafka.close()
	if err := r.readGroup(ctx); err != nil {
		return nil, fmt.Errorf("audit: read group offsets: %w", err)
	}
	if err := r.openSnapshot(ctx); err != nil {
		r.pg.close()
		return nil, fmt.Errorf("audit: read Postgres snapshot: %w", err)
	}
	defer r.pg.close()
	p := r.part(n)
	l := &Place{Topic: opts.Input, Partition: n, Offset: offset, Stored: p.stored, Group: p.group, Events: []At{}, DLQ: []At{}}
	if err := r.locateRows(ctx, l); err != nil {
		return nil, fmt.Errorf("audit: read tables: %w", err)
	}
	if err := r.locateEvents(ctx, l); err != nil {
		return nil, fmt.Errorf("audit: read output topics: %w", err)
	}
	l.State = l.state()
	return l, nil
}

func (l *Place) state() string {
	stored, sent := len(l.Rows)+len(l.DeadLetters), len(l.Events)+len(l.DLQ)
	switch {
	case len(l.Entries) > 0 && (l.Entries[0].Kind == "accept_loss" || l.Entries[0].Kind == "reset"):
		return fmt.Sprintf("given up by %s: %s", l.Entries[0].Who, l.Entries[0].Why)
	case l.Offset >= l.Stored && stored+sent == 0:
		return "waiting: not captured yet"
	case l.Input == nil && stored+sent == 0:
		return "no such record: an aborted one, a transaction's marker, or removed by retention"
	case stored == 1 && sent == 1:
		return "once in Postgres and once in Kafka"
	case stored == 1 && sent == 0 && l.Offset >= l.Group:
		return "once in Postgres, still owed to Kafka"
	}
	return fmt.Sprintf("%d times in Postgres and %d times in Kafka: run exactly audit", stored, sent)
}

func (r *run) locateRows(ctx context.Context, l *Place) error {
	in := r.recordAt(ctx, l.Partition, l.Offset)
	if in != nil {
		l.Input = &in.Timestamp
	}
	where := fmt.Sprintf(` WHERE source_id = %d AND source_partition = %d AND `, r.source, l.Partition)
	this := where + fmt.Sprintf(`source_offset = %d `, l.Offset)
	rows, _ := r.pg.main.Query(ctx, `SELECT seq, kind, from_offset, to_offset, worker, epoch, who, why, build, schemas, geo, encode(hash, 'hex'), committed_at
		FROM offset_ledger`+where+`from_offset <= $1 AND to_offset > $1 ORDER BY seq`, l.Offset)
	var err error
	if l.Entries, err = pgx.CollectRows(rows, pgx.RowToStructByPos[LedgerPlace]); err != nil {
		return fmt.Errorf("offset_ledger: %w", err)
	}
	rows, _ = r.pg.main.Query(ctx, `SELECT tableoid::regclass::text, captured_at, country || ', geo build ' || geo_build FROM enriched_clicks`+this+`ORDER BY captured_at`)
	if l.Rows, err = pgx.CollectRows(rows, pgx.RowToStructByPos[RowPlace]); err != nil {
		return fmt.Errorf("enriched_clicks: %w", err)
	}
	rows, _ = r.pg.main.Query(ctx, `SELECT tableoid::regclass::text, created_at, error_class || ' at ' || error_stage FROM dead_letters`+this+`ORDER BY created_at`)
	if l.DeadLetters, err = pgx.CollectRows(rows, pgx.RowToStructByPos[RowPlace]); err != nil {
		return fmt.Errorf("dead_letters: %w", err)
	}
	w := r.newWorker()
	rows, _ = r.pg.main.Query(ctx, `SELECT tableoid::regclass::text, created_at, seq, topic, partition, erased_at IS NOT NULL, salt, record_hash FROM outbox`+this+`ORDER BY seq, created_at`)
	l.Outbox, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (o OutboxPlace, err error) {
		var salt, hash []byte
		err = row.Scan(&o.Table, &o.CreatedAt, &o.Seq, &o.Topic, &o.Partition, &o.Erased, &salt, &hash)
		switch {
		case o.Erased:
			o.Record = "can't be checked: erased"
		case slices.ContainsFunc(l.Entries, func(e LedgerPlace) bool { return e.Kind == "heal" }):
			o.Record = "is of the event that a heal rebuilt it from"
		case in == nil:
			o.Record = "can't be checked: the input's record is gone"
		case w.isRecord(salt, hash, in):
			o.Record = "is the input's"
		default:
			o.Record = "is NOT the input's"
		}
		return o, err
	})
	if err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	return nil
}

// isRecord says whether the hash is that of the input's record.
func (w *worker) isRecord(salt, hash []byte, in *kgo.Record) bool {
	hs := make([]outbox.Header, 0, len(in.Headers))
	for _, h := range in.Headers {
		hs = append(hs, outbox.Header{Key: h.Key, Value: h.Value})
	}
	sum := w.sealedRecord(salt, in.Offset, in.Timestamp.UnixMilli(), in.Key, in.Value, hs)
	return len(salt) == 16 && bytes.Equal(sum[:], hash)
}

// recordAt is the input's committed record at an offset, or nil.
func (r *run) recordAt(ctx context.Context, n int32, offset int64) *kgo.Record {
	ends, err := r.kafka.offsets(ctx, "stable ends", r.kafka.adm.ListCommittedOffsets, r.opts.Input)
	if err != nil || offset >= ends[r.opts.Input][n] {
		return nil
	}
	return r.newWorker().one(ctx, r.opts.Input, n, offset)
}

// locateEvents reads the output partitions that the record's event may be in.
func (r *run) locateEvents(ctx context.Context, l *Place) error {
	starts, err := r.kafka.offsets(ctx, "start offsets", r.kafka.adm.ListStartOffsets, r.opts.Output, r.opts.DLQ)
	if err != nil {
		return err
	}
	ends, err := r.kafka.offsets(ctx, "stable ends", r.kafka.adm.ListCommittedOffsets, r.opts.Output, r.opts.DLQ)
	if err != nil {
		return err
	}
	want := fmt.Appendf(nil, "%s/%d/%d", l.Topic, l.Partition, l.Offset)
	for topic, o := range r.outputs {
		for n := range o.parts {
			for from := starts[topic][n]; from < ends[topic][n]; {
				next, err := r.kafka.read(ctx, topic, n, from, ends[topic][n], func(recs []*kgo.Record) error {
					for _, rec := range recs {
						for _, h := range rec.Headers {
							if h.Key == sourceHeader && bytes.Equal(h.Value, want) {
								at := At{topic, n, rec.Offset}
								if topic == r.opts.DLQ {
									l.DLQ = append(l.DLQ, at)
								} else {
									l.Events = append(l.Events, at)
								}
							}
						}
					}
					r.tell(len(recs))
					return nil
				})
				var gone *errTruncated
				if errors.As(err, &gone) {
					next, err = gone.start, nil
				}
				if err != nil {
					return err
				}
				from = next
			}
		}
	}
	return nil
}
