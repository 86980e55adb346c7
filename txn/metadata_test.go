package txn

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseMetadata(t *testing.T) {
	for _, v := range []int64{0, 1, 77, math.MaxInt64} {
		epoch, seq, ok := ParseMetadata(Metadata(v, v/2))
		require.True(t, ok)
		require.Equal(t, []int64{v, v / 2}, []int64{epoch, seq})
		require.True(t, IsOurs(Metadata(v, v)))
	}
	for _, s := range []string{"", "exactly/1 ", "exactly/1 1", "exactly/1 1 x", "exactly/1 x 1", "exactly/2 1 1", "1 1", "exactly/1 1 1 1"} {
		_, _, ok := ParseMetadata(s)
		require.False(t, ok, s)
	}
}
