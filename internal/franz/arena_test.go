package franz

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/outbox"
)

// Records of one transaction never share memory; those of the next one do with the last one's, and cost nothing.
func TestArena(t *testing.T) {
	var a arena
	headers := make([]outbox.Header, 5000) // more than a block has
	for i := range headers {
		headers[i].Key = fmt.Sprint(i)
	}
	transaction := func() {
		var rs []*kgo.Record
		for i := range 3 * arenaBlock {
			m := &outbox.Message{Topic: "t", Partition: int32(i), TimestampMs: int64(i), Headers: headers[i%7 : i%7+i%4]}
			if i == arenaBlock {
				m.Headers = headers
			}
			rs = append(rs, a.record(m))
		}
		for i, r := range rs {
			want := headers[i%7 : i%7+i%4]
			if i == arenaBlock {
				want = headers
			}
			require.EqualValues(t, i, r.Partition)
			require.EqualValues(t, i, r.Timestamp.UnixMilli())
			require.Len(t, r.Headers, len(want))
			for j := range want {
				require.Equal(t, want[j].Key, r.Headers[j].Key)
			}
		}
		a.again()
	}
	transaction()
	transaction()
	m := &outbox.Message{Topic: "t", Headers: headers[:3]}
	require.Zero(t, testing.AllocsPerRun(100, func() { a.record(m); a.again() }))
}
