package ledger

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"
)

// HeadVersion is the version of a head's form.
const HeadVersion = 1

// Head is the newest entry of one chain at one moment, as it is published to Kafka: whoever rewrites the ledger in Postgres has to rewrite
// Kafka's log, too. The order of the fields is that of the JSON, and so of what is signed.
type Head struct {
	V         int       `json:"v"`
	SourceID  int16     `json:"source_id"`
	Topic     string    `json:"topic"` // the input's
	TopicID   string    `json:"topic_id"`
	Group     string    `json:"group"`
	Partition int32     `json:"partition"` // of the input
	Seq       int64     `json:"seq"`
	Hash      Hex       `json:"hash"`
	To        int64     `json:"to"` // the entry's to_offset
	At        string    `json:"at"` // when the entry was written: RFC 3339, microseconds, UTC
	Kind      Kind      `json:"kind"`
	Replaces  *Replaced `json:"replaces,omitempty"` // set by a heal: the chain goes on from before it
	Key       string    `json:"key,omitempty"`      // which key it is signed with: KeyID
	Sig       []byte    `json:"sig,omitempty"`      // Ed25519 over the JSON without key and sig; base64
}

// Replaced is a head published earlier that the ledger no longer has.
type Replaced struct {
	Seq  int64 `json:"seq"`
	Hash Hex   `json:"hash"`
	From int64 `json:"from,omitempty"` // the first one; 0: from the entry's own seq on. Below it: deeds came before the heal
}

// Hex is bytes that JSON shows in hexadecimal.
type Hex []byte

// MarshalText implements encoding.TextMarshaler.
func (h Hex) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hex) UnmarshalText(text []byte) (err error) {
	*h, err = hex.AppendDecode(nil, text)
	return err
}

func (h Hex) String() string { return hex.EncodeToString(h) }

// Stream is what a chain of one source is called by, apart from its partition.
type Stream struct {
	SourceID int16
	Topic    string
	TopicID  string
	Group    string
}

// Head is the entry as a head of the stream, not signed. hash is the entry's.
func (s *Stream) Head(e *Entry, hash []byte) Head {
	return Head{
		V: HeadVersion, SourceID: s.SourceID, Topic: s.Topic, TopicID: s.TopicID, Group: s.Group, Partition: e.Partition, Seq: e.Seq, Hash: hash, To: e.To,
		At: HeadTime(e.CommittedAt), Kind: e.Kind,
	}
}

// HeadTime is an entry's time as a head has it.
func HeadTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z07:00") }

// RecordKey is the key of the head's record: group, input topic, source partition.
func (h *Head) RecordKey() []byte { return fmt.Appendf(nil, "%s/%s/%d", h.Group, h.Topic, h.Partition) }

// Encode is the head as its record's value.
func (h *Head) Encode() []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(h); err != nil {
		panic("ledger: a head that JSON can't hold: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}

// ParseHead reads a record's value. What is not in the form of Encode is refused: the bytes that were signed must be the ones read.
func ParseHead(value []byte) (Head, error) {
	var h Head
	if err := json.Unmarshal(value, &h); err != nil {
		return h, fmt.Errorf("not a ledger head: %w", err)
	}
	if h.V != HeadVersion {
		return h, fmt.Errorf("a ledger head of version %d, this program reads %d", h.V, HeadVersion)
	}
	if !bytes.Equal(h.Encode(), value) {
		return h, fmt.Errorf("not a ledger head: other fields, or in another order")
	}
	return h, nil
}

// signed is what a signature covers.
func (h *Head) signed() []byte {
	c := *h
	c.Key, c.Sig = "", nil
	return c.Encode()
}
