package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"net/netip"
)

// pseudonyms is where the workers' pseudonyms of addresses lie. Written here once more on purpose, as the rest of this file.
var pseudonyms = netip.MustParsePrefix("fd65:7861:6374::/48")

// addresses are compared in the form that the setting privacy.ip gives them, on both sides: what was captured while it was keep then agrees
// with its input just as well. A row and its event are compared in that form, too.
type addresses struct {
	mode string // "" and keep: as they are
	key  []byte
}

func (o *Options) addresses() (addresses, error) {
	switch {
	case o.IP == "hash" && len(o.IPKey) < 16:
		return addresses{}, fmt.Errorf("addresses are hashed (privacy.ip), and the key has %d bytes: must be 16 or more", len(o.IPKey))
	case o.IP != "" && o.IP != "keep" && o.IP != "truncate" && o.IP != "hash":
		return addresses{}, fmt.Errorf("addresses: %q must be keep, truncate or hash", o.IP)
	}
	return addresses{o.IP, o.IPKey}, nil
}

func (a *addresses) asTheyAre() bool { return a.mode == "" || a.mode == "keep" }

// of is safe for concurrent use.
func (a *addresses) of(addr netip.Addr) netip.Addr {
	addr = addr.Unmap()
	switch {
	case a.asTheyAre(), a.mode == "hash" && pseudonyms.Contains(addr):
	case a.mode == "truncate" && addr.Is4():
		addr = netip.PrefixFrom(addr, 24).Masked().Addr()
	case a.mode == "truncate":
		addr = netip.PrefixFrom(addr, 48).Masked().Addr()
	default:
		b := addr.As16()
		mac := hmac.New(sha256.New, a.key)
		mac.Write(b[:])
		out := pseudonyms.Addr().As16()
		copy(out[6:], mac.Sum(nil))
		addr = netip.AddrFrom16(out)
	}
	return addr
}

// text is an address as it is written in an event. What is none stays as it is.
func (a *addresses) text(ip string) string {
	if a.asTheyAre() {
		return ip
	}
	addr, err := netip.ParseAddr(ip)
	if err != nil || addr.Zone() != "" {
		return ip
	}
	return a.of(addr).String()
}

// column is an address in the form of appendAddr. What has a netmask, or is none, stays as it is: nothing that a worker writes.
func (a *addresses) column(b []byte) []byte {
	if a.asTheyAre() || len(b) == 0 {
		return b
	}
	addr, ok := netip.AddrFromSlice(b[:len(b)-1])
	if !ok || int(b[len(b)-1]) != addr.BitLen() {
		return b
	}
	addr = a.of(addr)
	return append(append(b[:0], addr.AsSlice()...), byte(addr.BitLen()))
}
