package schema

import (
	"encoding/binary"
	"fmt"
	"math"
)

// wireHeader is the length of Confluent's prefix: a zero byte and the schema's id, four bytes, big-endian.
const wireHeader = 5

// header is the prefix of values written with schema id. It panics if id is none: that is a programmer's error.
func header(id int) [wireHeader]byte {
	if id < 0 || int64(id) > math.MaxUint32 {
		panic(fmt.Sprintf("schema: %d is no schema id", id))
	}
	var h [wireHeader]byte
	binary.BigEndian.PutUint32(h[1:], uint32(id))
	return h
}

// SchemaID is the id in value's prefix; an *InvalidError if there is no value or no such prefix.
func SchemaID(value []byte) (int, error) {
	if len(value) == 0 {
		return 0, &InvalidError{ClassNoValue, "the record has no value"}
	}
	if value[0] != 0 {
		return 0, &InvalidError{ClassNotAvro, fmt.Sprintf("first byte is 0x%02x, not the 0x00 of the Confluent wire format", value[0])}
	}
	if len(value) < wireHeader {
		return 0, &InvalidError{ClassNotAvro, fmt.Sprintf("%d bytes are too short for the Confluent wire format", len(value))}
	}
	return int(binary.BigEndian.Uint32(value[1:])), nil
}
