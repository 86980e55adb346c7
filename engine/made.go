package engine

import (
	"slices"
	"strconv"
)

// schemaIDs are the registry ids that a batch was read and written under: very few, so a list is searched.
type schemaIDs struct{ read, written []int }

// maxSchemaIDs bounds them: a ledger entry is no place for every schema that ever was.
const maxSchemaIDs = 64

func (s *schemaIDs) add(read, written int) {
	if read != 0 && !slices.Contains(s.read, read) && len(s.read) < maxSchemaIDs {
		s.read = append(s.read, read)
	}
	if written != 0 && !slices.Contains(s.written, written) && len(s.written) < maxSchemaIDs {
		s.written = append(s.written, written)
	}
}

// String is the ids read, ascending, >, those written: 1,2>7. Empty if there are none.
func (s *schemaIDs) String() string {
	if len(s.read)+len(s.written) == 0 {
		return ""
	}
	b := appendIDs(nil, s.read)
	return string(appendIDs(append(b, '>'), s.written))
}

func appendIDs(b []byte, ids []int) []byte {
	slices.Sort(ids)
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(id), 10)
	}
	return b
}
