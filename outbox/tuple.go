package outbox

import "github.com/exactly-pipeline/exactly/internal/pgcopy"

// CopySQL opens the COPY that AppendTuple's tuples go to.
const CopySQL = `COPY outbox (source_id, source_partition, source_offset, seq, topic, partition, "timestamp", key, value, headers, salt, record_hash) FROM STDIN (FORMAT binary)`

// AppendTuple appends the message as one binary COPY tuple of the outbox. salt and recordHash are those of the input record it came from
// (package ledger), the same in each of its messages.
func AppendTuple(b []byte, sourceID int16, sourcePartition int32, m *Message, salt, recordHash []byte) []byte {
	b = pgcopy.Tuple(b, 12)
	b = pgcopy.Int2(b, sourceID)
	b = pgcopy.Int4(b, sourcePartition)
	b = pgcopy.Int8(b, m.SourceOffset)
	b = pgcopy.Int2(b, m.Seq)
	b = pgcopy.Text(b, m.Topic)
	b = pgcopy.Int4(b, m.Partition)
	b = pgcopy.Int8(b, m.TimestampMs)
	b = pgcopy.Bytea(b, m.Key)
	b = pgcopy.Bytea(b, m.Value)
	at := len(b)
	b = append(b, 0, 0, 0, 0)
	b = AppendHeaders(b, m.Headers)
	n := len(b) - at - 4
	b[at], b[at+1], b[at+2], b[at+3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	b = pgcopy.Bytea(b, salt)
	return pgcopy.Bytea(b, recordHash)
}
