// Package pgcopy owns the binary COPY encoding: it appends tuples in Postgres' binary COPY format (PostgreSQL manual, COPY, "Binary Format") to a byte slice.
//
// It promises no allocation and no reflection per value: pgx's CopyFrom boxes every column of every row. It never talks to a server.
package pgcopy

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"
)

// Header opens a COPY stream, Trailer ends it.
var (
	Header  = []byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	Trailer = []byte{0xff, 0xff}
)

// microseconds from the Unix epoch to Postgres' (2000-01-01)
const epoch2000 = 946_684_800_000_000

// Tuple begins a tuple of n columns; exactly n values must follow.
func Tuple(b []byte, n int) []byte { return binary.BigEndian.AppendUint16(b, uint16(n)) }

// First is the first tuple of b, what comes behind it, and its third column as a bigint: the source offset of every row of ours. ok is false where b does
// not begin with a whole tuple of that form.
func First(b []byte) (tuple, rest []byte, offset int64, ok bool) {
	if len(b) < 2 {
		return nil, nil, 0, false
	}
	at := 2
	for i := range int(binary.BigEndian.Uint16(b)) {
		if len(b) < at+4 {
			return nil, nil, 0, false
		}
		n := max(int(int32(binary.BigEndian.Uint32(b[at:]))), 0) // -1: NULL
		at += 4
		if len(b) < at+n {
			return nil, nil, 0, false
		}
		if i == 2 && n == 8 {
			offset, ok = int64(binary.BigEndian.Uint64(b[at:])), true
		}
		at += n
	}
	return b[:at], b[at:], offset, ok
}

// Int2 appends a smallint.
func Int2(b []byte, v int16) []byte {
	return binary.BigEndian.AppendUint16(append(b, 0, 0, 0, 2), uint16(v))
}

// Int4 appends an integer.
func Int4(b []byte, v int32) []byte {
	return binary.BigEndian.AppendUint32(append(b, 0, 0, 0, 4), uint32(v))
}

// Int8 appends a bigint.
func Int8(b []byte, v int64) []byte {
	return binary.BigEndian.AppendUint64(append(b, 0, 0, 0, 8), uint64(v))
}

// Text appends a text, varchar or char value.
func Text(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// Bytea appends a bytea; nil is NULL.
func Bytea(b, v []byte) []byte {
	if v == nil {
		return append(b, 0xff, 0xff, 0xff, 0xff)
	}
	return append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
}

// TimestamptzMs appends a timestamptz given as milliseconds since the Unix epoch.
func TimestamptzMs(b []byte, ms int64) []byte { return Int8(b, ms*1000-epoch2000) }

// Timestamptz appends a timestamptz, to the microsecond.
func Timestamptz(b []byte, t time.Time) []byte { return Int8(b, t.UnixMicro()-epoch2000) }

// Float8 appends a double precision.
func Float8(b []byte, v float64) []byte { return Int8(b, int64(math.Float64bits(v))) }

// Bool appends a boolean.
func Bool(b []byte, v bool) []byte {
	if v {
		return append(b, 0, 0, 0, 1, 1)
	}
	return append(b, 0, 0, 0, 1, 0)
}

// Null appends a NULL of any type.
func Null(b []byte) []byte { return append(b, 0xff, 0xff, 0xff, 0xff) }

// Inet appends an inet host address (no netmask).
func Inet(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		v := a.As4()
		b = append(b, 0, 0, 0, 8, 2, 32, 0, 4)
		return append(b, v[:]...)
	}
	v := a.As16()
	b = append(b, 0, 0, 0, 20, 3, 128, 0, 16)
	return append(b, v[:]...)
}
