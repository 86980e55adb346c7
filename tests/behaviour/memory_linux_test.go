package behaviour

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/schema"
)

const (
	large     = 1_000_000 // bytes of a value
	residents = 300       // MiB that a worker may take
)

// peak is the most memory that the worker was resident in so far, in MiB.
func (w *worker) peak() int {
	w.b.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.cmd.Process.Pid))
	require.NoError(w.b.t, err)
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	require.NotNil(w.b.t, m)
	kb, err := strconv.Atoi(string(m[1]))
	require.NoError(w.b.t, err)
	return kb >> 10
}

// largeClick is the evolved schema's, with a referrer that makes a megabyte of it.
func largeClick(id int) func(*schema.Click) []byte {
	return func(c *schema.Click) []byte {
		b := binary.BigEndian.AppendUint32([]byte{0}, uint32(id))
		b = text(binary.AppendVarint(b, 1), strings.Repeat("r", large-300))
		b = text(text(b, c.URL), c.IP)
		b = text(binary.AppendVarint(b, c.UserID), c.SessionID)
		return append(binary.AppendVarint(b, c.TimestampMs), 0)
	}
}

// Values of a megabyte in all partitions, as fast as they go: clicks, and every other one a dead letter, whose bytes go to both sinks. What a
// worker is resident in is bounded, whichever the Kafka client; what was in flight when the first was killed, the second drains.
func TestLargeValues(t *testing.T) {
	for _, client := range []string{"confluent", "franz"} {
		t.Run(client, func(t *testing.T) {
			b := setup(t, "EXACTLY_KAFKA_CLIENT="+client, "EXACTLY_BATCH_MAX_RECORDS=8000", "EXACTLY_DEAD_LETTERS_MAX_SHARE=0")
			_, id := b.register(b.cfg.Topics.Input+"-value", writers[0])
			const values = 240
			encode := largeClick(id)
			for i := 0; i < values; {
				var rs []*kgo.Record
				for range 24 {
					r := record(int32(i/2%partitions), i, encode)
					if i%2 == 1 {
						r.Value = bytes.Repeat([]byte{0xee}, large)
					}
					rs = append(rs, r)
					i++
				}
				b.produceLarge(rs...)
			}
			w := b.start("a")
			b.until("half of it is published", func() bool { return b.published() >= values/2 })
			first := w.peak()
			w.kill()
			w = b.start("b")
			b.until("all of it is stored and published", func() bool { return b.stored() == b.sent && b.published() == b.sent })
			second := w.peak()
			t.Logf("peak resident memory: %d MiB, and %d MiB of the one that took over", first, second)
			require.Less(t, first, residents)
			require.Less(t, second, residents)
			require.EqualValues(t, values/2, b.scalar(`SELECT count(*) FROM dead_letters`))
			b.audit(true)
		})
	}
}
