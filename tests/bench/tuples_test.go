package bench

import (
	"net/netip"

	"github.com/exactly-pipeline/exactly/clicks"
	"github.com/exactly-pipeline/exactly/internal/pgcopy"
	"github.com/exactly-pipeline/exactly/schema"
)

// inCopy is how many rows a COPY has: as many as a capture on one of three sessions.
const inCopy = 8000

// tuples are the rows of inCopy clicks, and where each begins; the last is where they end. Their source offsets, eight bytes, 20 behind a row's beginning, are to be filled in.
func tuples(source int16, partition int32) (rows []byte, at []int) {
	g := clicks.NewGenerator(clicks.GeneratorConfig{Seed: uint64(partition)})
	geo, err := clicks.OpenGeo("")
	if err != nil {
		panic(err)
	}
	for range inCopy {
		var c schema.Click
		g.Next(&c)
		addr := netip.MustParseAddr(c.IP)
		at = append(at, len(rows))
		rows = pgcopy.Tuple(rows, 10)
		rows = pgcopy.Int2(rows, source)
		rows = pgcopy.Int4(rows, partition)
		rows = pgcopy.Int8(rows, 0)
		rows = pgcopy.Int8(rows, c.UserID)
		rows = pgcopy.Text(rows, c.SessionID)
		rows = pgcopy.TimestamptzMs(rows, c.TimestampMs)
		rows = pgcopy.Text(rows, c.URL)
		rows = pgcopy.Inet(rows, addr)
		rows = pgcopy.Text(rows, geo.Country(addr))
		rows = pgcopy.Text(rows, geo.Build())
	}
	return rows, append(at, len(rows))
}
