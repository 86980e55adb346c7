package engine

import (
	"context"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/outbox"
)

// many makes as many messages of a record as its value says, and refuses a record without one.
type many struct{}

func (many) Tables() []Table { return nil }

func (many) Handle(_ context.Context, r *Record, out *Out) error {
	out.MadeWith(int(r.Offset%2)+3, 9, "geo/1")
	if r.Value == nil {
		return &Permanent{Class: "no_value", Stage: "decode"}
	}
	for range r.Value[0] {
		if err := out.Event("out", r.Key, r.Value, r.Headers); err != nil {
			return err
		}
	}
	return nil
}

// columns of a binary COPY tuple.
func columns(t *testing.T, b []byte) (tuples [][][]byte) {
	t.Helper()
	for len(b) > 0 {
		n := binary.BigEndian.Uint16(b)
		b = b[2:]
		row := make([][]byte, n)
		for i := range row {
			l := int32(binary.BigEndian.Uint32(b))
			b = b[4:]
			if l >= 0 {
				row[i], b = b[:l:l], b[l:]
			}
		}
		tuples = append(tuples, row)
	}
	return tuples
}

// What stands beside the messages, and the records, make the digest; no two records have one salt.
func TestSaltsAndDigest(t *testing.T) {
	var records []Record
	for i, n := range []int{1, 0, 3, -1, 1} {
		r := Record{Partition: 2, Offset: int64(i), TimestampMs: int64(i), Key: fmt.Append(nil, i), Value: []byte{byte(n)}, Headers: []outbox.Header{{Key: "h"}}}
		if n < 0 {
			r.Value = nil
		}
		records = append(records, r)
	}
	seen := map[ledger.Salt]bool{}
	for range 2 { // two processes
		p := newPreparer(many{}, &Shape{Input: "in", DLQ: "dlq", Partitions: map[string]int{"out": 4, "dlq": 4}}, 1)
		for range 2 {
			b, err := p.batch(t.Context(), &prepJob{partition: 2, records: records})
			require.NoError(t, err)
			require.Equal(t, []string{"3,4>9", "geo/1"}, []string{b.Schemas, b.Geo})
			rows, d := columns(t, b.Outbox), ledger.NewDigest()
			require.Len(t, rows, 6)
			for i := range records {
				r := &records[i]
				var salt ledger.Salt
				if len(rows) > 0 && binary.BigEndian.Uint64(rows[0][2]) == uint64(r.Offset) {
					salt = ledger.Salt(rows[0][10])
					require.False(t, seen[salt], "salt used twice")
					seen[salt] = true
				}
				want := ledger.RecordHash(salt, r.Offset, r.TimestampMs, r.Key, r.Value, r.Headers)
				d.Hash(want[:])
				for ; len(rows) > 0 && binary.BigEndian.Uint64(rows[0][2]) == uint64(r.Offset); rows = rows[1:] {
					require.Equal(t, salt[:], rows[0][10])
					require.Equal(t, want[:], rows[0][11])
					hash := ledger.MessageHash(salt, &b.Messages[0])
					d.Hash(hash[:])
					b.Messages = b.Messages[1:]
				}
			}
			require.Empty(t, rows)
			require.Equal(t, d.Sum(), b.Digest)
		}
	}
	require.False(t, seen[ledger.Salt{}])
}

func TestSchemaIDs(t *testing.T) {
	var s schemaIDs
	require.Empty(t, s.String())
	for _, id := range []int{7, 2, 7, 1} {
		s.add(id, 9)
	}
	require.Equal(t, "1,2,7>9", s.String())
	for i := range 1000 {
		s.add(i, 0)
	}
	require.Len(t, s.read, maxSchemaIDs)
}
