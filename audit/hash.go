package audit

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"

	"github.com/exactly-pipeline/exactly/outbox"
)

// hasher makes 64-bit hashes of canonical encodings. Only hashes made for the same coordinate are ever compared, so that a false
// "equal" has odds of 2^-64 a comparison; the seed is fresh for every audit, so that nobody can prepare one.
type hasher struct{ seed maphash.Seed }

func newHasher() hasher { return hasher{maphash.MakeSeed()} }

// scratch is one goroutine's buffer for canonical encodings.
type scratch struct {
	hasher
	b       []byte
	headers []outbox.Header
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
func (s *scratch) sum() uint64 { return maphash.Bytes(s.seed, s.b) }

// keyValue is for what must have come through untouched.
func (s *scratch) keyValue(key, value []byte) uint64 {
	s.begin()
	s.bytes(key)
	s.bytes(value)
	return s.sum()
}

// click covers the click's fields as they are on the wire, the address as text.
func (s *scratch) click(c *click) uint64 {
	s.begin()
	s.int(c.UserID)
	s.str(c.SessionID)
	s.int(c.TimestampMs)
	s.str(c.URL)
	s.str(c.IP)
	return s.sum()
}

// rowFields are the columns of a row; addr is the address in bytes: inet does not keep the text it was given.
type rowFields struct {
	user       int64
	session    string
	unixMicros int64
	url        string
	addr       []byte // 4 or 16 bytes, and the length of the netmask behind them; nil: no address
	country    string
	geo        string
}

// appendAddr is the address as Postgres keeps it in an inet: nil if it is none.
func appendAddr(dst []byte, ip string) []byte {
	a, err := netip.ParseAddr(ip)
	if err != nil || a.Zone() != "" {
		return nil
	}
	a = a.Unmap() // ::ffff:192.0.2.1 and 192.0.2.1 are one address
	dst = append(dst, a.AsSlice()...)
	return append(dst, byte(a.BitLen()))
}

// plain covers the click's fields of a row, full all of them.
func (s *scratch) row(f *rowFields) (plain, full uint64) {
	s.begin()
	s.int(f.user)
	s.str(f.session)
	s.int(f.unixMicros)
	s.str(f.url)
	s.bytes(f.addr)
	plain = s.sum()
	s.str(f.country)
	s.str(f.geo)
	return plain, s.sum()
}

// asRow is the row that a click must become.
func asRow(c *click, country, geo string, addr []byte) rowFields {
	return rowFields{
		user: c.UserID, session: c.SessionID, unixMicros: c.TimestampMs * 1000, url: c.URL,
		addr: appendAddr(addr, c.IP), country: country, geo: geo,
	}
}

// message covers all that Kafka is given of a record: placement, time, key, value, headers in order.
func (s *scratch) message(m *outbox.Message) uint64 {
	s.begin()
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
	return s.sum()
}
