package stack

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// decision is a commit the broker is about to carry out. kfake writes a marker to one partition after the other, then the
// group's offsets; killed in between it would leave half a transaction. Apache Kafka's coordinator writes PREPARE_COMMIT to its log first;
// this is our PREPARE_COMMIT. One is enough: kfake handles requests one at a time, so at most one commit is under way.
type decision struct {
	ProducerID    int64          `json:"producer_id"`
	ProducerEpoch int16          `json:"producer_epoch"`
	PIDsLogBytes  int64          `json:"pids_log_bytes"` // kfake appends to pids.log once a commit is complete: unchanged means it may not be
	Offsets       []stagedOffset `json:"offsets,omitempty"`
}

type stagedOffset struct {
	Group       string  `json:"group"`
	Topic       string  `json:"topic"`
	Partition   int32   `json:"partition"`
	Offset      int64   `json:"offset"`
	LeaderEpoch int32   `json:"leader_epoch"`
	Metadata    *string `json:"metadata,omitempty"`
}

type stagedKey struct {
	group, topic string
	partition    int32
}

type stagedTxn struct {
	transactionalID string
	epoch           int16
	offsets         map[stagedKey]stagedOffset
}

// decisions writes each decision over the one before. Its methods run inside kfake's request loop, one at a time.
type decisions struct {
	file    *os.File
	pidsLog string
	sync    bool
	staged  map[int64]*stagedTxn // by producer id: the offsets a transaction has been given so far
	refuse  atomic.Bool          // the broker is about to close
}

func newDecisions(path, pidsLog string, sync bool) (*decisions, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the broker's decision file: %w", err)
	}
	return &decisions{file: f, pidsLog: pidsLog, sync: sync, staged: map[int64]*stagedTxn{}}, nil
}

func (d *decisions) close() error { return d.file.Close() }

// watch sees the requests that make up a decision before kfake handles them. Produce and fetch are not among them.
func (d *decisions) watch(c *kfake.Cluster) {
	c.ControlKey(int16(kmsg.TxnOffsetCommit), func(r kmsg.Request) (kmsg.Response, error, bool) {
		d.stage(r.(*kmsg.TxnOffsetCommitRequest), c.TopicIDInfo)
		return nil, nil, false
	})
	c.ControlKey(int16(kmsg.InitProducerID), func(r kmsg.Request) (kmsg.Response, error, bool) {
		if id := r.(*kmsg.InitProducerIDRequest).TransactionalID; id != nil {
			for pid, s := range d.staged { // what was open under this id is about to be aborted
				if s.transactionalID == *id {
					delete(d.staged, pid)
				}
			}
		}
		return nil, nil, false
	})
	c.ControlKey(int16(kmsg.EndTxn), func(r kmsg.Request) (kmsg.Response, error, bool) {
		if err := d.decide(r.(*kmsg.EndTxnRequest)); err != nil {
			c.KeepControl()
			return nil, err, true // the connection is closed, the client asks again: better than half a commit
		}
		return nil, nil, false
	})
}

// stage notes offsets as the client sends them. kfake may refuse them (an old generation, say), which is not seen here; a client
// whose offsets were refused does not go on to commit.
func (d *decisions) stage(r *kmsg.TxnOffsetCommitRequest, lookup func(id [16]byte) *kfake.TopicInfo) {
	s := d.staged[r.ProducerID]
	if s == nil || s.epoch != r.ProducerEpoch {
		s = &stagedTxn{transactionalID: r.TransactionalID, epoch: r.ProducerEpoch, offsets: map[stagedKey]stagedOffset{}}
		d.staged[r.ProducerID] = s
	}
	for _, t := range r.Topics {
		topic := t.Topic
		if r.GetVersion() >= 6 { // from there on a topic goes by its id
			info := lookup(t.TopicID)
			if info == nil {
				continue // kfake refuses it
			}
			topic = info.Topic
		}
		for _, p := range t.Partitions {
			s.offsets[stagedKey{r.Group, topic, p.Partition}] = stagedOffset{
				Group: r.Group, Topic: topic, Partition: p.Partition, Offset: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: p.Metadata,
			}
		}
	}
}

func (d *decisions) decide(r *kmsg.EndTxnRequest) error {
	if d.refuse.Load() {
		return errors.New("the broker is stopping")
	}
	s := d.staged[r.ProducerID]
	delete(d.staged, r.ProducerID)
	if !r.Commit {
		return nil // half an abort is finished by recovery anyway: whatever has no marker is aborted
	}
	dec := decision{ProducerID: r.ProducerID, ProducerEpoch: r.ProducerEpoch}
	if s != nil && s.epoch == r.ProducerEpoch {
		for _, o := range s.offsets {
			dec.Offsets = append(dec.Offsets, o)
		}
	}
	info, err := os.Stat(d.pidsLog)
	if err != nil {
		return fmt.Errorf("note the decision to commit: %w", err)
	}
	dec.PIDsLogBytes = info.Size()
	data, err := json.Marshal(dec)
	if err != nil {
		return fmt.Errorf("note the decision to commit: %w", err)
	}
	buf := make([]byte, 8, 8+len(data))
	binary.LittleEndian.PutUint32(buf, uint32(len(data)))
	binary.LittleEndian.PutUint32(buf[4:], crc32.Checksum(data, castagnoli))
	if _, err := d.file.WriteAt(append(buf, data...), 0); err != nil {
		return fmt.Errorf("note the decision to commit: %w", err)
	}
	if d.sync {
		if err := d.file.Sync(); err != nil {
			return fmt.Errorf("note the decision to commit: %w", err)
		}
	}
	return nil
}

// readDecision returns the last decision noted, or nil: a torn one was never acted on.
func readDecision(path string) (*decision, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the broker's decision file: %w", err)
	}
	if len(raw) < 8 {
		return nil, nil
	}
	n := int(binary.LittleEndian.Uint32(raw))
	if len(raw) < 8+n || crc32.Checksum(raw[8:8+n], castagnoli) != binary.LittleEndian.Uint32(raw[4:]) {
		return nil, nil
	}
	var dec decision
	if err := json.Unmarshal(raw[8:8+n], &dec); err != nil {
		return nil, fmt.Errorf("read the broker's decision file %s: %w", path, err)
	}
	return &dec, nil
}
