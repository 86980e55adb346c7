package schema

import "slices"

// kind is how a writer's type lies in the bytes.
type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindInt
	kindLong
	kindText // string and bytes: the same on the wire, promotable into each other
	kindFixed
	kindEnum
	kindArray
	kindMap
	kindUnion
	kindRecord
	kindUnreadable // a branch of a union that can't be read as ours: an error if it is met
)

// target is where a value goes.
type target uint8

const (
	skip target = iota
	toUserID
	toSession
	toTimestamp
	toURL
	toIP
	toCountry
)

var targets = map[string]target{"user_id": toUserID, "session_id": toSession, "timestamp": toTimestamp, "url": toURL, "ip": toIP, "country": toCountry}

// node is one type of the writer's schema, and what becomes of its value.
type node struct {
	kind  kind
	to    target
	size  int            // kindFixed: bytes; kindEnum: symbols
	kids  []*node        // kindArray, kindMap: one; kindUnion, kindRecord: in order
	names []string       // kindRecord: the writer's names of its fields, for messages
	why   error          // kindUnreadable
	start *EnrichedClick // kindRecord that is read: the reader's defaults for what the writer lacks
}

// plan is a writer's schema resolved to a reader's. It never changes.
type plan struct {
	root  *node
	nodes int  // in it
	fast  bool // the bytes are exactly what our encoder writes
}

// isOurs tells whether n lies in the bytes exactly as our encoder writes the first fields of enriched_click.avsc.
func isOurs(n *node, fields int) bool {
	ours := []node{{kind: kindLong, to: toUserID}, {kind: kindText, to: toSession}, {kind: kindLong, to: toTimestamp},
		{kind: kindText, to: toURL}, {kind: kindText, to: toIP}, {kind: kindText, to: toCountry}}
	if n.kind != kindRecord || fields > len(ours) {
		return false
	}
	return slices.EqualFunc(n.kids, ours[:fields], func(a *node, b node) bool { return a.kind == b.kind && a.to == b.to })
}

func (c *EnrichedClick) setLong(to target, v int64) {
	switch to {
	case toUserID:
		c.UserID = v
	case toTimestamp:
		c.TimestampMs = v
	}
}

func (c *EnrichedClick) setText(to target, s string) {
	switch to {
	case toSession:
		c.SessionID = s
	case toURL:
		c.URL = s
	case toIP:
		c.IP = s
	case toCountry:
		c.Country = s
	}
}
