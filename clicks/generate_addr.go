package clicks

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
)

// special are the blocks no client on the Internet has: IANA's special-purpose registries (RFC 6890 and its updates), multicast and
// the reserved class E. 2000::/3 is the only part of IPv6 given out, so the rest of it needs no entry.
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24",
	"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
)

// registries are the blocks the five regional registries give networks from: an address drawn from all of 2000::/3 would hardly ever
// be in use, and so never have a country.
var registries = prefixes("2400::/12", "2600::/12", "2800::/12", "2a00::/12", "2c00::/12")

var global6 = netip.MustParsePrefix("2000::/3")

// isPublic reports whether a client on the Internet can have the address.
func isPublic(a netip.Addr) bool {
	a = a.Unmap()
	if a.Is6() && !global6.Contains(a) {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return a.IsValid()
}

// publicAddr is a random public address: nine in ten are v4.
func publicAddr(rng *rand.Rand) netip.Addr {
	for {
		a := randomAddr4(rng)
		if rng.IntN(10) == 0 {
			a = randomAddr6(rng)
		}
		if isPublic(a) { // about one v4 in seven is not: drawing again keeps the rest even
			return a
		}
	}
}

func randomAddr4(rng *rand.Rand) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], rng.Uint32())
	return netip.AddrFrom4(b)
}

func randomAddr6(rng *rand.Rand) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], rng.Uint64())
	binary.BigEndian.PutUint64(b[8:], rng.Uint64())
	p := registries[rng.IntN(len(registries))]
	block := p.Addr().As16()
	b[0], b[1] = block[0], block[1]|b[1]&0x0f // 12 bits are the registry's
	return netip.AddrFrom16(b)
}

func prefixes(cidrs ...string) (ps []netip.Prefix) {
	for _, c := range cidrs {
		ps = append(ps, netip.MustParsePrefix(c))
	}
	return ps
}
