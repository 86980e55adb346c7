package behaviour

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/exactly-pipeline/exactly/schema"
)

// Clicks of four writers' schemas, record by record in turns, in partitions that two workers read: three of the input's own subject, and one of
// another. Two of the schemas are registered while the workers run; they are not restarted.
func TestSchemaVersionsInterleaved(t *testing.T) {
	b := setup(t)
	in := b.cfg.Topics.Input
	turns := []func(*schema.Click) []byte{avro(b.clickID())}
	ids := map[int]bool{b.clickID(): true}
	add := func(subject string, w writer) {
		encode, id := b.register(subject, w)
		require.False(t, ids[id])
		ids[id], turns = true, append(turns, encode)
	}
	add(in+"-value", writers[0])
	produced := 0
	produce := func(n int) {
		var rs []*kgo.Record
		for range n {
			rs = append(rs, record(int32(produced%partitions), produced, turns[produced/partitions%len(turns)]))
			produced++
		}
		b.produce(rs...)
	}
	produce(2000)
	b.both(nil, nil)
	b.until("the first are stored", func() bool { return b.stored() == b.sent })
	add(in+"-value", writers[1])
	b.register(in+"-four", writer{avsc: `{"type":"fixed","name":"exactly.Four","size":4}`})
	other := promoting
	other.refs = []sr.SchemaReference{{Name: "exactly.Four", Subject: in + "-four", Version: 1}}
	add(in+"-other", other)
	require.Len(t, turns, 4)
	produce(8000)
	r := b.settle()
	require.EqualValues(t, produced, r.Totals.Input)
	require.Empty(t, b.deadLetters())
	b.rows(0, produced)
	out := b.exactly("schema", "check")
	require.Contains(t, out, in+"-value: fits all of its versions (3)")
}

// The registry is away under load, in each way that there is, and two workers read: the partitions with clicks of a schema nobody has seen yet wait while
// more is written to them, the others go on, and when it is back the lag goes down to nothing, nothing was lost and nothing is a dead letter.
func TestRegistryAway(t *testing.T) {
	const waiting = 2 // partitions: 0 and 1
	g := newGate(t.Cleanup)
	b := setup(t, "EXACTLY_REGISTRY_URL="+g.url)
	known := avro(b.clickID())
	first, waits := 0, int64(0)
	load := func(from, to int32, n int, encode ...func(*schema.Click) []byte) {
		var rs []*kgo.Record
		for i := range n {
			rs = append(rs, record(from+int32(i)%(to-from), first, encode[i/int(to-from)%len(encode)]))
			first++
		}
		b.produce(rs...)
	}
	v, w := b.both(nil, nil)
	// Each worker has read the schema that they know when the registry goes.
	load(0, partitions, 1000, known)
	b.until("the first are stored", func() bool { return b.stored() == b.sent })
	require.Positive(t, b.captures("a"))
	require.Positive(t, b.captures("b"))
	fresh, _ := b.register(b.cfg.Topics.Input+"-value", writers[0])
	for _, how := range []string{"cut", "503", "429", "slow"} {
		g.away(how)
		seen := g.seen.Load()
		begin := time.Now()
		for time.Since(begin) < away || g.seen.Load() == seen {
			load(0, waiting, 100, fresh, known) // clicks that could be read are behind those that can't
			waits += 100
			load(waiting, partitions, 1000, known)
			b.until("the other partitions go on while the registry is away: "+how, func() bool { return b.stored() == b.sent-waits })
		}
		t.Logf("%s: %v, %d requests", how, time.Since(begin).Round(time.Millisecond), g.seen.Load()-seen)
	}
	require.False(t, v.ended() || w.ended())
	require.Empty(t, b.deadLetters())
	g.away("")
	back := time.Now()
	b.until("the lag is gone", func() bool { return b.stored() == b.sent && b.published() == b.sent })
	t.Logf("%d of %d clicks had waited; no lag %v after the registry was back", waits, b.sent, time.Since(back).Round(time.Millisecond))
	r := b.settle()
	require.EqualValues(t, first, r.Totals.Input)
	require.Empty(t, b.deadLetters())
	b.rows(0, first)
	require.False(t, v.ended() || w.ended())
}

// JSON clicks, as they are and behind the registry's prefix, with a JSON Schema of their producer's; and what is neither.
func TestJSONClicks(t *testing.T) {
	b := setup(t, "EXACTLY_VALUE_FORMAT=json")
	strict := strings.Replace(schema.ClickJSON, `"required": [`, `"required": ["referrer", `, 1)
	is, err := b.registry().CreateSchema(b.ctx, b.cfg.Topics.Input+"-other", sr.Schema{Schema: strict, Type: sr.TypeJSON})
	require.NoError(t, err)
	prefix := schema.NewClickEncoder(is.ID).Append(nil, &schema.Click{})[:5]
	const n = 3000
	turns := []func(*schema.Click) []byte{
		func(c *schema.Click) []byte { return document(c, "") },
		func(c *schema.Click) []byte { return append(slices.Clone(prefix), document(c, `,"referrer":"r"`)...) },
	}
	var rs []*kgo.Record
	for i := range n {
		rs = append(rs, record(int32(i%partitions), i, turns[i/partitions%2]))
	}
	for i, v := range []string{`{"user_id":1}`, "[]", string(prefix) + string(document(&schema.Click{UserID: 1}, "")), "\x00\xff\xff\xff\xff{}"} {
		rs = append(rs, &kgo.Record{Partition: int32(i), Value: []byte(v)})
	}
	wrong := click(n)
	wrong.UserID = -7
	rs = append(rs, &kgo.Record{Partition: 5, Value: append(slices.Clone(prefix), document(&wrong, `,"referrer":"r"`)...)})
	b.produce(rs...)
	b.both(nil, nil)
	b.settle()
	b.rows(0, n)
	// What is decoded is shown as a click; where the registry hangs, as it is, and soon.
	require.Contains(t, b.exactly("dlq", "show", "--class", "invalid"), fmt.Sprintf(`"timestamp_ms": %d`, wrong.TimestampMs))
	g := newGate(t.Cleanup)
	g.away("slow")
	b.env["EXACTLY_REGISTRY_URL"] = g.url
	out := b.exactly("dlq", "show", "--class", "invalid")
	require.Contains(t, out, `"hex"`)
	require.NotContains(t, out, "timestamp_ms")
	require.EqualValues(t, 1, g.seen.Load())
	b.env["EXACTLY_REGISTRY_URL"] = shared.Stack.RegistryURL()
	require.EqualValues(t, 5, b.scalar(`SELECT count(*) FROM dead_letters`), "%v", b.deadLetters())
	require.Contains(t, b.exactly("schema", "check"), b.cfg.Topics.Input+"-value: fits")
}
