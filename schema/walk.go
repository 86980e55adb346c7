package schema

import (
	"errors"
	"fmt"
	"math"
)

// maxDepth bounds how deep a value may nest: a type may contain itself without a byte in between.
const maxDepth = 64

// walk reads one value by a plan. Strings are parts of s, which is a copy of the value: one allocation whatever it holds.
type walk struct {
	s     string
	pos   int
	left  int // steps that may still be taken: an array of nulls can claim any number of them in ten bytes
	depth int
	out   *EnrichedClick
}

var (
	errShort  = errors.New("ends early, or a length in it is wrong")
	errValue  = errors.New("a value in it is out of its type's range")
	errTooBig = errors.New("nests too deep, or claims more items than there are bytes for")
)

// read reads the whole of s by p; the error names the field, never its value.
func read(p *plan, s string, pos int, out *EnrichedClick) error {
	w := walk{s: s, pos: pos, left: 1024 + p.nodes + 8*len(s), out: out}
	if err := w.node(p.root); err != nil {
		return err
	}
	return leftOver(s, w.pos)
}

func leftOver(s string, pos int) error {
	if pos == len(s) {
		return nil
	}
	return fmt.Errorf("%d of %d bytes are left over", len(s)-pos, len(s))
}

func (w *walk) node(n *node) error {
	w.left--
	if w.left < 0 || w.depth > maxDepth {
		return errTooBig
	}
	switch n.kind {
	case kindNull:
		return nil
	case kindBool:
		if w.pos < len(w.s) && w.s[w.pos] > 1 {
			return errValue
		}
		return w.advance(1)
	case kindFixed:
		return w.advance(int64(n.size))
	case kindInt, kindLong:
		v, err := w.long()
		if err != nil {
			return err
		}
		if n.kind == kindInt && (v < math.MinInt32 || v > math.MaxInt32) {
			return errValue
		}
		w.out.setLong(n.to, v)
		return nil
	case kindText:
		text, pos := readText(w.s, w.pos)
		if pos < 0 {
			return errShort
		}
		w.pos = pos
		w.out.setText(n.to, text)
		return nil
	case kindEnum:
		_, err := w.index(n.size)
		return err
	case kindUnion:
		i, err := w.index(len(n.kids))
		if err != nil {
			return err
		}
		return w.inside(n.kids[i])
	case kindArray, kindMap:
		return w.blocks(n)
	case kindUnreadable:
		return n.why
	default:
		return w.record(n)
	}
}

func (w *walk) inside(n *node) error {
	w.depth++
	defer func() { w.depth-- }()
	return w.node(n)
}

func (w *walk) record(n *node) error {
	if n.start != nil {
		*w.out = *n.start
	}
	for i, kid := range n.kids {
		if err := w.inside(kid); err != nil {
			if w.depth == 0 { // deeper ones are fields of fields that are skipped
				return fmt.Errorf("field %s: %w", n.names[i], err)
			}
			return err
		}
	}
	return nil
}

// blocks reads past an array or a map: blocks of a count and so many items, or of a negative count, a size in bytes and so many bytes.
func (w *walk) blocks(n *node) error {
	for {
		w.left--
		count, err := w.long()
		if err != nil || count == 0 {
			return err
		}
		if w.left < 0 {
			return errTooBig
		}
		if count < 0 {
			size, err := w.long()
			if err != nil {
				return err
			}
			if err := w.advance(size); err != nil {
				return err
			}
			continue
		}
		for range count {
			if n.kind == kindMap {
				if _, w.pos = readText(w.s, w.pos); w.pos < 0 {
					return errShort
				}
			}
			if err := w.inside(n.kids[0]); err != nil {
				return err
			}
		}
	}
}

func (w *walk) long() (int64, error) {
	v, pos := readLong(w.s, w.pos)
	if pos < 0 {
		return 0, errShort
	}
	w.pos = pos
	return v, nil
}

// index reads a number in [0, n).
func (w *walk) index(n int) (int, error) {
	v, err := w.long()
	if err == nil && (v < 0 || v >= int64(n)) {
		err = errValue
	}
	return int(v), err
}

func (w *walk) advance(n int64) error {
	if n < 0 || n > int64(len(w.s)-w.pos) {
		return errShort
	}
	w.pos += int(n)
	return nil
}

// readLong reads a zigzag varint at pos of s and returns what follows it; -1 if s ends before, or it has more than 64 bits.
func readLong(s string, pos int) (int64, int) {
	var v uint64
	for shift := uint(0); pos < len(s) && shift < 64; shift += 7 {
		b := s[pos]
		pos++
		if shift == 63 && b > 1 {
			return 0, -1
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return int64(v>>1) ^ -int64(v&1), pos
		}
	}
	return 0, -1
}

// readText reads a length and so many bytes at pos of s and returns what follows them; -1 if they are not there.
func readText(s string, pos int) (string, int) {
	n, pos := readLong(s, pos)
	if pos < 0 || n < 0 || n > int64(len(s)-pos) {
		return "", -1
	}
	end := pos + int(n)
	return s[pos:end], end
}
