package stack

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// kfake's append-only logs: entries of length (of what follows the checksum), CRC-32C, version, JSON; little endian.
const (
	logHeaderBytes = 10
	logVersion     = 1
)

// readLog returns a log's whole entries and how many bytes they take.
func readLog[T any](path string) ([]T, int64, error) {
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, 0, err
	}
	var out []T
	at := 0
	for at+logHeaderBytes <= len(raw) {
		n := int(binary.LittleEndian.Uint32(raw[at:]))
		if n < 2 || n > len(raw)-at-8 || crc32.Checksum(raw[at+8:at+8+n], castagnoli) != binary.LittleEndian.Uint32(raw[at+4:]) {
			break
		}
		if v := binary.LittleEndian.Uint16(raw[at+8:]); v != logVersion {
			return nil, 0, fmt.Errorf("%s: entry of version %d, only %d is known", path, v, logVersion)
		}
		var e T
		if err := json.Unmarshal(raw[at+logHeaderBytes:at+8+n], &e); err != nil {
			return nil, 0, fmt.Errorf("%s at byte %d: %w", path, at, err)
		}
		out = append(out, e)
		at += 8 + n
	}
	return out, int64(at), nil
}

// trimLog cuts off a half-written last entry: kfake skips it when it loads, then appends behind it, where nobody finds it again.
func trimLog(path string) (tornBytes int64, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	_, whole, err := readLog[json.RawMessage](path)
	if err != nil || whole == info.Size() {
		return 0, err
	}
	return info.Size() - whole, truncate(path, whole)
}

func appendLog(path string, entries []any) error {
	if len(entries) == 0 {
		return nil
	}
	var buf []byte
	for _, e := range entries {
		data, err := json.Marshal(e)
		if err != nil {
			return err
		}
		body := append(binary.LittleEndian.AppendUint16(nil, logVersion), data...)
		buf = binary.LittleEndian.AppendUint32(buf, uint32(len(body)))
		buf = binary.LittleEndian.AppendUint32(buf, crc32.Checksum(body, castagnoli))
		buf = append(buf, body...)
	}
	return appendFile(path, buf)
}

func appendFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func truncate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}

// seqWindow is kfake's persistSeqWindowEntry: a producer's last batches on one partition, by which a repeated one is recognised.
type seqWindow struct {
	ProducerID int64        `json:"pid"`
	Topic      string       `json:"topic"`
	Partition  int32        `json:"partition"`
	Entries    [5]seqBounds `json:"entries"`
	Count      uint8        `json:"count"`
	At         uint8        `json:"at"`
	Epoch      int16        `json:"epoch"`
	Seen       bool         `json:"seen"`
	NextSeq    int32        `json:"next_seq"`
}

type seqBounds struct {
	FirstSeq int32 `json:"first_seq"`
	NextSeq  int32 `json:"next_seq"`
	Offset   int64 `json:"offset"`
}

// add notes a batch as kfake did when it accepted it (pidwindow.pushAndValidate).
func (w *seqWindow) add(b batchHeader) {
	next := int32((int64(b.firstSequence) + int64(b.records)) % math.MaxInt32)
	bounds := seqBounds{b.firstSequence, next, b.firstOffset}
	if !w.Seen || b.producerEpoch != w.Epoch {
		*w = seqWindow{Entries: [5]seqBounds{bounds}, Count: 1, At: 1, Epoch: b.producerEpoch, Seen: true, NextSeq: next}
		return
	}
	w.Entries[w.At], w.NextSeq = bounds, next
	w.At = (w.At + 1) % 5
	w.Count = min(w.Count+1, 5)
}

func writeSeqWindows(path string, windows []seqWindow) error {
	data, err := json.Marshal(map[string]any{"version": 1, "windows": windows})
	if err != nil {
		return err
	}
	return writeFile(path, data, 0o644)
}
