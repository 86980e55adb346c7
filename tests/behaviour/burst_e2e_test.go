//go:build e2e

package behaviour

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/schema"
)

// 50 MB wait on one partition, and a few clicks at a time come in on the others: each of those is captured while the burst is still being worked off.
func TestBurst(t *testing.T) {
	for _, client := range []string{"confluent", "franz"} {
		t.Run(client, func(t *testing.T) {
			const (
				burst  = 50_000_000 / urlBytes // records of about so many bytes, all of which goes to both sinks
				rounds = 3
			)
			b := setup(t, "EXACTLY_KAFKA_CLIENT="+client)
			known := avro(b.clickID())
			var rs []*kgo.Record
			for i := range burst {
				rs = append(rs, record(0, i, func(c *schema.Click) []byte {
					c.URL += "/" + strings.Repeat("u", urlBytes-len(c.URL)-1)
					return known(c)
				}))
			}
			b.produceLarge(rs...)
			// However fast the machine is, a capture of the burst takes a little: what is compared is the order.
			_, err := b.db.Exec(b.ctx, `CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.8); RETURN NEW; END $$;
				CREATE TRIGGER slow BEFORE INSERT ON offset_ledger FOR EACH ROW WHEN (NEW.kind = 'capture' AND NEW.source_partition = 0) EXECUTE FUNCTION slow()`)
			require.NoError(t, err)
			b.start("a")
			done := func() int64 {
				return b.scalar(`SELECT coalesce(max(next_offset), 0) FROM partition_offsets WHERE source_partition = 0`)
			}
			b.until("the burst is being worked off", func() bool { return done() > 0 })
			trickled := 0
			for range rounds {
				rs = rs[:0]
				for p := range int32(partitions - 1) {
					rs = append(rs, record(p+1, burst+trickled, known))
					trickled++
				}
				b.produce(rs...)
				b.until("the few are captured", func() bool {
					return b.scalar(`SELECT count(*) FROM enriched_clicks WHERE source_partition > 0`) == int64(trickled)
				})
			}
			b.until("all is stored", func() bool { return b.stored() == b.sent })
			few := b.scalar(`SELECT coalesce(max(to_offset), 0) FROM offset_ledger WHERE source_partition = 0 AND kind = 'capture'
				AND captured_at < (SELECT max(captured_at) FROM offset_ledger WHERE source_partition > 0 AND kind = 'capture')`)
			t.Logf("%d of %d records of the burst were captured when the last of the few was", few, burst)
			require.Less(t, few, int64(burst), "the burst went before the others")
			b.settle()
		})
	}
}

// urlBytes is about the longest url that is valid.
const urlBytes = 8000
