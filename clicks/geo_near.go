package clicks

import (
	"net/netip"
	"sync/atomic"
)

// nearBits is the length of the IPv4 prefixes that answers are kept for: nearly all networks of a country database are as large or larger.
const nearBits = 24

// near keeps the countries of the prefixes asked for last, where the whole prefix has one answer: a user's clicks come from one address, and the
// walk down the database's tree is two dozen steps, each of which misses the processor's caches. A slot is overwritten by the next prefix that
// falls into it. It is safe for concurrent use: prefix and country are one word.
type near struct{ slots [1 << 14]atomic.Uint32 }

// A word is the prefix' upper bits that the slot does not tell, 10 of them, and above those the number of the country, from 1; 0: nothing.
const nearTag = 10

func place(addr netip.Addr) (slot, tag uint32) {
	b := addr.As4()
	prefix := uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])
	return prefix & (1<<14 - 1), prefix >> 14
}

// country is that of addr's prefix; empty if it is not kept.
func (n *near) country(addr netip.Addr) string {
	if !addr.Is4() {
		return ""
	}
	slot, tag := place(addr)
	w := n.slots[slot].Load()
	if w == 0 || w&(1<<nearTag-1) != tag {
		return ""
	}
	return codes[w>>nearTag-1]
}

// keep notes an answer that all of addr's prefix has.
func (n *near) keep(addr netip.Addr, country string) {
	slot, tag := place(addr)
	n.slots[slot].Store((uint32(country[0]-'A')*letters+uint32(country[1]-'A')+1)<<nearTag | tag)
}

const letters = 26

// codes are all codes of two letters, so that none has to be made.
var codes = func() (all [letters * letters]string) {
	for i := range all {
		all[i] = string([]byte{'A' + byte(i/letters), 'A' + byte(i%letters)})
	}
	return all
}()
