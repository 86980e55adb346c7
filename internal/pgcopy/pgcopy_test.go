package pgcopy

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/stack"
)

type value struct {
	i2 int16
	i4 int32
	i8 int64
	s  string
	b  []byte
	ms int64
	ip netip.Addr
}

// What a real Postgres makes of the tuples is what pgx reads back.
func TestPostgresReadsIt(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, err := stack.Start(ctx, stack.Options{Dir: filepath.Join(t.TempDir(), "stack"), NoSyncKafka: true, NoSyncPostgres: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Stop()) }()
	conn, err := pgx.Connect(ctx, s.DSN())
	require.NoError(t, err)
	defer conn.Close(ctx) //nolint:errcheck // read only
	_, err = conn.Exec(ctx, `CREATE TEMP TABLE v (n int, i2 smallint, i4 int, i8 bigint, s text, c char(2), b bytea, at timestamptz, ip inet)`)
	require.NoError(t, err)

	values := []value{
		{0, 0, 0, "", nil, 0, netip.MustParseAddr("0.0.0.0")},
		{math.MinInt16, math.MinInt32, math.MinInt64, "ü€😀", []byte{}, -1, netip.MustParseAddr("::")},
		{math.MaxInt16, math.MaxInt32, math.MaxInt64, "a\nb\\N\t", []byte{0, 0xff}, 946_684_800_000, netip.MustParseAddr("255.255.255.255")},
		{1, 1, 1, "x", []byte("y"), 1_700_000_000_123, netip.MustParseAddr("2001:db8::1")},
		{1, 1, 1, "x", []byte("y"), -62_135_596_800_000, netip.MustParseAddr("::ffff:1.2.3.4")}, // year 1
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 500 {
		b := make([]byte, r.IntN(300))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		var a16 [16]byte
		for i := range a16 {
			a16[i] = byte(r.Uint32())
		}
		values = append(values, value{
			int16(r.Uint32()), int32(r.Uint32()), int64(r.Uint64()), string([]rune{rune(1 + r.IntN(0xd7fe))}), b, r.Int64N(4_000_000_000_000), netip.AddrFrom16(a16),
		})
	}
	buf := bytes.Clone(Header)
	for i, v := range values {
		buf = Tuple(buf, 9)
		buf = Int4(buf, int32(i))
		buf = Int2(buf, v.i2)
		buf = Int4(buf, v.i4)
		buf = Int8(buf, v.i8)
		buf = Text(buf, v.s)
		buf = Text(buf, "ZZ")
		buf = Bytea(buf, v.b)
		buf = TimestamptzMs(buf, v.ms)
		buf = Inet(buf, v.ip)
	}
	buf = append(buf, Trailer...)
	tag, err := conn.PgConn().CopyFrom(ctx, bytes.NewReader(buf), `COPY v FROM STDIN (FORMAT binary)`)
	require.NoError(t, err)
	require.EqualValues(t, len(values), tag.RowsAffected())

	rows, err := conn.Query(ctx, `SELECT i2, i4, i8, s, c, b, at, ip FROM v ORDER BY n`)
	require.NoError(t, err)
	n := 0
	for rows.Next() {
		var got value
		var c string
		var at time.Time
		var ip netip.Prefix
		require.NoError(t, rows.Scan(&got.i2, &got.i4, &got.i8, &got.s, &c, &got.b, &at, &ip))
		require.Equal(t, "ZZ", c)
		require.True(t, ip.IsSingleIP())
		got.ms, got.ip = at.UnixMilli(), ip.Addr()
		require.Equal(t, values[n], got, "value %d", n)
		n++
	}
	require.NoError(t, rows.Err())
	require.Equal(t, len(values), n)
}
