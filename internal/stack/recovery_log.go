package stack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// kfake keeps a partition as segments of record batches exactly as they went over the wire (KIP-98), N.dat, each beside an index of fixed-size entries, N.idx.
const (
	batchHeaderBytes = 61
	indexEntryBytes  = 15

	attrTransactional = 1 << 4
	attrControl       = 1 << 5
)

type batchHeader struct {
	firstOffset   int64
	bytes         int
	leaderEpoch   int32
	attributes    int16
	lastDelta     int32
	maxTimestamp  int64
	producerID    int64
	producerEpoch int16
	firstSequence int32
	records       int32
}

// nextBatch reads the batch at the start of raw; false if it is torn.
func nextBatch(raw []byte) (batchHeader, bool) {
	if len(raw) < batchHeaderBytes {
		return batchHeader{}, false
	}
	be := binary.BigEndian
	n := int(be.Uint32(raw[8:])) + 12
	if n < batchHeaderBytes || n > len(raw) || crc32.Checksum(raw[21:n], castagnoli) != be.Uint32(raw[17:]) {
		return batchHeader{}, false
	}
	return batchHeader{
		firstOffset: int64(be.Uint64(raw)), bytes: n, leaderEpoch: int32(be.Uint32(raw[12:])), attributes: int16(be.Uint16(raw[21:])),
		lastDelta: int32(be.Uint32(raw[23:])), maxTimestamp: int64(be.Uint64(raw[35:])), producerID: int64(be.Uint64(raw[43:])),
		producerEpoch: int16(be.Uint16(raw[51:])), firstSequence: int32(be.Uint32(raw[53:])), records: int32(be.Uint32(raw[57:])),
	}, true
}

// indexEntry is kfake's encodeIndexEntry: version, checksum, leader epoch, running maximum of timestamps, flags (1: part of a transaction).
func indexEntry(b batchHeader, maxTimestamp int64) []byte {
	buf := make([]byte, indexEntryBytes)
	buf[0] = 1
	binary.LittleEndian.PutUint32(buf[2:], uint32(b.leaderEpoch))
	binary.LittleEndian.PutUint64(buf[6:], uint64(maxTimestamp))
	if b.attributes&attrTransactional != 0 && b.attributes&attrControl == 0 {
		buf[14] = 1
	}
	buf[1] = byte(crc32.Checksum(buf[2:], castagnoli))
	return buf
}

// partitionLog is what a scan of one partition's segments found.
type partitionLog struct {
	last         string // path of the last segment, without its ending
	nextOffset   int64
	leaderEpoch  int32
	maxTimestamp int64
	open         map[int64]int16 // producer ids with records after their last marker, and their epoch
	windows      map[int64]*seqWindow
	tornBytes    int64
}

// scanPartition reads a partition's segments, cuts a torn end off, and writes again an index that does not say what the segment
// does: kfake takes a batch whose index entry is missing for one outside any transaction.
func scanPartition(dir string) (*partitionLog, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var bases []int64
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), ".dat"); ok {
			base, err := strconv.ParseInt(name, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("segment %s: %w", f.Name(), err)
			}
			bases = append(bases, base)
		}
	}
	slices.Sort(bases)
	p := &partitionLog{open: map[int64]int16{}, windows: map[int64]*seqWindow{}}
	for _, base := range bases {
		if err := p.scanSegment(filepath.Join(dir, strconv.FormatInt(base, 10))); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *partitionLog) scanSegment(path string) error {
	raw, err := os.ReadFile(path + ".dat")
	if err != nil {
		return err
	}
	var index []byte
	at := 0
	for {
		b, ok := nextBatch(raw[at:])
		if !ok {
			break
		}
		at += b.bytes
		p.note(b)
		index = append(index, indexEntry(b, p.maxTimestamp)...)
	}
	p.last = path
	if torn := int64(len(raw) - at); torn > 0 {
		p.tornBytes += torn
		if err := truncate(path+".dat", int64(at)); err != nil {
			return err
		}
	}
	have, err := os.ReadFile(path + ".idx")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !sameIndex(have, index) {
		return writeFile(path+".idx", index, 0o644)
	}
	return nil
}

// note follows a batch as the broker did when it took it.
func (p *partitionLog) note(b batchHeader) {
	p.nextOffset = b.firstOffset + int64(b.lastDelta) + 1
	p.leaderEpoch = b.leaderEpoch
	p.maxTimestamp = max(p.maxTimestamp, b.maxTimestamp)
	switch {
	case b.producerID < 0:
	case b.attributes&attrControl != 0:
		delete(p.open, b.producerID)
	default:
		w := p.windows[b.producerID]
		if w == nil {
			w = &seqWindow{}
			p.windows[b.producerID] = w
		}
		w.add(b)
		if b.attributes&attrTransactional != 0 {
			p.open[b.producerID] = b.producerEpoch
		}
	}
}

// sameIndex compares what kfake reads when it loads: the number of entries and their flags.
func sameIndex(have, want []byte) bool {
	if len(have) != len(want) {
		return false
	}
	for at := 0; at < len(want); at += indexEntryBytes {
		h := have[at : at+indexEntryBytes]
		if h[14] != want[at+14] || h[1] != byte(crc32.Checksum(h[2:], castagnoli)) || !bytes.Equal(h[2:6], want[at+2:at+6]) {
			return false
		}
	}
	return true
}

// appendMarker ends a producer's open transaction here, as its coordinator would have (kfake: txnMarkerBatch).
func (p *partitionLog) appendMarker(pid int64, epoch int16, commit bool, now time.Time) error {
	key := kmsg.ControlRecordKey{Type: kmsg.ControlRecordKeyTypeAbort}
	if commit {
		key.Type = kmsg.ControlRecordKeyTypeCommit
	}
	marker := kmsg.EndTxnMarker{}
	rec := kmsg.Record{Key: key.AppendTo(nil), Value: marker.AppendTo(nil)}
	rec.Length = int32(len(rec.AppendTo(nil)) - 1) // the length itself is a varint of one byte
	ms := now.UnixMilli()
	b := kmsg.RecordBatch{
		FirstOffset: p.nextOffset, PartitionLeaderEpoch: p.leaderEpoch, Magic: 2, Attributes: attrTransactional | attrControl,
		FirstTimestamp: ms, MaxTimestamp: ms, ProducerID: pid, ProducerEpoch: epoch, FirstSequence: -1, NumRecords: 1, Records: rec.AppendTo(nil),
	}
	b.Length = int32(len(b.AppendTo(nil)) - 12)
	b.CRC = int32(crc32.Checksum(b.AppendTo(nil)[21:], castagnoli))
	raw := b.AppendTo(nil)
	h, ok := nextBatch(raw)
	if !ok {
		return errors.New("the marker just built does not read back")
	}
	if err := appendFile(p.last+".dat", raw); err != nil {
		return err
	}
	p.note(h)
	return appendFile(p.last+".idx", indexEntry(h, p.maxTimestamp))
}
