package audit

import (
	"hash/maphash"
	"math/bits"
)

// wide is a 128-bit keyed hash of one record's canonical encoding, its offset included.
type wide struct{ a, b uint64 }

// sum is a multiset of records: how many, and the sum of their hashes mod 2^128. It does not depend on the order they come in, and two
// multisets that differ have the same sum with odds of 2^-128, for whoever does not know the audit's seeds, which are made anew for each.
type sum struct {
	n int64
	wide
}

func (s *sum) add(h wide) {
	s.n++
	s.plus(h)
}

// plus adds without counting.
func (w *wide) plus(h wide) {
	var carry uint64
	w.b, carry = bits.Add64(w.b, h.b, 0)
	w.a, _ = bits.Add64(w.a, h.a, carry)
}

// wideSum is the hash of the scratch.
func (s *scratch) wideSum() wide {
	return wide{maphash.Bytes(s.seed, s.b), maphash.Bytes(s.seed2, s.b)}
}

// weight is a keyed number for the entry that ends at an offset: counts of many entries are compared as one sum of weights.
func (h hasher) weight(end int64) uint64 {
	x := uint64(end) * 0x9e3779b97f4a7c15
	x = (x ^ x>>31 ^ h.key) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27 ^ bits.RotateLeft64(h.key, 29)) * 0x94d049bb133111eb
	return x ^ x>>31 | 1
}
