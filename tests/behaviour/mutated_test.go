package behaviour

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/exactly-pipeline/exactly/schema"
)

// mutate damages a value byte by byte, one to four times.
func mutate(r *rand.Rand, v []byte) []byte {
	v = slices.Clone(v)
	for range 1 + r.IntN(4) {
		at := r.IntN(len(v) + 1)
		switch k := r.IntN(8); {
		case k == 0: // a byte more
			v = slices.Insert(v, at, byte(r.Uint32()))
		case at == len(v): // nothing there to damage
		case k == 1: // cut off
			v = v[:at]
		case k == 2: // a byte less
			v = slices.Delete(v, at, at+1)
		case k == 3: // a stretch twice
			v = slices.Insert(v, at, v[at:min(len(v), at+1+r.IntN(8))]...)
		case k == 4: // zero, or all ones
			v[at] = []byte{0, 0xff, 0x7f, 0x80}[r.IntN(4)]
		case k == 5:
			v[at] ^= 1 << r.IntN(8)
		default:
			v[at] = byte(r.Uint32())
		}
	}
	return v
}

// Records that were damaged byte by byte, among as many that were not, of two writers each: each is a row or a dead letter, the undamaged ones all rows, and
// the audit, which decodes by itself, agrees on every one.
func TestMutatedRecords(t *testing.T) {
	t.Run("avro", func(t *testing.T) {
		b := setup(t)
		evolved, _ := b.register(b.cfg.Topics.Input+"-value", writers[0])
		b.mutated(10_000, evolved, avro(b.clickID()))
	})
	t.Run("json", func(t *testing.T) {
		b := setup(t, "EXACTLY_VALUE_FORMAT=json")
		is, err := b.registry().CreateSchema(b.ctx, b.cfg.Topics.Input+"-other", sr.Schema{Schema: schema.ClickJSON, Type: sr.TypeJSON})
		require.NoError(t, err)
		prefix := schema.NewClickEncoder(is.ID).Append(nil, &schema.Click{})[:5]
		b.mutated(3000, func(c *schema.Click) []byte { return append(slices.Clone(prefix), document(c, "")...) }, func(c *schema.Click) []byte { return document(c, "") })
	})
}

// mutated is n damaged records among n that are not, a third of them encoded in one way, the rest in the other.
func (b *bundle) mutated(n int, third, rest func(*schema.Click) []byte) {
	t := b.t
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	whole := map[[2]int64]bool{}
	var rs []*kgo.Record
	for i := range 2 * n {
		encode := rest
		if i/partitions%3 == 0 {
			encode = third
		}
		rec := record(int32(i%partitions), i, encode)
		if r.IntN(2) == 0 && i-len(whole) < n || len(whole) == n { // n of each, mixed
			rec.Value = mutate(r, rec.Value)
		} else {
			whole[[2]int64{int64(i % partitions), int64(i / partitions)}] = true
		}
		rs = append(rs, rec)
	}
	require.Len(t, whole, n)
	b.produce(rs...)
	every := []string{"EXACTLY_DEAD_LETTERS_MAX_SHARE=0"} // half of them are, and more of a partition
	b.both(every, every)
	report := b.settle()
	require.EqualValues(t, 2*n, report.Totals.Input)

	found := map[[2]int64]int{}
	rows, err := b.db.Query(b.ctx, `SELECT source_partition, source_offset, true FROM enriched_clicks UNION ALL SELECT source_partition, source_offset, false FROM dead_letters`)
	require.NoError(t, err)
	defer rows.Close()
	dead := 0
	for rows.Next() {
		var at [2]int64
		var row bool
		require.NoError(t, rows.Scan(&at[0], &at[1], &row))
		found[at]++
		require.True(t, row || !whole[at], "an undamaged record is a dead letter: %v", at)
		if !row {
			dead++
		}
	}
	require.NoError(t, rows.Err())
	require.Len(t, found, 2*n)
	for at, times := range found {
		require.Equal(t, 1, times, "%v", at)
	}
	for why, times := range b.deadLetters() {
		if times > int64(n)/100 {
			t.Logf("%6d %.120s", times, why)
		}
	}
	require.Greater(t, dead, n/2, "the damage did little")
}
