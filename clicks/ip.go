package clicks

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"
	"net/netip"
)

// HashedPrefix is where hashed addresses lie: a unique local /48 (RFC 4193) whose global id spells "exact". Nobody's network has it, so a
// hashed address is never taken for a real one, nor the other way round.
var HashedPrefix = netip.MustParsePrefix("fd65:7861:6374::/48")

// IP is what is kept of a click's address, in the row and in the event alike. The country is looked up before, of the whole address.
type IP struct {
	mode string
	mac  hash.Hash // of one goroutine
	sum  []byte
}

// NewIP is keep: the address as it came; truncate: its network, /24 of IPv4 and /48 of IPv6; or hash: a pseudonym, HMAC-SHA-256 under the key,
// the first 80 bits of it, in HashedPrefix. The same address has the same pseudonym for as long as the key is the same; without the key,
// trying all addresses does not lead back.
func NewIP(mode string, key []byte) (*IP, error) {
	switch mode {
	case "keep", "truncate":
		return &IP{mode: mode}, nil
	case "hash":
		if len(key) < 16 {
			return nil, fmt.Errorf("the key for addresses has %d bytes: must be 16 or more", len(key))
		}
		return &IP{mode: mode, mac: hmac.New(sha256.New, key)}, nil
	}
	return nil, fmt.Errorf("no way to keep an address: %q", mode)
}

// Of is what is kept of addr, which has no zone and is no IPv4 address in IPv6's clothes. It is not safe for concurrent use.
func (k *IP) Of(addr netip.Addr) netip.Addr {
	switch k.mode {
	case "truncate":
		bits := 48
		if addr.Is4() {
			bits = 24
		}
		return netip.PrefixFrom(addr, bits).Masked().Addr()
	case "hash":
		b := addr.As16() // 4-in-6, so that an IPv4 address is not the IPv6 address of the same last bytes
		k.mac.Reset()
		k.mac.Write(b[:])
		k.sum = k.mac.Sum(k.sum[:0])
		out := HashedPrefix.Addr().As16()
		copy(out[6:], k.sum)
		return netip.AddrFrom16(out)
	}
	return addr
}
