package stack

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

// BenchmarkTransactions is the price of the broker's fsync: transactions of n records of 200 bytes over 12 partitions, one after the other.
func BenchmarkTransactions(b *testing.B) {
	for _, noSync := range []bool{false, true} {
		for _, n := range []int{1_000, 20_000} {
			b.Run(fmt.Sprintf("sync=%v/records=%d", !noSync, n), func(b *testing.B) {
				k, err := startKafka(Options{Dir: b.TempDir(), NoSyncKafka: noSync, Log: zap.NewNop()}, &state{ClusterID: "bench"})
				require.NoError(b, err)
				defer func() { require.NoError(b, k.stop()) }()
				cl, err := kgo.NewClient(kgo.SeedBrokers(k.cluster.ListenAddrs()...), kgo.TransactionalID("bench"), kgo.DefaultProduceTopic("bench"),
					kgo.RecordPartitioner(kgo.RoundRobinPartitioner()), kgo.MaxBufferedRecords(100_000))
				require.NoError(b, err)
				defer cl.Close()
				_, err = kadm.NewClient(cl).CreateTopic(b.Context(), 12, 1, nil, "bench")
				require.NoError(b, err)
				value := make([]byte, 200)
				for b.Loop() {
					require.NoError(b, cl.BeginTransaction())
					for range n {
						cl.Produce(b.Context(), &kgo.Record{Value: value}, nil)
					}
					require.NoError(b, cl.Flush(b.Context()))
					require.NoError(b, cl.EndTransaction(b.Context(), kgo.TryCommit))
				}
				b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
			})
		}
	}
}
