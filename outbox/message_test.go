package outbox

import (
	"math/rand/v2"
	"testing"
	"testing/quick"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Order, duplicates, and null against empty survive the outbox.
func TestHeadersRoundTrip(t *testing.T) {
	for _, hs := range [][]Header{
		nil,
		{{Key: "", Value: nil}},
		{{Key: "a", Value: []byte{}}, {Key: "a"}, {Key: "a", Value: []byte("x")}},
	} {
		got, err := ParseHeaders(AppendHeaders(nil, hs))
		require.NoError(t, err)
		require.Equal(t, hs, got)
	}
	require.NoError(t, quick.Check(func(keys []string, values [][]byte) bool {
		var hs []Header
		for i, k := range keys {
			h := Header{Key: k}
			if i < len(values) {
				h.Value = values[i]
			}
			hs = append(hs, h)
		}
		got, err := ParseHeaders(AppendHeaders([]byte("before"), hs)[len("before"):])
		return err == nil && equal(hs, got)
	}, nil))
}

func equal(a, b []Header) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Key != b[i].Key || (a[i].Value == nil) != (b[i].Value == nil) || string(a[i].Value) != string(b[i].Value) {
			return false
		}
	}
	return true
}

// Damage is an error, never a guess, and never a panic.
func TestDamagedHeaders(t *testing.T) {
	whole := AppendHeaders(nil, []Header{{Key: "exactly-source", Value: []byte("in/0/1")}, {Key: "null"}})
	for n := range whole {
		_, err := ParseHeaders(whole[:n])
		require.ErrorIs(t, err, errHeaders, "cut to %d bytes", n)
	}
	_, err := ParseHeaders(append(whole, 0))
	require.ErrorIs(t, err, errHeaders)
	_, err = ParseHeaders(nil)
	require.ErrorIs(t, err, errHeaders)
}

func FuzzParseHeaders(f *testing.F) {
	f.Add(AppendHeaders(nil, []Header{{Key: "a", Value: []byte("b")}, {Key: "c"}}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, b []byte) {
		hs, err := ParseHeaders(b)
		if err != nil {
			return
		}
		again, err := ParseHeaders(AppendHeaders(nil, hs))
		require.NoError(t, err)
		require.True(t, equal(hs, again))
	})
}

// Keys go where Java clients, and franz-go, send them.
func TestPartitionIsMurmur2(t *testing.T) {
	theirs := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 20_000 {
		key := make([]byte, r.IntN(40))
		for i := range key {
			key[i] = byte(r.Uint32())
		}
		n := 1 + r.IntN(50)
		require.EqualValues(t, theirs.Partition(&kgo.Record{Key: key}, n), Partition(key, 3, n), "key %x, %d partitions", key, n)
	}
	// org.apache.kafka.common.utils.UtilsTest.testMurmur2
	for key, want := range map[string]int32{
		"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536, "a-little-bit-longer-string": -1486304829,
		"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971, "abc": 479470107,
	} {
		require.Equal(t, want, int32(murmur2([]byte(key))), key)
	}
}

// Without a key, order goes by the source partition, and the choice is the same on every try.
func TestPartitionWithoutKey(t *testing.T) {
	for p := range int32(30) {
		require.Equal(t, p%7, Partition(nil, p, 7))
	}
}
