package engine

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/exactly-pipeline/exactly/internal/pgcopy"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/outbox"
)

// Rebuilder makes rows out of the events that were published along with them: for a database that has lost them. It is a Handler's inverse, of
// one that makes one event of each record.
type Rebuilder interface {
	// Tables are those of the handler.
	Tables() []Table
	// Counts is the table that its rows are counted in; nil: none.
	Counts() *Counts
	// Rebuild adds to out the rows that Handle made along with the event, byte for byte. An error means that the event is none of the handler's.
	Rebuild(ctx context.Context, event *outbox.Message, out *Out) error
}

// NotingRebuilder is the Rebuilder of a handler that adds something of its own to each record, dead letters too: the inverse of Pointing.
type NotingRebuilder interface {
	Rebuilder
	// Note adds to out what the handler kept along with a dead letter (Letter.Keep), and says how many headers of its own stand behind all
	// others (Letter.Behind).
	Note(deadLetter *outbox.Message, out *Out) (behind int, err error)
	// MadeNothing says whether a record may have been handled without making an event, because another one like it has made it.
	MadeNothing(value []byte) (like string, may bool)
}

// Rebuild is what the capture of a partition's records [from, to) wrote, made out of what was published of them: their messages, in the order
// of source offsets, one of each record. The batch has neither epoch nor leader epoch. Its records' hashes are over the messages: the records may
// be gone.
func Rebuild(ctx context.Context, h Rebuilder, shape *Shape, sourceID int16, partition int32, from, to int64, published []outbox.Message) (*Batch, error) {
	b := &Batch{Partition: partition, From: from, To: to, LeaderEpoch: -1, Tables: make([][]byte, len(h.Tables())), Messages: published}
	out := &Out{b: b, shape: shape, sourceID: sourceID}
	p := &preparer{sourceID: sourceID, salts: newSalts()}
	digest := ledger.NewDigest()
	b.Outbox = getBytes()
	for i := range published {
		m := &published[i]
		out.rec = &Record{Partition: partition, Offset: m.SourceOffset, TimestampMs: m.TimestampMs, Key: m.Key, Value: m.Value, Headers: m.Headers}
		var err error
		if m.Topic == shape.DLQ {
			err = rebuildDeadLetter(h, out, m)
		} else {
			err = h.Rebuild(ctx, m, out)
		}
		if err != nil {
			return nil, fmt.Errorf("rebuild %s/%d/%d from %s: %w", shape.Input, partition, m.SourceOffset, m.Topic, err)
		}
		p.settle(out, published[i:i+1], digest)
		b.Records++
	}
	p.finish(b, digest)
	return b, nil
}

// rebuildDeadLetter adds the row that deadLetter added along with this message.
func rebuildDeadLetter(rb Rebuilder, o *Out, m *outbox.Message) error {
	behind := 0
	if noting, ok := rb.(NotingRebuilder); ok {
		var err error
		if behind, err = noting.Note(m, o); err != nil {
			return err
		}
	}
	ours := deadLetterHeaders(o, &Permanent{}, nil)
	n := len(m.Headers) - behind - len(ours)
	if n < 0 {
		return fmt.Errorf("it lacks the headers of a dead letter")
	}
	for i, h := range m.Headers[n : n+len(ours)] {
		if h.Key != ours[i].Key {
			return fmt.Errorf("it lacks the headers of a dead letter: %q stands where %q should", h.Key, ours[i].Key)
		}
	}
	value := func(key string) string {
		return string(m.Headers[n+slices.IndexFunc(ours, func(h outbox.Header) bool { return h.Key == key })].Value)
	}
	e := &Permanent{Class: value(classHeader), Stage: value(stageHeader), Message: value(messageHeader)}
	o.deadRow(e, m.Key, m.Value, m.Headers[:n])
	return nil
}

const (
	stageHeader   = "__connect.errors.stage"
	messageHeader = "__connect.errors.exception.message"
	classHeader   = "exactly-error-class"
)

// deadLetterHeaders are those that a dead letter has behind its record's: Kafka Connect's (KIP-298), and ours.
func deadLetterHeaders(o *Out, e *Permanent, source []byte) []outbox.Header {
	return []outbox.Header{
		{Key: "exactly-source", Value: source},
		{Key: "__connect.errors.topic", Value: []byte(o.shape.Input)},
		{Key: "__connect.errors.partition", Value: strconv.AppendInt(nil, int64(o.rec.Partition), 10)},
		{Key: "__connect.errors.offset", Value: strconv.AppendInt(nil, o.rec.Offset, 10)},
		{Key: stageHeader, Value: []byte(e.Stage)},
		{Key: "__connect.errors.exception.class.name", Value: []byte(e.Class)},
		{Key: messageHeader, Value: []byte(e.Message)},
		{Key: classHeader, Value: []byte(e.Class)},
	}
}

// deadRow adds a row of dead_letters.
func (o *Out) deadRow(e *Permanent, key, value []byte, headers []outbox.Header) {
	b := pgcopy.Tuple(o.b.DeadRows, 9)
	b = pgcopy.Int2(b, o.sourceID)
	b = pgcopy.Int4(b, o.rec.Partition)
	b = pgcopy.Int8(b, o.rec.Offset)
	b = pgcopy.Text(b, e.Class)
	b = pgcopy.Text(b, e.Stage)
	b = pgcopy.Text(b, e.Message)
	b = pgcopy.Bytea(b, key)
	b = pgcopy.Bytea(b, value)
	b = pgcopy.Bytea(b, outbox.AppendHeaders(nil, headers))
	o.b.DeadRows = b
	o.b.DeadLetters++
}
