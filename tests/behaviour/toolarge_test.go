package behaviour

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A record that compresses well fits into a batch of the input, and is larger than anything that can be published. It is no click, so a dead letter, and
// could not become one in Kafka: its partition stops there, before it is captured, and says what to do. The others go on, and so does
// a worker that takes over. Left out on the record, all is accounted for.
func TestTooLargeToPublish(t *testing.T) {
	for _, client := range []string{"confluent", "franz"} {
		t.Run(client, func(t *testing.T) {
			const before, after = 600, 300
			b := setup(t, "EXACTLY_KAFKA_CLIENT="+client)
			b.generate(before)
			b.start("a").says("consuming")
			b.until("what came before is published", func() bool { return b.published() == b.sent })
			end, err := b.adm.Kadm().ListEndOffsets(b.ctx, b.cfg.Topics.Input)
			require.NoError(t, err)
			huge, _ := end.Lookup(b.cfg.Topics.Input, 2)
			b.produceCompressed(&kgo.Record{Partition: 2, Key: []byte("1"), Value: bytes.Repeat([]byte{0xee}, 20<<20)})
			says := fmt.Sprintf("partition stopped: the dead letter of offset %d would take 209[0-9]* bytes of %s", huge.Offset, b.cfg.Topics.DLQ)
			b.workers[0].says(says)
			known := avro(b.clickID())
			var rs []*kgo.Record
			for i := range after {
				rs = append(rs, record(int32(i%partitions), before+i, known))
			}
			b.produce(rs...)
			others := func() bool {
				os, err := b.adm.GroupOffsets(b.ctx, all)
				return err == nil && b.published() == b.sent-1-after/partitions && os[2].Offset == huge.Offset
			}
			b.until("the other partitions have gone on", others)
			b.workers[0].kill()
			b.start("b").says(says)
			b.until("the successor publishes", others)
			require.Zero(t, b.scalar(`SELECT count(*) FROM dead_letters WHERE octet_length(value) > 1000000`))
			require.NotContains(t, string(b.workers[1].log.Bytes()), "Kafka transaction aborted")

			b.exactly("offsets", "reset", "--partition", "2", "--to", fmt.Sprint(huge.Offset+1), "--reason", "too large")
			b.settle()
		})
	}
}

// produceCompressed writes a record that a broker takes for its batch is small.
func (b *bundle) produceCompressed(r *kgo.Record) {
	b.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(b.cfg.Kafka.Brokers, ",")...), kgo.DefaultProduceTopic(b.cfg.Topics.Input),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.GzipCompression()), kgo.ProducerBatchMaxBytes(32<<20))
	require.NoError(b.t, err)
	defer cl.Close()
	require.NoError(b.t, cl.ProduceSync(b.ctx, r).FirstErr())
	b.sent++
}
