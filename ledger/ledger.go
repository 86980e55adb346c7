// Package ledger owns the append-only record of captures and of human deeds: its entries, their digest, and the hash chain per
// source partition.
//
// It promises that an entry can't be changed without the chain telling. It is never written outside the transaction that does
// what the entry says.
package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Kind says what an entry records.
type Kind string

// Captures are the pipeline's own entries; the others are human deeds, or the choice of where a source was first started.
const (
	Start      Kind = "start"       // first start of a partition: from = to = the offset chosen
	Capture    Kind = "capture"     // one capture
	AcceptLoss Kind = "accept_loss" // records [from, to) expired before they were read, and somebody accepted that
	Restore    Kind = "restore"     // the group offset was set again to what the output topics say
	Reset      Kind = "reset"       // the stored offset was moved from From to To by a person's choice
	Hold       Kind = "hold"        // workers are kept off the partition
	Release    Kind = "release"     // a hold was ended
	Replay     Kind = "replay"      // dead letters were handed in again
	Heal       Kind = "heal"        // what one store had lost was rebuilt from the other
	Erase      Kind = "erase"       // one person's data was blanked
	Archive    Kind = "archive"     // entries before this one were moved to a file
	Prune      Kind = "prune"       // a time partition was dropped, with what it had of this partition
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
	Who         string    // person or role behind a deed; empty for captures
	Build       string    // version of the program that wrote it
	Schemas     string    // registry ids, those read and those written: 1,2>7
	Geo         string    // build of the geo database
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
	str(e.Who)
	str(e.Build)
	str(e.Schemas)
	str(e.Geo)
	i64(e.CommittedAt.UnixMicro())
	h := sha256.Sum256(b)
	return h[:]
}
