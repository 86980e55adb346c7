package stack

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// recovered counts what a crash had left.
type recovered struct {
	aborted, committed int   // markers written, one a partition of an unfinished transaction
	fenced             int   // transactional producers whose epoch was raised
	tornBytes          int64 // half-written entries and batches cut off
}

// recoverKafka makes a crashed broker's files say what Apache Kafka's would. kfake on its own takes unfinished transactions for aborted but
// writes no marker, so that readers drop the producer's next transaction with them (up to an abort marker everything of that producer
// id counts as aborted) and a second crash makes the first one's records committed. Also it forgets idempotent sequence
// numbers, lets a client commit a transaction of which it lost the first half, and appends to torn files. So, before it starts:
// torn tails are cut; every unfinished transaction gets its marker (commit for the decided one, abort for the others); the
// decided one's offsets are committed; all transactional producers are fenced; the sequence windows are rebuilt.
//
// Safe to repeat, also after a crash of its own.
func recoverKafka(dir, decided string) (recovered, error) {
	var r recovered
	pids, torn, err := readPIDs(filepath.Join(dir, "pids.log"))
	if err != nil {
		return r, err
	}
	r.tornBytes += torn
	dec, err := readDecision(decided)
	if err != nil {
		return r, err
	}
	if dec != nil && (dec.PIDsLogBytes != pids.bytes || pids.epoch(dec.ProducerID) != dec.ProducerEpoch) {
		dec = nil // carried out completely, or refused because the producer was fenced
	}
	parts, err := os.ReadDir(filepath.Join(dir, "partitions"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	var windows []seqWindow
	for _, e := range parts {
		topic, partition, ok := partitionOf(e.Name())
		if !e.IsDir() || !ok {
			continue
		}
		p, err := scanPartition(filepath.Join(dir, "partitions", e.Name()))
		if err != nil {
			return r, fmt.Errorf("%s/%d: %w", topic, partition, err)
		}
		r.tornBytes += p.tornBytes
		for pid, epoch := range p.open {
			commit := dec != nil && dec.ProducerID == pid && dec.ProducerEpoch == epoch
			if err := p.appendMarker(pid, epoch, commit, time.Now()); err != nil {
				return r, fmt.Errorf("end the open transaction of producer %d on %s/%d: %w", pid, topic, partition, err)
			}
			if commit {
				r.committed++
			} else {
				r.aborted++
			}
		}
		for pid, w := range p.windows {
			w.ProducerID, w.Topic, w.Partition = pid, topic, partition
			windows = append(windows, *w)
			pids.raise(pid, w.Epoch)
		}
	}
	if err := writeSeqWindows(filepath.Join(dir, "seq_windows.json"), windows); err != nil {
		return r, err
	}
	groups := filepath.Join(dir, "groups.log")
	if torn, err = trimLog(groups); err != nil {
		return r, err
	}
	r.tornBytes += torn
	if dec != nil {
		if err := commitOffsets(groups, dec.Offsets, time.Now()); err != nil {
			return r, err
		}
	}
	// Last: it changes the length of pids.log, by which a decision is known to be unfinished.
	if r.fenced, err = pids.fence(); err != nil {
		return r, err
	}
	return r, nil
}

// partitionOf undoes kfake's name of a partition's folder.
func partitionOf(name string) (topic string, partition int32, ok bool) {
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return "", 0, false
	}
	topic, err := url.PathUnescape(name[:i])
	if err != nil {
		return "", 0, false
	}
	n, err := strconv.ParseInt(name[i+1:], 10, 32)
	return topic, int32(n), err == nil
}

// producers is what pids.log says of each producer id.
type producers struct {
	path  string
	bytes int64
	last  map[int64]pidEntry
}

// pidEntry is kfake's pidLogEntry.
type pidEntry struct {
	Type    string `json:"type"` // init, endtx, timeout
	PID     int64  `json:"pid"`
	Epoch   int16  `json:"epoch"`
	TxID    string `json:"txid,omitempty"`
	Timeout int32  `json:"timeout,omitempty"`
	Commit  *bool  `json:"commit,omitempty"`
}

func readPIDs(path string) (*producers, int64, error) {
	torn, err := trimLog(path)
	if err != nil {
		return nil, 0, err
	}
	p := &producers{path: path, last: map[int64]pidEntry{}}
	entries, n, err := readLog[pidEntry](path)
	if err != nil {
		return nil, 0, err
	}
	p.bytes = n
	for _, e := range entries {
		if e.Type != "init" { // the others carry the epoch only
			was := p.last[e.PID]
			was.Epoch = e.Epoch
			e = was
		}
		p.last[e.PID] = e
	}
	return p, torn, nil
}

func (p *producers) epoch(pid int64) int16 {
	if e, ok := p.last[pid]; ok {
		return e.Epoch
	}
	return -1
}

func (p *producers) raise(pid int64, epoch int16) {
	if e, ok := p.last[pid]; ok && epoch > e.Epoch {
		e.Epoch = epoch
		p.last[pid] = e
	}
}

// fence raises the epoch of every transactional producer. A client that lived through the crash may have a transaction open of
// which the broker has lost the offsets and aborted the records; without this its commit would be answered with success. By two:
// an EndTxn one epoch behind is taken for the repetition of one that succeeded (KIP-890).
func (p *producers) fence() (int, error) {
	var entries []any
	for _, e := range p.last {
		if e.TxID == "" {
			continue
		}
		aborted := false
		e.Type, e.Commit = "init", &aborted
		e.Epoch = int16(min(int(e.Epoch)+2, math.MaxInt16))
		entries = append(entries, e)
	}
	return len(entries), appendLog(p.path, entries)
}

// groupEntry is the part of kfake's groupLogEntry that a committed offset needs.
type groupEntry struct {
	Type       string  `json:"type"`
	Group      string  `json:"g"`
	Topic      string  `json:"t,omitempty"`
	Part       int32   `json:"p,omitempty"`
	Offset     int64   `json:"o,omitempty"`
	Epoch      int32   `json:"e,omitempty"`
	Metadata   *string `json:"m,omitempty"`
	LastCommit *int64  `json:"lc,omitempty"` // unix milliseconds
}

func commitOffsets(path string, offsets []stagedOffset, now time.Time) error {
	ms := now.UnixMilli()
	var entries []any
	for _, o := range offsets {
		entries = append(entries, groupEntry{
			Type: "commit", Group: o.Group, Topic: o.Topic, Part: o.Partition, Offset: o.Offset, Epoch: o.LeaderEpoch, Metadata: o.Metadata, LastCommit: &ms,
		})
	}
	if err := appendLog(path, entries); err != nil {
		return fmt.Errorf("commit the decided transaction's offsets: %w", err)
	}
	return nil
}
