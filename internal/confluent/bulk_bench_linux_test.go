package confluent

import (
	"syscall"
	"testing"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/outbox"
)

// BenchmarkHandOver is what a message costs until it is in the library's queue, one by one and in bulk; no broker is there. cpu-ns counts all of
// the process' threads.
func BenchmarkHandOver(b *testing.B) {
	for _, way := range []string{"one-by-one", "bulk"} {
		b.Run(way, func(b *testing.B) {
			const n = 50_000
			m := outbox.Message{
				Topic: "out", TimestampMs: 1_700_000_000_000, Key: []byte("1234567"), Value: make([]byte, 120),
				Headers: []outbox.Header{{Key: "exactly-source", Value: []byte("user_clicks/7/1234567")}, {Key: "exactly-geo", Value: make([]byte, 40)}},
			}
			b.ReportAllocs()
			var cpu time.Duration
			for b.Loop() {
				b.StopTimer()
				kp, err := kafka.NewProducer(&kafka.ConfigMap{"bootstrap.servers": "127.0.0.1:1", "log_level": 0, "go.delivery.reports": false, "queue.buffering.max.messages": 2 * n})
				require.NoError(b, err)
				p := &Producer{p: kp, topics: map[string]*string{}}
				if way == "bulk" {
					p.bulk = newBulkWriter(kp)
				}
				before := processTime()
				b.StartTimer()
				for range n {
					if err := p.Produce(b.Context(), &m); err != nil {
						b.Fatal(err)
					}
				}
				if err := p.Send(b.Context()); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				cpu += processTime() - before
				require.NoError(b, kp.Purge(kafka.PurgeQueue|kafka.PurgeInFlight))
				if p.bulk != nil {
					p.bulk.close()
				}
				kp.Close()
				b.StartTimer()
			}
			b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N)/n, "cpu-ns/message")
		})
	}
}

func processTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
