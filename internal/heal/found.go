package heal

// found is which records of one source partition have their events in one topic: a bit a source offset, from base on.
type found struct {
	base int64
	bits []uint64
	end  int64 // behind the last one, wherever it is
}

func (f *found) add(offset int64) {
	f.end = max(f.end, offset+1)
	i := offset - f.base
	if i < 0 {
		return
	}
	for int64(len(f.bits)) <= i/64 {
		f.bits = append(f.bits, 0)
	}
	f.bits[i/64] |= 1 << (i % 64)
}

func (f *found) has(offset int64) bool {
	i := offset - f.base
	return i >= 0 && i/64 < int64(len(f.bits)) && f.bits[i/64]&(1<<(i%64)) != 0
}
