package ledger

import (
	"encoding/hex"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/outbox"
)

func entry() Entry {
	return Entry{
		SourceID: 1, Partition: 2, Seq: 3, Kind: Capture, From: 4, To: 5, Records: 6, Rows: 7, DeadLetters: 8, Events: 9, Digest: []byte{10},
		PrevHash: []byte{11}, Epoch: 12, Worker: "w", Why: "y", CommittedAt: time.UnixMicro(1_700_000_000_000_013).UTC(),
	}
}

// The encoding is for ever: chains written by older versions must verify. If this fails, it is the code that is wrong.
func TestHashIsForEver(t *testing.T) {
	e := entry()
	require.Equal(t, "8a8166b4d79b5855245b36ce97e82ccf9c1a2e7e567da90a3c3f36acb7297f02", hex.EncodeToString(e.Hash()))
	require.Equal(t, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", hex.EncodeToString(NewDigest().Sum()))
	d := NewDigest()
	for _, m := range messages() {
		d.Add(&m)
	}
	require.Equal(t, "de421274fba497486eb4ea5f894cb95f46e6e6ac66f8b44e706caa88a9e51d1c", hex.EncodeToString(d.Sum()))
}

func messages() []outbox.Message {
	return []outbox.Message{
		{SourceOffset: 1, Seq: 0, Topic: "out", Partition: 2, TimestampMs: 3, Key: []byte("k"), Value: []byte("v"), Headers: []outbox.Header{{Key: "h", Value: []byte("x")}}},
		{SourceOffset: 1, Seq: 1, Topic: "out", Partition: 2, TimestampMs: 3},
	}
}

// Every field changes the hash, and so does moving a byte from one text to the next.
func TestHashCoversEveryField(t *testing.T) {
	e := entry()
	seen := map[string]string{string(e.Hash()): "nothing"}
	for i := range reflect.TypeFor[Entry]().NumField() {
		e := entry()
		f := reflect.ValueOf(&e).Elem().Field(i)
		name := reflect.TypeFor[Entry]().Field(i).Name
		switch v := f.Interface().(type) {
		case []byte:
			f.SetBytes(append([]byte{1}, v...))
		case time.Time:
			f.Set(reflect.ValueOf(v.Add(time.Microsecond)))
		case string, Kind:
			f.SetString(f.String() + "x")
		default:
			f.SetInt(f.Int() + 100)
		}
		h := string(e.Hash())
		require.Empty(t, seen[h], "%s", name)
		seen[h] = name
	}
	a, b := entry(), entry()
	a.Worker, a.Why, b.Worker, b.Why = "ab", "c", "a", "bc"
	require.NotEqual(t, a.Hash(), b.Hash())
}

// The digest tells null from empty, order, and every field of a message.
func TestDigest(t *testing.T) {
	sum := func(ms ...outbox.Message) string {
		d := NewDigest()
		for i := range ms {
			d.Add(&ms[i])
		}
		return string(d.Sum())
	}
	ms := messages()
	variants := []string{sum(ms...), sum(ms[1], ms[0]), sum(ms[0]), sum(ms[0], ms[1], ms[1])}
	for _, change := range []func(*outbox.Message){
		func(m *outbox.Message) { m.SourceOffset++ }, func(m *outbox.Message) { m.Seq++ }, func(m *outbox.Message) { m.Topic = "x" },
		func(m *outbox.Message) { m.Partition++ }, func(m *outbox.Message) { m.TimestampMs++ }, func(m *outbox.Message) { m.Key = []byte{} },
		func(m *outbox.Message) { m.Value = []byte{} }, func(m *outbox.Message) { m.Headers = []outbox.Header{{Key: "a"}} },
		func(m *outbox.Message) { m.Headers = []outbox.Header{{Key: "a", Value: []byte{}}} },
	} {
		m := ms[1]
		change(&m)
		variants = append(variants, sum(ms[0], m))
	}
	seen := map[string]int{}
	for i, v := range variants {
		_, twice := seen[v]
		require.False(t, twice, "variants %d and %d have one digest", seen[v], i)
		seen[v] = i
	}
}
