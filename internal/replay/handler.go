package replay

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/outbox"
)

// Querier is what the handler reads dead letters with: a pgx pool.
type Querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Handler handles pointers: it reads the dead letter and gives it to the handler of the records themselves. It implements engine.Handler and
// engine.Pointing, and is used by one goroutine.
type Handler struct {
	inner engine.Handler
	db    Querier
	table int // of replay_captures
	taken map[Pointer]coordinate
}

type coordinate struct {
	partition int32
	offset    int64
}

// mostTaken bounds what is remembered of pointers: beyond it the unique key alone tells two of them apart, at the cost of a capture tried twice.
const mostTaken = 100_000

// NewHandler replays letters of the handler inner.
func NewHandler(inner engine.Handler, db Querier) *Handler {
	return &Handler{inner: inner, db: db, table: len(inner.Tables()), taken: map[Pointer]coordinate{}}
}

// Tables implements engine.Handler.
func (h *Handler) Tables() []engine.Table {
	return append(h.inner.Tables(), captures)
}

// Handle implements engine.Handler. A pointer whose letter and attempt are captured, or stand before it in this partition, does nothing.
func (h *Handler) Handle(ctx context.Context, r *engine.Record, out *engine.Out) error {
	p, l, err := h.read(ctx, r)
	if err != nil || l == nil {
		return err
	}
	out.Instead(h.instead(p, l))
	record := engine.Record{Partition: r.Partition, Offset: r.Offset, LeaderEpoch: r.LeaderEpoch, TimestampMs: r.TimestampMs, Key: l.Key, Value: l.Value, Headers: l.Headers}
	if err := h.inner.Handle(ctx, &record, out); err != nil {
		return err
	}
	out.Tag(behind(p, l)...)
	note(h.table, p, out)
	return nil
}

// Instead implements engine.Pointing.
func (h *Handler) Instead(ctx context.Context, r *engine.Record) (*engine.Letter, error) {
	p, l, err := h.read(ctx, r)
	var bad *engine.Permanent
	if errors.As(err, &bad) { // no letter behind it: the pointer itself
		return nil, nil
	}
	if err != nil || l == nil {
		return nil, err
	}
	return h.instead(p, l), nil
}

func behind(p Pointer, l *Letter) []outbox.Header {
	return []outbox.Header{{Key: OriginHeader, Value: []byte(l.Origin())}, {Key: AttemptHeader, Value: strconv.AppendInt(nil, int64(p.Attempt), 10)}}
}

// instead is what becomes a dead letter if this attempt fails, too.
func (h *Handler) instead(p Pointer, l *Letter) *engine.Letter {
	return &engine.Letter{Key: l.Key, Value: l.Value, Headers: l.Headers, Behind: behind(p, l), Keep: func(out *engine.Out) { note(h.table, p, out) }}
}

const letterSQL = `SELECT s.topic, d.source_id IS NOT NULL, c.source_partition, c.source_offset, d.key, d.value, coalesce(d.headers, '')
	FROM replays r JOIN sources s USING (source_id)
	LEFT JOIN dead_letters d ON (d.source_id, d.source_partition, d.source_offset) = (r.letter_source_id, r.letter_partition, r.letter_offset)
	LEFT JOIN replay_captures c ON (c.of_source_id, c.of_partition, c.of_offset, c.attempt) = (r.source_id, r.source_partition, r.source_offset, r.attempt)
	WHERE r.source_id = $1 AND r.source_partition = $2 AND r.source_offset = $3 AND r.attempt = $4`

// read is the letter that a record points to; nil: there is nothing left to do.
func (h *Handler) read(ctx context.Context, r *engine.Record) (Pointer, *Letter, error) {
	p, ok := ParsePointer(r.Value)
	if !ok {
		return p, nil, &engine.Permanent{Class: "not_a_pointer", Stage: "decode", Message: "not a pointer to a dead letter"}
	}
	at := coordinate{r.Partition, r.Offset}
	if t, ok := h.taken[p]; ok && t.partition == at.partition && t.offset < at.offset {
		return p, nil, nil // whatever captures this one has captured that one before
	}
	l := Letter{OfPartition: p.Partition, OfOffset: p.Offset, Attempt: p.Attempt}
	var there bool
	var partition *int32
	var offset *int64
	var headers []byte
	err := h.db.QueryRow(ctx, letterSQL, p.SourceID, p.Partition, p.Offset, p.Attempt).Scan(&l.Topic, &there, &partition, &offset, &l.Key, &l.Value, &headers)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return p, nil, &engine.Permanent{Class: "unknown_pointer", Stage: "replay", Message: "nobody has asked for this replay"}
	case err != nil:
		return p, nil, &unreadable{err}
	case offset != nil:
		return p, nil, nil // captured, under another pointer: this one's own capture would be behind us
	case !there:
		return p, nil, &engine.Permanent{Class: "letter_gone", Stage: "replay", Message: "the dead letter is no longer there: it was pruned"}
	}
	if l.Headers, err = outbox.ParseHeaders(headers); err != nil {
		return p, nil, &engine.Permanent{Class: "letter_damaged", Stage: "replay", Message: err.Error()}
	}
	if len(h.taken) >= mostTaken {
		clear(h.taken)
	}
	h.taken[p] = at
	return p, &l, nil
}

// unreadable is a transient failure: Postgres is away.
type unreadable struct{ err error }

func (e *unreadable) Error() string { return fmt.Sprintf("read a dead letter: %v", e.err) }
func (e *unreadable) Unwrap() error { return e.err }

// Reason is what metrics call it.
func (e *unreadable) Reason() string { return engine.ReasonPostgres }
