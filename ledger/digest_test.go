package ledger

import (
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/outbox"
)

func messages() []outbox.Message {
	return []outbox.Message{
		{SourceOffset: 1, Seq: 0, Topic: "out", Partition: 2, TimestampMs: 3, Key: []byte("k"), Value: []byte("v"), Headers: []outbox.Header{{Key: "h", Value: []byte("x")}}},
		{SourceOffset: 1, Seq: 1, Topic: "out", Partition: 2, TimestampMs: 3},
	}
}

var salt = Salt{1, 2, 3, 15: 16}

// input is the record that the messages are of.
type input struct {
	salt       Salt
	offset, ms int64
	key, value []byte
	headers    []outbox.Header
}

func (r *input) add(d *Digest) []byte {
	return d.Record(r.salt, r.offset, r.ms, r.key, r.value, r.headers)
}

func record() input {
	return input{salt, 1, 3, []byte("k"), nil, []outbox.Header{{Key: "h"}}}
}

// The digest, too, is for ever: see TestHashIsForEver.
func TestDigestIsForEver(t *testing.T) {
	require.Equal(t, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", hex.EncodeToString(NewDigest().Sum()))
	r, ms := record(), messages()
	d := NewDigest()
	require.Equal(t, "b6df23657bbcc24512c2d8bfed8a23e70a35a029b610149241d4b80535012380", hex.EncodeToString(r.add(d)))
	require.Equal(t, "4071751127526139567a0b2944ab3604bf8d9817675839a2e0f8fd341833c4a7", hex.EncodeToString(d.Message(&ms[0])))
	d.Message(&ms[1])
	require.Equal(t, "80c274fc8370130680f192bb14c4defab14d5aa34b6de1493946adb3e01b881d", hex.EncodeToString(d.Sum()))
}

// What was kept of a record and its messages makes the same digest as their bytes did.
func TestDigestOfHashes(t *testing.T) {
	r, ms := record(), messages()
	whole, kept := NewDigest(), NewDigest()
	r.add(whole)
	hash := RecordHash(r.salt, r.offset, r.ms, r.key, r.value, r.headers)
	kept.Hash(hash[:])
	for i := range ms {
		whole.Message(&ms[i])
		hash := MessageHash(r.salt, &ms[i])
		kept.Hash(hash[:])
	}
	require.Equal(t, whole.Sum(), kept.Sum())
	require.Equal(t, Salt{1, 2, 3, 15: 16}, r.salt, "hashing writes into nothing")
}

// The digest tells null from empty, order, and every field of a record and of a message.
func TestDigest(t *testing.T) {
	sum := func(r input, ms ...outbox.Message) string {
		d := NewDigest()
		r.add(d)
		for i := range ms {
			d.Message(&ms[i])
		}
		return string(d.Sum())
	}
	r, ms := record(), messages()
	variants := []string{sum(r, ms...), sum(r, ms[1], ms[0]), sum(r, ms[0]), sum(r, ms[0], ms[1], ms[1])}
	for _, change := range []func(*outbox.Message){
		func(m *outbox.Message) { m.SourceOffset++ }, func(m *outbox.Message) { m.Seq++ }, func(m *outbox.Message) { m.Topic = "x" },
		func(m *outbox.Message) { m.Partition++ }, func(m *outbox.Message) { m.TimestampMs++ }, func(m *outbox.Message) { m.Key = []byte{} },
		func(m *outbox.Message) { m.Value = []byte{} }, func(m *outbox.Message) { m.Headers = []outbox.Header{{Key: "a"}} },
		func(m *outbox.Message) { m.Headers = []outbox.Header{{Key: "a", Value: []byte{}}} },
	} {
		m := ms[1]
		change(&m)
		variants = append(variants, sum(r, ms[0], m))
	}
	for _, change := range []func(*input){
		func(r *input) { r.salt[15]++ }, func(r *input) { r.offset++ }, func(r *input) { r.ms++ }, func(r *input) { r.key = nil },
		func(r *input) { r.value = []byte{} }, func(r *input) { r.headers = nil }, func(r *input) { r.headers = []outbox.Header{{Key: "h", Value: []byte{}}} },
	} {
		r := r
		change(&r)
		variants = append(variants, sum(r, ms...))
	}
	seen := map[string]int{}
	for i, v := range variants {
		_, twice := seen[v]
		require.False(t, twice, "variants %d and %d have one digest", seen[v], i)
		seen[v] = i
	}
}

func BenchmarkDigest(b *testing.B) {
	r, ms := record(), messages()
	d := NewDigest()
	b.ReportAllocs()
	for b.Loop() {
		r.add(d)
		d.Message(&ms[0])
	}
}
