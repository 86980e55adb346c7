package engine

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/exactly-pipeline/exactly/outbox"
)

// silent is the least a handler can do: what is measured is the engine's own share of a record.
type silent struct{ value []byte }

func (silent) Tables() []Table { return nil }

// BenchmarkPrepare is a batch of clicks' size from records to the tuples and the digest of its capture. allocs/op is of a whole batch.
func BenchmarkPrepare(b *testing.B) { benchmarkPrepare(b) }

func benchmarkPrepare(b *testing.B, m ...Middleware) {
	const n = 4096
	records := make([]Record, n)
	for i := range records {
		records[i] = Record{
			Offset: int64(i), TimestampMs: 1_700_000_000_000, Key: fmt.Append(nil, i), Value: make([]byte, 130),
			Headers: []outbox.Header{{Key: "traceparent", Value: make([]byte, 55)}},
		}
	}
	h := &silent{value: make([]byte, 135)}
	p := newPreparer(Use(h, m...), &Shape{Input: "in", DLQ: "dlq", Partitions: map[string]int{"out": 12, "dlq": 12}}, 1)
	b.ReportAllocs()
	for b.Loop() {
		batch, err := p.batch(b.Context(), &prepJob{records: records})
		if err != nil || batch.Records != n {
			b.Fatal(err)
		}
		putBytes(batch.Outbox)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/record")
}

func (h silent) Handle(_ context.Context, r *Record, out *Out) error {
	return out.Event("out", r.Key, h.value, benchHeaders)
}

var benchHeaders = []outbox.Header{{Key: "exactly-source", Value: make([]byte, 20)}, {Key: "exactly-geo", Value: make([]byte, 40)}}

// BenchmarkPrepareThroughMiddleware is the same with the chain that the pipeline has.
func BenchmarkPrepareThroughMiddleware(b *testing.B) {
	benchmarkPrepare(b, Measured(func(time.Duration, error) {}), Validated(func(*Record) *Permanent { return nil }), Retried(2, time.Millisecond))
}
