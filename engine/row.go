package engine

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/exactly-pipeline/exactly/internal/pgcopy"
)

// Row adds a row to the handler's i-th table: the values of the columns after the three source columns, in their order. A value's Go type is its
// column's: int16 smallint, int32 integer, int64 bigint, float64 double precision, bool boolean, string text or varchar, []byte bytea (nil: NULL),
// time.Time timestamptz, netip.Addr inet, nil NULL. Any other is a mistake in the program and panics, which makes the record a dead letter; so does what
// Postgres refuses, such as an int64 for an integer column.
func (o *Out) Row(i int, values ...any) {
	row := o.BeginRow(i, len(values))
	for n, v := range values {
		switch v := v.(type) {
		case nil:
			row = pgcopy.Null(row)
		case int16:
			row = pgcopy.Int2(row, v)
		case int32:
			row = pgcopy.Int4(row, v)
		case int64:
			row = pgcopy.Int8(row, v)
		case float64:
			row = pgcopy.Float8(row, v)
		case bool:
			row = pgcopy.Bool(row, v)
		case string:
			row = pgcopy.Text(row, v)
		case []byte:
			row = pgcopy.Bytea(row, v)
		case time.Time:
			row = pgcopy.Timestamptz(row, v)
		case netip.Addr:
			row = pgcopy.Inet(row, v)
		default:
			panic(fmt.Sprintf("engine: row of table %d: value %d is a %T, which no column takes", i, n, v))
		}
	}
	o.EndRow(i, row)
}
