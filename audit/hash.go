package audit

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"

	"github.com/exactly-pipeline/exactly/outbox"
)

// hasher makes 64-bit hashes of canonical encodings. Only hashes made for the same coordinate are ever compared, so that a false
// "equal" has odds of 2^-64 a comparison; the seed is fresh for every audit, so that nobody can prepare one.
type hasher struct {
	seed, seed2 maphash.Seed
	key         uint64
}

func newHasher() hasher {
	h := hasher{seed: maphash.MakeSeed(), seed2: maphash.MakeSeed()}
	h.key = maphash.Bytes(h.seed2, nil)
	return h
}

// scratch is one goroutine's buffer for canonical encodings.
type scratch struct {
	hasher
	b       []byte
	headers []outbox.Header
	fields  rowFields
	ip      [32]byte
}

func (s *scratch) begin()       { s.b = s.b[:0] }
func (s *scratch) int(v int64)  { s.b = binary.BigEndian.AppendUint64(s.b, uint64(v)) }
func (s *scratch) str(v string) { s.int(int64(len(v))); s.b = append(s.b, v...) }

// bytes keeps null and empty apart.
func (s *scratch) bytes(v []byte) {
	if v == nil {
		s.int(-1)
		return
	}
	s.int(int64(len(v)))
	s.b = append(s.b, v...)
}

// text is for what can't be null.
func (s *scratch) text(v []byte) { s.int(int64(len(v))); s.b = append(s.b, v...) }

func (s *scratch) sum() uint64 { return maphash.Bytes(s.seed, s.b) }

// keyValue encodes what must have come through untouched. This and its likes leave an encoding in the scratch, for sum or wideSum; the
// offset is in it, so that the same at another offset is not the same.
func (s *scratch) keyValue(offset int64, key, value []byte) *scratch {
	s.begin()
	s.int(offset)
	s.bytes(key)
	s.bytes(value)
	return s
}

// click covers the click's fields as they are on the wire, the address as text.
func (s *scratch) click(offset int64, c *click) *scratch {
	s.begin()
	s.int(offset)
	s.int(c.UserID)
	s.str(c.SessionID)
	s.int(c.TimestampMs)
	s.str(c.URL)
	s.str(c.IP)
	return s
}

// rowFields are the columns of a row; addr is the address in bytes: inet does not keep the text it was given.
type rowFields struct {
	user       int64
	session    []byte
	unixMicros int64
	url        []byte
	addr       []byte // 4 or 16 bytes, and the length of the netmask behind them; nil: no address
	country    []byte
	geo        []byte
}

// appendAddr is the address as Postgres keeps it in an inet: nil if it is none.
func appendAddr(dst []byte, ip string) []byte {
	a, err := netip.ParseAddr(ip)
	if err != nil || a.Zone() != "" {
		return nil
	}
	a = a.Unmap() // ::ffff:192.0.2.1 and 192.0.2.1 are one address
	if a.Is4() {
		b := a.As4()
		dst = append(dst, b[:]...)
	} else {
		b := a.As16()
		dst = append(dst, b[:]...)
	}
	return append(dst, byte(a.BitLen()))
}

// plainRow covers the click's fields of a row.
func (s *scratch) plainRow(offset int64, f *rowFields) *scratch {
	s.begin()
	s.int(offset)
	s.int(f.user)
	s.text(f.session)
	s.int(f.unixMicros)
	s.text(f.url)
	s.bytes(f.addr)
	return s
}

// andGeo goes on from plainRow to all of a row's fields.
func (s *scratch) andGeo(f *rowFields) *scratch {
	s.text(f.country)
	s.text(f.geo)
	return s
}

// asRow is the row that a click must become. Its texts are the scratch's, until the next.
func (s *scratch) asRow(c *click, country, geo string) *rowFields {
	text := func(b []byte, v string) []byte { return append(b[:0], v...) }
	f := &s.fields
	f.user, f.unixMicros = c.UserID, c.TimestampMs*1000
	f.session, f.url, f.country, f.geo = text(f.session, c.SessionID), text(f.url, c.URL), text(f.country, country), text(f.geo, geo)
	f.addr = appendAddr(s.ip[:0], c.IP)
	return f
}

// message covers all that Kafka is given of a record: placement, time, key, value, headers in order.
func (s *scratch) message(offset int64, m *outbox.Message) *scratch {
	s.begin()
	s.int(offset)
	s.str(m.Topic)
	s.int(int64(m.Partition))
	s.int(m.TimestampMs)
	s.bytes(m.Key)
	s.bytes(m.Value)
	s.int(int64(len(m.Headers)))
	for _, h := range m.Headers {
		s.str(h.Key)
		s.bytes(h.Value)
	}
	return s
}
