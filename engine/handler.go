package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/exactly-pipeline/exactly/internal/pgcopy"
	"github.com/exactly-pipeline/exactly/ledger"
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
	Counts      map[Cell]int64 // what its rows come to, if the handler counts them
	Digest      []byte
	Schemas     string // registry ids of what was read and written, for the ledger
	Geo         string // build of the geo database, likewise
	Bytes       int    // in memory, about
	made        schemaIDs
	classes     map[string]int64 // dead letters by class
	counting    []Cell           // of the record that is being handled

	Care    Care // what the row keeps of it
	careful bool
	rest    []Record // behind To: not handled, since what came before is enough for one capture

	Head  *ledger.Head // of the entry of its capture, set by the store
	Trace string       // id of the trace of its capture, if it is traced and sampled; likewise

	arrived time.Time // when the first of the records was read
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
	instead       *Letter
}

// Shape is what the engine knows of the topics it writes to.
type Shape struct {
	Input      string
	DLQ        string
	Partitions map[string]int // output topic to its number of partitions
	MaxMessage int            // bytes that Kafka and the client take of one message; 0: whatever there is
}

// Source is the record's coordinates as the exactly-source header has them: topic/partition/offset.
func (o *Out) Source() []byte { return o.source }

// BeginRow is Row without an allocation a value, for this module: it begins a row of the handler's i-th table: append the columns after the three source columns with pgcopy, in order, then EndRow.
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

// EndNote ends a row that BeginRow began and that is no row of the record's: it is not counted.
func (o *Out) EndNote(i int, row []byte) { o.b.Tables[i] = row }

// Instead is what becomes a dead letter if the record fails from here on, in place of the record.
func (o *Out) Instead(l *Letter) { o.instead = l }

// Tag adds headers behind those of every event that the record has made so far.
func (o *Out) Tag(hs ...outbox.Header) {
	for i := range o.b.Messages {
		if m := &o.b.Messages[len(o.b.Messages)-1-i]; m.SourceOffset == o.rec.Offset {
			m.Headers = append(m.Headers[:len(m.Headers):len(m.Headers)], hs...)
		} else {
			break
		}
	}
}

// MadeWith says under which registry ids the record was read and its event is written, and by which build of the geo database: the ledger
// keeps it of each capture. Not said of a record that could not be read.
func (o *Out) MadeWith(read, written int, geo string) {
	o.read, o.written, o.b.Geo = read, written, geo
}

// Event adds one message to an output topic, with the record's timestamp (1 where it has none: clients read 0 as "now", and then the
// outbox and the topic would differ). The partition is chosen here, by murmur2 of the key. What Kafka would not take makes the record a dead letter.
func (o *Out) Event(topic string, key, value []byte, headers []outbox.Header) error {
	n := o.shape.Partitions[topic]
	if n == 0 {
		return fmt.Errorf("event for %q: not one of the output topics", topic)
	}
	m := outbox.Message{
		SourceOffset: o.rec.Offset, Seq: o.seq, Topic: topic, Partition: outbox.Partition(key, o.rec.Partition, n),
		TimestampMs: max(o.rec.TimestampMs, 1), Key: key, Value: value, Headers: headers,
	}
	if big := o.shape.unpublishable(&m); big != nil {
		return big.permanent()
	}
	o.b.Messages = append(o.b.Messages, m)
	o.seq++
	return nil
}

// mark remembers where a record's output begins, so that it can be taken back.
type mark struct {
	tables   []int
	messages int
	rows     int64
	counting int
}

func (b *Batch) mark(m *mark) {
	m.tables = m.tables[:0]
	for _, t := range b.Tables {
		m.tables = append(m.tables, len(t))
	}
	m.messages, m.rows, m.counting = len(b.Messages), b.Rows, len(b.counting)
}

func (b *Batch) takeBack(m *mark) {
	for i := range b.Tables {
		b.Tables[i] = b.Tables[i][:m.tables[i]]
	}
	b.Messages, b.Rows, b.counting = b.Messages[:m.messages], m.rows, b.counting[:m.counting]
}
