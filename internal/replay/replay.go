// Package replay owns dead letters after they were written: looking at them, and handing them in again by pointers through a topic of their own.
//
// It promises that each attempt of a letter is captured once, however often its pointer is written and whoever is killed when: the request is a row
// before there is a pointer, and the capture's own row has the letter and the attempt for its key. It never changes a dead letter's content.
package replay

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/exactly-pipeline/exactly/outbox"
)

// Headers of what a replay makes, behind exactly-source, which is the pointer's own coordinate.
const (
	OriginHeader  = "exactly-origin"  // the first record's coordinate: topic/partition/offset
	AttemptHeader = "exactly-attempt" // which attempt it is: 1 is the first replay
)

// Pointer is a record of the replay topic: which dead letter, which attempt.
type Pointer struct {
	V         int   `json:"v"` // 1
	SourceID  int16 `json:"source_id"`
	Partition int32 `json:"partition"` // of the first record
	Offset    int64 `json:"offset"`
	Attempt   int   `json:"attempt"`
}

func (p Pointer) encode() []byte {
	p.V = 1
	b, err := json.Marshal(p)
	if err != nil {
		panic("replay: a pointer that JSON can't hold: " + err.Error())
	}
	return b
}

// ParsePointer is the pointer that a record of the topic holds. false: it holds none.
func ParsePointer(b []byte) (p Pointer, ok bool) {
	err := json.Unmarshal(b, &p)
	return p, err == nil && p.V == 1 && p.Attempt > 0 && p.Offset >= 0 && p.Partition >= 0
}

// Letter is a dead letter as it stands.
type Letter struct {
	SourceID  int16 // of its own row: the input's, or the replay's if it failed again
	Partition int32
	Offset    int64

	Topic       string // of the first record
	OfSourceID  int16
	OfPartition int32
	OfOffset    int64
	Attempt     int // 0: it was never replayed before it came here

	Class, Stage, Message string
	Key, Value            []byte
	Headers               []outbox.Header
	CreatedAt             time.Time
	State                 string // open, requested, replayed
}

// Origin is the first record's coordinate.
func (l *Letter) Origin() string { return fmt.Sprintf("%s/%d/%d", l.Topic, l.OfPartition, l.OfOffset) }
