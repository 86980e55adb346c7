package clicks

import (
	"hash/fnv"
	"io"
	"time"

	"github.com/google/uuid"
)

const (
	sessionIdle = 30 * time.Minute // a visitor silent for longer has begun another session; web analytics' usual figure
	maxVisitors = 500_000          // remembered at once: bounds memory at about 100 MB
)

// sessionSpace makes session ids of this kind differ from every other version 5 UUID.
var sessionSpace = uuid.NewSHA1(uuid.NameSpaceOID, []byte("exactly clicks session"))

// visitors derives what a log does not say of who made a request: a visitor is an address with a user agent.
//
// The same lines in the same order give the same ids: user_id is a hash of the visitor, session_id one of the visitor and the
// time of the session's first request. If more than half of maxVisitors come within an hour, all are forgotten when it is full, and
// their sessions are split there.
type visitors struct {
	seen map[visitor]session
	max  int // 0: maxVisitors; a field for tests
}

type visitor struct{ ip, agent string }

type session struct {
	first, last int64 // ms since the Unix epoch
	id          string
}

// userID is 1..2^31.
func (v visitor) userID() int64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, v.ip) // a hash's Write never fails
	_, _ = h.Write([]byte{0})
	_, _ = io.WriteString(h, v.agent)
	x := h.Sum64()
	x ^= x >> 32 // FNV's low bits alone mix poorly
	return 1 + int64(x&(1<<31-1))
}

// sessionID is the id of the session that a request at atMs belongs to. A log is in the order that requests ended, so one may be a
// little earlier than the one before it: it still belongs to the session.
func (vs *visitors) sessionID(v visitor, atMs int64) string {
	s, ok := vs.seen[v]
	idle := sessionIdle.Milliseconds()
	if !ok || atMs > s.last+idle || atMs < s.first-idle {
		name := make([]byte, 0, len(v.ip)+len(v.agent)+32)
		name = append(append(append(append(name, v.ip...), 0), v.agent...), 0)
		name = time.UnixMilli(atMs).UTC().AppendFormat(name, time.RFC3339Nano)
		s = session{first: atMs, last: atMs, id: uuid.NewSHA1(sessionSpace, name).String()}
	}
	s.last = max(s.last, atMs)
	if !ok {
		vs.makeRoom(atMs)
	}
	vs.seen[v] = s
	return s.id
}

// makeRoom forgets the sessions that are over; nothing that comes can belong to them, unless the log is out of order by that much.
func (vs *visitors) makeRoom(nowMs int64) {
	limit := vs.max
	if limit == 0 {
		limit = maxVisitors
	}
	if vs.seen == nil {
		vs.seen = map[visitor]session{}
	}
	if len(vs.seen) < limit {
		return
	}
	for v, s := range vs.seen {
		if s.last < nowMs-2*sessionIdle.Milliseconds() {
			delete(vs.seen, v)
		}
	}
	if len(vs.seen) > limit/2 { // not worth doing again and again for a few
		clear(vs.seen)
	}
}
