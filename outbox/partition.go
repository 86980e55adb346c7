package outbox

// Partition chooses a message's partition as Java clients do: murmur2 of the key over n partitions. A message without a key goes by
// its source partition, so that order is kept and the choice is the same on every try.
func Partition(key []byte, sourcePartition int32, n int) int32 {
	if key == nil {
		return sourcePartition % int32(n)
	}
	return int32(murmur2(key)&0x7fffffff) % int32(n)
}

// murmur2 is org.apache.kafka.common.utils.Utils.murmur2; the test compares it with another client's.
func murmur2(b []byte) uint32 {
	const m, r = 0x5bd1e995, 24
	h := uint32(0x9747b28c) ^ uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		k := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
		k *= m
		k ^= k >> r
		k *= m
		h = h*m ^ k
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(b[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}
