// Package ledger owns the append-only record of captures and of human deeds: its entries, their digest, and the hash chain per
// source partition.
//
// It promises that an entry can't be changed without the chain telling. It is never written outside the transaction that does
// what the entry says.
package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"time"

	"github.com/exactly-pipeline/exactly/outbox"
)

// Kind says what an entry records.
type Kind string

// Captures are the pipeline's own entries; the others are human deeds, or the choice of where a source was first started.
const (
	Start      Kind = "start"       // first start of a partition: from = to = the offset chosen
	Capture    Kind = "capture"     // one capture
	AcceptLoss Kind = "accept_loss" // records [from, to) expired before they were read, and somebody accepted that
	Restore    Kind = "restore"     // the group offset was set again to what the output topics say
)

// Entry is one row of offset_ledger.
type Entry struct {
	SourceID    int16
	Partition   int32
	Seq         int64 // 1.. per source partition, no gaps
	Kind        Kind
	From, To    int64 // source offsets [From, To)
	Records     int64 // records read in that range
	Rows        int64
	DeadLetters int64
	Events      int64 // messages owed to Kafka, dead letters included
	Digest      []byte
	PrevHash    []byte // Hash of entry Seq-1; empty for the first
	Epoch       int64
	Worker      string
	Why         string
	CommittedAt time.Time // the writer's clock, whole microseconds
}

// Hash is SHA-256 over the canonical encoding: the fields in the order above, integers as 8 bytes big-endian, strings and bytes
// with their length before them as such an integer, the time as microseconds since the Unix epoch.
func (e *Entry) Hash() []byte {
	b := make([]byte, 0, 256)
	i64 := func(v int64) { b = binary.BigEndian.AppendUint64(b, uint64(v)) }
	str := func(s string) { i64(int64(len(s))); b = append(b, s...) }
	i64(int64(e.SourceID))
	i64(int64(e.Partition))
	i64(e.Seq)
	str(string(e.Kind))
	i64(e.From)
	i64(e.To)
	i64(e.Records)
	i64(e.Rows)
	i64(e.DeadLetters)
	i64(e.Events)
	str(string(e.Digest))
	str(string(e.PrevHash))
	i64(e.Epoch)
	str(e.Worker)
	str(e.Why)
	i64(e.CommittedAt.UnixMicro())
	h := sha256.Sum256(b)
	return h[:]
}

// Digest is SHA-256 over the messages of one capture in order, each as: source offset, seq, partition and timestamp as 8 bytes
// big-endian, then topic, key, value and headers (outbox.AppendHeaders), each with an 8-byte length before it, -1 for null.
type Digest struct {
	h       hash.Hash
	scratch []byte
}

// NewDigest starts a digest.
func NewDigest() *Digest { return &Digest{h: sha256.New()} }

// Add adds one message.
func (d *Digest) Add(m *outbox.Message) {
	b := d.scratch[:0]
	b = binary.BigEndian.AppendUint64(b, uint64(m.SourceOffset))
	b = binary.BigEndian.AppendUint64(b, uint64(m.Seq))
	b = binary.BigEndian.AppendUint64(b, uint64(m.Partition))
	b = binary.BigEndian.AppendUint64(b, uint64(m.TimestampMs))
	b = binary.BigEndian.AppendUint64(b, uint64(len(m.Topic)))
	b = append(b, m.Topic...)
	b = appendBytes(b, m.Key)
	b = appendBytes(b, m.Value)
	at := len(b)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	b = outbox.AppendHeaders(b, m.Headers)
	binary.BigEndian.PutUint64(b[at:], uint64(len(b)-at-8))
	d.scratch = b
	d.h.Write(b)
}

// Sum returns the digest, 32 bytes.
func (d *Digest) Sum() []byte { return d.h.Sum(nil) }

func appendBytes(b, v []byte) []byte {
	if v == nil {
		return binary.BigEndian.AppendUint64(b, ^uint64(0))
	}
	b = binary.BigEndian.AppendUint64(b, uint64(len(v)))
	return append(b, v...)
}
