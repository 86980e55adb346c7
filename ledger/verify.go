package ledger

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
)

// Chain verifies entries of one partition in the order of their seq, and remembers the hashes that heads are held against. Its zero value
// is a chain that begins with seq 1.
type Chain struct {
	Seq   int64
	Hash  []byte
	First int64 // seq of the first entry seen; 0: none yet
	Base  int64 // seq of the last entry that was moved to an archive; 0: none
	hash  map[int64][]byte
}

// GoOn makes the chain one that begins behind an entry that was moved to an archive.
func (c *Chain) GoOn(seq int64, hash []byte) {
	c.Seq, c.Hash, c.Base, c.First = seq, hash, seq, seq+1
	c.hash = map[int64][]byte{seq: hash}
}

// Add returns what is wrong with the next entry, nothing if it continues the chain. hash is the one that stands in its row.
func (c *Chain) Add(e *Entry, hash []byte) (wrong []string) {
	bad := func(format string, a ...any) {
		wrong = append(wrong, fmt.Sprintf("partition %d, seq %d: ", e.Partition, e.Seq)+fmt.Sprintf(format, a...))
	}
	if c.hash == nil {
		c.hash = map[int64][]byte{}
		c.First = e.Seq
	}
	if e.Seq != c.Seq+1 {
		bad("comes after seq %d", c.Seq)
	}
	if !bytes.Equal(e.PrevHash, c.Hash) {
		bad("prev_hash is not the hash of the entry before")
	}
	if !bytes.Equal(e.Hash(), hash) {
		bad("its fields do not make its hash: it was changed after it was written")
	}
	c.Seq, c.Hash = e.Seq, hash
	c.hash[e.Seq] = hash
	return wrong
}

// Heads holds heads of one partition, in the order they stand in the topic, against the chain. With keys, each head from the first signed
// one on must be signed by one of them.
func (c *Chain) Heads(heads []Head, keys []ed25519.PublicKey) (wrong []string) {
	signed := false
	replacing, left := Replacing(heads)
	for i := range heads {
		h := &heads[i]
		for len(left) > 0 && left[0] <= i {
			replacing, left = replacing[1:], left[1:]
		}
		bad := func(format string, a ...any) {
			wrong = append(wrong, fmt.Sprintf("partition %d: the head of seq %d in Kafka ", h.Partition, h.Seq)+fmt.Sprintf(format, a...))
		}
		if signed = signed || len(h.Sig) > 0; signed && len(keys) > 0 {
			if err := h.Signature(keys); err != nil {
				bad("%v", err)
				continue
			}
		}
		have, ok := c.hash[h.Seq]
		switch {
		case c.Explains(h, replacing):
		case ok:
			bad("is %s, the ledger has %x there: the chain was rewritten", h.Hash, have)
		case h.Seq > c.Seq:
			bad("is beyond the ledger, which ends at seq %d: entries were removed, or Postgres has gone back in time", c.Seq)
		case h.Seq >= c.First:
			bad("has no entry in the ledger")
		}
	}
	return wrong
}

// Replacing are the heads that replace earlier ones, very few of many, and where each stands.
func Replacing(heads []Head) (out []Head, at []int) {
	for i := range heads {
		if heads[i].Replaces != nil {
			out, at = append(out, heads[i]), append(at, i)
		}
	}
	return out, at
}

// Vouched says whether the head is that of an entry of the chain.
func (c *Chain) Vouched(h *Head) bool {
	have, ok := c.hash[h.Seq]
	return ok && bytes.Equal(have, h.Hash)
}

// Explains says whether the head is that of an entry of the chain, or is replaced by a later one that is: of a heal, or of the start that a heal
// made, from which the chain went on.
func (c *Chain) Explains(h *Head, later []Head) bool {
	if c.Vouched(h) || h.Seq < c.Base { // what was moved to an archive, its file tells
		return true
	}
	for i := range later {
		by := &later[i]
		if r := by.Replaces; r != nil && MayReplace(by.Kind) && r.first(by.Seq) <= h.Seq && h.Seq <= r.Seq && c.Vouched(by) {
			return true
		}
	}
	return false
}

// first is the lowest seq that is replaced by the entry of seq own.
func (r *Replaced) first(own int64) int64 {
	if r.From > 0 {
		return min(r.From, own)
	}
	return own
}

// MayReplace says whether an entry of the kind may be what a rebuilt chain goes on with.
func MayReplace(k Kind) bool { return k == Heal || k == Start }
