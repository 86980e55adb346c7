package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/exactly-pipeline/exactly/internal/pgcopy"
	"github.com/exactly-pipeline/exactly/outbox"
)

// Table is one table a handler writes rows to. Its first three columns are source_id, source_partition and source_offset; the engine fills them.
type Table struct {
	Name    string
	Columns []string // after the three source columns
}

// Handler turns one source record into what both sinks get. It must give the same rows and events a name to be found by: nothing
// it returns is ever computed twice for a captured record.
type Handler interface {
	// Tables are the tables it writes rows to, in the order Out.BeginRow counts them.
	Tables() []Table
	// Handle adds rows and events to out. A *Permanent error makes the record a dead letter; any other is transient: the partition
	// waits and the record is tried again. What was added before an error is taken back.
	Handle(ctx context.Context, r *Record, out *Out) error
}

// Permanent is an error that trying again can't mend: the record becomes a dead letter.
type Permanent struct {
	Class   string // what was wrong, for people to filter by
	Stage   string // decode, validate, enrich, …
	Message string // no personal data
}

func (e *Permanent) Error() string { return fmt.Sprintf("%s (%s): %s", e.Stage, e.Class, e.Message) }

// Batch is what one capture does for one partition: everything derived from the records [From, To).
type Batch struct {
	Partition   int32
	Life        uint64
	Epoch       int64
	From, To    int64
	LeaderEpoch int32 // of the last record
	Floor       int64 // group offset seen last
	Records     int64
	Rows        int64
	DeadLetters int64
	Tables      [][]byte // binary COPY tuples per handler table
	DeadRows    []byte   // likewise, dead_letters
	Outbox      []byte   // likewise, outbox
	Messages    []outbox.Message
	Digest      []byte
	Schemas     string // registry ids of what was read and written, for the ledger
	Geo         string // build of the geo database, likewise
	Bytes       int    // in memory, about
	made        schemaIDs
}

// Out collects what a handler makes of one record.
type Out struct {
	b        *Batch
	rec      *Record
	shape    *Shape
	sourceID int16
	seq      int16
	source   []byte // value of the exactly-source header

	read, written int // MadeWith
}

// Shape is what the engine knows of the topics it writes to.
type Shape struct {
	Input      string
	DLQ        string
	Partitions map[string]int // output topic to its number of partitions
}

// Source is the record's coordinates as the exactly-source header has them: topic/partition/offset.
func (o *Out) Source() []byte { return o.source }

// BeginRow begins a row of the handler's i-th table: append the columns after the three source columns with pgcopy, in order, then EndRow.
func (o *Out) BeginRow(i, columns int) []byte {
	b := pgcopy.Tuple(o.b.Tables[i], columns+3)
	b = pgcopy.Int2(b, o.sourceID)
	b = pgcopy.Int4(b, o.rec.Partition)
	return pgcopy.Int8(b, o.rec.Offset)
}

// EndRow ends the row that BeginRow began.
func (o *Out) EndRow(i int, row []byte) {
	o.b.Tables[i] = row
	o.b.Rows++
}

// MadeWith says under which registry ids the record was read and its event is written, and by which build of the geo database: the ledger
// keeps it of each capture. Not said of a record that could not be read.
func (o *Out) MadeWith(read, written int, geo string) {
	o.read, o.written, o.b.Geo = read, written, geo
}

// Event adds one message to an output topic, with the record's timestamp (1 where it has none: clients read 0 as "now", and then the
// outbox and the topic would differ). The partition is chosen here, by murmur2 of the key.
func (o *Out) Event(topic string, key, value []byte, headers []outbox.Header) error {
	n := o.shape.Partitions[topic]
	if n == 0 {
		return fmt.Errorf("event for %q: not one of the output topics", topic)
	}
	o.b.Messages = append(o.b.Messages, outbox.Message{
		SourceOffset: o.rec.Offset, Seq: o.seq, Topic: topic, Partition: outbox.Partition(key, o.rec.Partition, n),
		TimestampMs: max(o.rec.TimestampMs, 1), Key: key, Value: value, Headers: headers,
	})
	o.seq++
	return nil
}

// mark remembers where a record's output begins, so that it can be taken back.
type mark struct {
	tables   []int
	messages int
	rows     int64
}

func (b *Batch) mark(m *mark) {
	m.tables = m.tables[:0]
	for _, t := range b.Tables {
		m.tables = append(m.tables, len(t))
	}
	m.messages, m.rows = len(b.Messages), b.Rows
}

func (b *Batch) takeBack(m *mark) {
	for i := range b.Tables {
		b.Tables[i] = b.Tables[i][:m.tables[i]]
	}
	b.Messages, b.Rows = b.Messages[:m.messages], m.rows
}

func asPermanent(err error) *Permanent {
	var p *Permanent
	if errors.As(err, &p) {
		return p
	}
	return nil
}
