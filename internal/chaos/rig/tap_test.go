package rig

import (
	"encoding/binary"
	"testing"

	"github.com/Shopify/toxiproxy/v2/stream"
	"github.com/stretchr/testify/require"
)

// request is one of Kafka's, with n bytes after its key.
func request(key uint16, n int) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(2+n))
	return append(binary.BigEndian.AppendUint16(b, key), make([]byte, n)...)
}

// EndTxn is found wherever the stream is cut into pieces, and nowhere else.
func TestEndTxnIsFound(t *testing.T) {
	for _, c := range []struct {
		requests [][]byte
		want     int
	}{
		{[][]byte{request(0, 500), request(26, 40), request(3, 7)}, 1},
		{[][]byte{request(26, 40), request(26, 40)}, 2},
		{[][]byte{request(0, 26), request(25, 2600)}, 0},
		{[][]byte{[]byte("GET / HTTP/1.1\r\n"), request(26, 40)}, 0},
	} {
		var all []byte
		for _, r := range c.requests {
			all = append(all, r...)
		}
		for size := 1; size <= len(all); size += 1 + size/3 {
			f, found := &frames{}, 0
			for i := 0; i < len(all); i += size {
				if f.endTxn(all[i:min(i+size, len(all))]) {
					found++
				}
			}
			if size <= 40 { // larger pieces may hold two
				require.Equal(t, c.want, found, "pieces of %d", size)
			} else {
				require.Equal(t, c.want > 0, found > 0)
			}
		}
	}
}

// Only the answer to a capture's commit is swallowed, and all that follows it, until the tap is let go.
func TestCommitIsLost(t *testing.T) {
	name := t.Name()
	taps[name] = &tap{}
	x := &Tap{Proxy: name, Down: true}
	moved := taps[name].expect(loseCommit)
	answer := func(s string) bool { return x.answer(taps[name], &stream.StreamChunk{Data: []byte(s)}) }
	require.False(t, answer("C\x00\x00\x00\x0bCOMMIT\x00"), "a claim's")
	require.False(t, answer("INSERT 0 1\x00"))
	select {
	case <-moved:
		t.Fatal("the moment has not come")
	default:
	}
	require.True(t, answer("UPDATE 1\x00INSERT 0 1\x00C\x00\x00\x00\x0bCOMMIT\x00Z"))
	<-moved
	require.True(t, answer("anything"))
	taps[name].letGo()
	require.False(t, answer("anything"))
}
