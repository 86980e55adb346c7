// Package schema owns the Avro schemas, the types they describe, the registry client and the codec. It is the only room that imports
// an Avro library.
//
// It promises that any bytes at all either decode, or give an *InvalidError (the bytes are wrong and will stay wrong), or a
// *TransientError (try again); that hostile bytes neither panic, nor hang, nor take more memory than a small multiple of their own size.
// It never knows what a topic is for, and never guesses at a value.
package schema

import (
	_ "embed"

	"github.com/hamba/avro/v2"
)

// ClickAvsc and EnrichedClickAvsc are the schemas as they are registered.
var (
	//go:embed click.avsc
	ClickAvsc string
	//go:embed enriched_click.avsc
	EnrichedClickAvsc string
)

// Click is one page a user opened.
type Click struct {
	UserID      int64  `avro:"user_id"`    // 1 and up
	SessionID   string `avro:"session_id"` // uuid
	TimestampMs int64  `avro:"timestamp"`  // ms since the Unix epoch
	URL         string `avro:"url"`
	IP          string `avro:"ip"` // v4 or v6
}

// EnrichedClick is a Click and the country it came from.
type EnrichedClick struct {
	Click
	Country string `avro:"country"` // ISO 3166-1 alpha-2, ZZ where there is no answer
}

var (
	clickSchema    = mustParse(ClickAvsc)
	enrichedSchema = mustParse(EnrichedClickAvsc)
)

func mustParse(avsc string) *avro.RecordSchema {
	s, err := avro.ParseWithCache(avsc, "", &avro.SchemaCache{})
	if err != nil {
		panic("schema: an embedded schema does not parse: " + err.Error())
	}
	return s.(*avro.RecordSchema)
}
