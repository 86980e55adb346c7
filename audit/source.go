package audit

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/exactly-pipeline/exactly/outbox"
)

const (
	sourceHeader = "exactly-source" // <input topic>/<partition>/<offset>
	geoHeader    = "exactly-geo"
)

// source is an input record's coordinate.
type source struct {
	partition int32
	offset    int64
}

func header(hs []outbox.Header, key string) string {
	for i := len(hs) - 1; i >= 0; i-- {
		if hs[i].Key == key {
			return string(hs[i].Value)
		}
	}
	return ""
}

// sourceOf reads exactly-source, or says why it can't. The last one counts: a dead letter carries its producer's own headers before ours.
func sourceOf(topic string, hs []outbox.Header) (s source, why string) {
	v := header(hs, sourceHeader)
	if v == "" {
		return s, "no " + sourceHeader + " header"
	}
	rest, ok := strings.CutPrefix(v, topic)
	rest, ok2 := strings.CutPrefix(rest, "/")
	part, off, ok3 := strings.Cut(rest, "/")
	n, good := plainNumber(part, math.MaxInt32)
	o, good2 := plainNumber(off, math.MaxInt64)
	if !ok || !ok2 || !ok3 || !good || !good2 {
		return s, fmt.Sprintf("the %s header %.80q is not %s/<partition>/<offset>", sourceHeader, v, topic)
	}
	return source{int32(n), o}, ""
}

// plainNumber takes digits only, without leading zeros: one coordinate has one spelling.
func plainNumber(s string, limit int64) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && n <= limit && s[0] != '+' && s[0] != '-' && (s[0] != '0' || len(s) == 1)
}
