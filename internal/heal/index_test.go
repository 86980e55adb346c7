package heal

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// Whatever order events come in, and wherever the first is, the index knows each; one that is elsewhere too is told.
func TestIndex(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 200 {
		base := r.Int64N(1 << 40)
		x := index{base: base, open: r.IntN(2) == 0}
		want := map[int64]place{}
		for range r.IntN(300) {
			o := max(0, base-50+r.Int64N(400))
			p := placed(r.IntN(2) == 0, r.Int32N(10_000), r.Int64N(1<<47))
			if !x.open && o < base {
				require.True(t, x.add(o, p), "what is not asked for is no duplicate")
				require.Zero(t, x.get(o))
				continue
			}
			_, there := want[o]
			require.Equal(t, !there || want[o] == p, x.add(o, p))
			if !there {
				want[o] = p
			}
			require.True(t, x.add(o, want[o]), "the same event once more is the same event")
		}
		first, last := int64(1<<62), int64(-1)
		for o := max(0, base-60); o < base+400; o++ {
			require.Equal(t, want[o], x.get(o), "seed %d, offset %d", seed, o)
			if want[o] != 0 {
				first, last = min(first, o), max(last, o)
			}
		}
		got, ok := x.first()
		require.Equal(t, len(want) > 0, ok)
		require.Equal(t, last+1, x.end())
		if ok {
			require.Equal(t, first, got)
		}
	}
}

func TestPlace(t *testing.T) {
	for _, dlq := range []bool{false, true} {
		for _, partition := range []int32{0, 1, 9_999, 1<<partitionBits - 1} {
			for _, offset := range []int64{0, 1, 1 << 40, 1<<offsetBits - 2} {
				p := placed(dlq, partition, offset)
				require.NotZero(t, p)
				require.Equal(t, []any{dlq, partition, offset}, []any{p.dlq(), p.partition(), p.offset()})
			}
		}
	}
}

func TestFound(t *testing.T) {
	f := found{base: 100}
	for _, o := range []int64{99, 100, 163, 164, 300} {
		f.add(o)
	}
	for o := int64(0); o < 1000; o++ {
		require.Equal(t, o == 100 || o == 163 || o == 164 || o == 300, f.has(o), o)
	}
	require.EqualValues(t, 301, f.end)
}
