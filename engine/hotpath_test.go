package engine_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/clicks"
	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/schema"
)

// inBatch is about what a capture takes of one of twelve partitions at full speed.
const inBatch = 667

// hotPath is what a click costs between the client that reads it and the two that write it: decode, validate, look up, encode, hash, and
// the tuples of its row and its message.
func hotPath(tb testing.TB) (batch func() *engine.Batch) {
	reg := registry(tb)
	geo, err := clicks.OpenGeo("")
	require.NoError(tb, err)
	decoder := schema.NewClickDecoder(reg)
	h := clicks.NewHandler("out", decoder, schema.NewEnrichedEncoder(2), geo)
	limits := schema.DefaultLimits()
	around := engine.Use(h, engine.Measured(func(time.Duration, error) {}), engine.Validated(clicks.Bounded(limits)), engine.Retried(2, time.Millisecond))
	d := engine.NewDeriving(around, shape, 7)
	gen, enc := clicks.NewGenerator(clicks.GeneratorConfig{Seed: 1}), schema.NewClickEncoder(1)
	records := make([]engine.Record, inBatch)
	for i := range records {
		var c schema.Click
		gen.Next(&c)
		records[i] = engine.Record{Partition: 3, Offset: int64(i), TimestampMs: c.TimestampMs, Key: strconv.AppendInt(nil, c.UserID, 10), Value: enc.Append(nil, &c)}
	}
	return func() *engine.Batch {
		b, err := d.Batch(tb.Context(), 3, 0, records)
		if err != nil || b.Records != inBatch || b.DeadLetters != 0 {
			tb.Fatal(b, err)
		}
		d.Gone(b)
		return b
	}
}

// BenchmarkHotPath is of a whole batch; the metrics that end in /record are not.
func BenchmarkHotPath(b *testing.B) {
	batch := hotPath(b)
	batch()
	b.ReportAllocs()
	for b.Loop() {
		batch()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/inBatch, "ns/record")
}

// allocationsPerBatch is what was measured when the hot path was last worked on, and a little: whoever adds an allocation a record adds
// hundreds. Lower it when it can be lowered.
const allocationsPerBatch = 24

// Time depends on the machine, allocations do not.
func TestHotPathAllocations(t *testing.T) {
	batch := hotPath(t)
	batch()
	got := testing.AllocsPerRun(50, func() { batch() })
	t.Logf("%.1f allocations a batch of %d records", got, inBatch)
	require.LessOrEqual(t, got, float64(allocationsPerBatch), "allocations of a batch of %d records", inBatch)
}
