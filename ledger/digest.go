package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/exactly-pipeline/exactly/outbox"
)

// Salt goes into the hashes of one record, is kept beside its bytes, and goes with them: without it, a hash that stays can't be tried
// against guesses at what the bytes were. A record that makes no message has no row to keep one in: its salt is the zero value.
type Salt [16]byte

// Digest is SHA-256 over the hashes of one capture's records in order, each followed by the hashes of its messages in order.
type Digest struct {
	h       hash.Hash
	salt    Salt
	sum     [sha256.Size]byte // here, or every hash would be an allocation
	scratch []byte
}

// NewDigest starts a digest.
func NewDigest() *Digest { return &Digest{h: sha256.New()} }

// Record adds a record of the input and returns its hash (see RecordHash), valid until the next call. The messages that follow are its.
func (d *Digest) Record(salt Salt, offset, timestampMs int64, key, value []byte, headers []outbox.Header) []byte {
	d.salt = salt
	d.scratch = appendRecord(append(d.scratch[:0], salt[:]...), offset, timestampMs, key, value, headers)
	return d.add()
}

// Message adds a message made of the record last added and returns its hash (see MessageHash), valid until the next call.
func (d *Digest) Message(m *outbox.Message) []byte {
	d.scratch = appendMessage(append(d.scratch[:0], d.salt[:]...), m)
	return d.add()
}

// Hash adds a hash that was kept: of a record whose bytes are gone, or of a message that was erased.
func (d *Digest) Hash(hash []byte) { d.h.Write(hash) }

// Sum returns the digest, 32 bytes.
func (d *Digest) Sum() []byte { return d.h.Sum(nil) }

func (d *Digest) add() []byte {
	d.sum = sha256.Sum256(d.scratch)
	d.h.Write(d.sum[:])
	return d.sum[:]
}

// RecordHash is SHA-256 over the salt, then the input record's offset and timestamp (ms) as 8 bytes big-endian, then its key, value and
// headers (outbox.AppendHeaders), each with an 8-byte length before it, -1 for null.
func RecordHash(salt Salt, offset, timestampMs int64, key, value []byte, headers []outbox.Header) [sha256.Size]byte {
	return sha256.Sum256(appendRecord(salt[:len(salt):len(salt)], offset, timestampMs, key, value, headers))
}

// MessageHash is SHA-256 over the salt, then the message's source offset, seq, partition and timestamp (ms) as 8 bytes big-endian, then
// its topic, key, value and headers likewise.
func MessageHash(salt Salt, m *outbox.Message) [sha256.Size]byte {
	return sha256.Sum256(appendMessage(salt[:len(salt):len(salt)], m))
}

func appendRecord(b []byte, offset, timestampMs int64, key, value []byte, headers []outbox.Header) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(offset))
	b = binary.BigEndian.AppendUint64(b, uint64(timestampMs))
	b = appendBytes(b, key)
	b = appendBytes(b, value)
	return appendHeaders(b, headers)
}

func appendMessage(b []byte, m *outbox.Message) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(m.SourceOffset))
	b = binary.BigEndian.AppendUint64(b, uint64(m.Seq))
	b = binary.BigEndian.AppendUint64(b, uint64(m.Partition))
	b = binary.BigEndian.AppendUint64(b, uint64(m.TimestampMs))
	b = binary.BigEndian.AppendUint64(b, uint64(len(m.Topic)))
	b = append(b, m.Topic...)
	b = appendBytes(b, m.Key)
	b = appendBytes(b, m.Value)
	return appendHeaders(b, m.Headers)
}

func appendHeaders(b []byte, hs []outbox.Header) []byte {
	at := len(b)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	b = outbox.AppendHeaders(b, hs)
	binary.BigEndian.PutUint64(b[at:], uint64(len(b)-at-8))
	return b
}

func appendBytes(b, v []byte) []byte {
	if v == nil {
		return binary.BigEndian.AppendUint64(b, ^uint64(0))
	}
	b = binary.BigEndian.AppendUint64(b, uint64(len(v)))
	return append(b, v...)
}
