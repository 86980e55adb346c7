package replay

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/pgcopy"
	"github.com/exactly-pipeline/exactly/outbox"
)

// Rebuilder makes again what Handler made of pointers, out of what was published. It implements engine.NotingRebuilder.
type Rebuilder struct {
	inner  engine.Rebuilder
	topic  string // of the first records
	source int16  // theirs
	table  int    // of replay_captures
}

// NewRebuilder rebuilds replays of letters whose first records are of a topic, the source with that id.
func NewRebuilder(inner engine.Rebuilder, topic string, source int16) *Rebuilder {
	return &Rebuilder{inner: inner, topic: topic, source: source, table: len(inner.Tables())}
}

// Tables implements engine.Rebuilder.
func (r *Rebuilder) Tables() []engine.Table { return append(r.inner.Tables(), captures) }

// Counts implements engine.Rebuilder.
func (r *Rebuilder) Counts() *engine.Counts { return r.inner.Counts() }

// Rebuild implements engine.Rebuilder.
func (r *Rebuilder) Rebuild(ctx context.Context, event *outbox.Message, out *engine.Out) error {
	if err := r.inner.Rebuild(ctx, event, out); err != nil {
		return err
	}
	p, ok, err := r.pointer(event.Headers)
	if err == nil && !ok {
		err = fmt.Errorf("it has no headers %s and %s at its end", OriginHeader, AttemptHeader)
	}
	if err == nil {
		note(r.table, p, out)
	}
	return err
}

// Note implements engine.NotingRebuilder. A pointer that leads nowhere is a dead letter itself, without anything behind it.
func (r *Rebuilder) Note(event *outbox.Message, out *engine.Out) (behind int, err error) {
	p, ok, err := r.pointer(event.Headers)
	if err != nil || !ok {
		return 0, err
	}
	note(r.table, p, out)
	return 2, nil
}

// MadeNothing implements engine.NotingRebuilder: all pointers of one letter and attempt but the first make nothing.
func (r *Rebuilder) MadeNothing(value []byte) (like string, may bool) {
	p, ok := ParsePointer(value)
	return fmt.Sprintf("%d/%d/%d/%d", p.SourceID, p.Partition, p.Offset, p.Attempt), ok
}

// pointer is what the last two headers tell.
func (r *Rebuilder) pointer(hs []outbox.Header) (p Pointer, ok bool, err error) {
	if len(hs) < 2 || hs[len(hs)-2].Key != OriginHeader || hs[len(hs)-1].Key != AttemptHeader {
		return p, false, nil
	}
	origin, attempt := string(hs[len(hs)-2].Value), string(hs[len(hs)-1].Value)
	rest, ours := strings.CutPrefix(origin, r.topic+"/")
	partition, offset, _ := strings.Cut(rest, "/")
	n, err1 := strconv.ParseInt(partition, 10, 32)
	o, err2 := strconv.ParseInt(offset, 10, 64)
	a, err3 := strconv.ParseInt(attempt, 10, 32)
	if !ours || err1 != nil || err2 != nil || err3 != nil {
		return p, false, fmt.Errorf("its headers say %.80q and attempt %.20q: no record of %s", origin, attempt, r.topic)
	}
	return Pointer{SourceID: r.source, Partition: int32(n), Offset: o, Attempt: int(a)}, true, nil
}

var captures = engine.Table{Name: "replay_captures", Columns: []string{"of_source_id", "of_partition", "of_offset", "attempt"}}

// note adds the row that says which letter and attempt a capture is of.
func note(table int, p Pointer, out *engine.Out) {
	row := out.BeginRow(table, 4)
	row = pgcopy.Int2(row, p.SourceID)
	row = pgcopy.Int4(row, p.Partition)
	row = pgcopy.Int8(row, p.Offset)
	row = pgcopy.Int4(row, int32(p.Attempt))
	out.EndNote(table, row)
}
