// Package engine owns one worker: membership of the group, each partition's state machine, batches, back-pressure, and the
// hand-over from capture to publish.
//
// It promises the order: nothing is published that was not captured, nothing is captured twice, and a partition that is given up
// has nothing left in an open transaction. It never speaks SQL, nor to the producer.
package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/outbox"
)

// Record is one record of the input topic.
type Record struct {
	Partition   int32
	Offset      int64
	LeaderEpoch int32 // -1 unknown
	TimestampMs int64 // ms since the Unix epoch
	Key, Value  []byte
	Headers     []outbox.Header

	arrived time.Time // when it was read, for how long it takes from there
}

// Size is what the record takes in memory, in bytes, about.
func (r *Record) Size() int {
	n := len(r.Key) + len(r.Value) + 96
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value) + 40
	}
	return n
}

// Stamp is the group metadata (member, generation) taken inside a rebalance callback, opaque to the engine. A publish is sent with
// the stamp of the callback after which its partitions were still owned, never a fresher one.
type Stamp any

// Listener is told of rebalances inside Source.Poll. Revoked and Lost return only when nothing of the partitions is in an
// open Kafka transaction or queued for one.
type Listener interface {
	Assigned(partitions []int32, s Stamp)
	Revoked(partitions []int32, s Stamp)
	Lost(partitions []int32, s Stamp)
}

// Source reads the input topic as a member of the group. All calls come from one goroutine. Partitions arrive paused.
type Source interface {
	// Poll appends up to n records to buf, and none once it has PollBytes, waiting at most wait for the first. A *PartitionError concerns one partition, a
	// *FatalError ends the membership, any other is transient (a broker away) and the client goes on by itself.
	Poll(buf []Record, n int, wait time.Duration) ([]Record, error)
	// Seek sets the next offset and resumes the partition. Nothing fetched before is returned after it.
	Seek(partition int32, offset int64) error
	Pause(partitions []int32) error
	Resume(partitions []int32) error
	// Close gives up what is owned (through the listener) and leaves.
	Close() error
}

// PollBytes is from where on a Poll takes no further record: a client goes on fetching while it is asked, and thousands of large records would
// be in memory at once.
const PollBytes = 4 << 20

// SomePartition stands in a PartitionError for one of those that are read: the client does not say which.
const SomePartition int32 = -1

// PartitionError is an error of the source that concerns one partition.
type PartitionError struct {
	Partition int32
	Err       error
}

func (e *PartitionError) Error() string {
	if e.Partition == SomePartition {
		return fmt.Sprintf("some partition: %v", e.Err)
	}
	return fmt.Sprintf("partition %d: %v", e.Partition, e.Err)
}
func (e *PartitionError) Unwrap() error { return e.Err }

// FatalError ends the membership for good: most likely another process joined under the same instance id.
type FatalError struct{ Err error }

func (e *FatalError) Error() string { return "consumer: " + e.Err.Error() }
func (e *FatalError) Unwrap() error { return e.Err }

// ErrReplaced ends a worker whose id another process runs under.
var ErrReplaced = errors.New("another process runs with the same worker id: give each worker its own worker.id (EXACTLY_WORKER_ID)")

// HeldError says a partition is held by a person's command.
type HeldError struct{ By, Why string }

func (e *HeldError) Error() string { return fmt.Sprintf("held by %s: %s", e.By, e.Why) }

// ErrNoRow says a partition has no stored offset yet.
var ErrNoRow = errors.New("no stored offset")

// Store is Postgres, as far as the engine needs it. Errors are transient unless said otherwise.
type Store interface {
	// Claim raises the epoch under the row's lock. ErrNoRow, *HeldError.
	Claim(ctx context.Context, partition int32) (Claim, error)
	// Start makes the rows of a first start, from is the offset per partition; partitions of a source already started begin at 0.
	Start(ctx context.Context, partition int32, from func(context.Context) (map[int32]int64, error)) error
	// Drained notes that the gap is closed and this worker alone may have transactions open for the partition.
	Drained(ctx context.Context, partition int32, epoch int64) error
	// Begin writes marks, all in one transaction of its own, and says of which partitions: the others' rows did not match.
	Begin(ctx context.Context, marks []Mark) (map[int32]bool, error)
	// Leave takes marks of ours back, all in one transaction of its own.
	Leave(ctx context.Context, marks []Mark) error
	// Capture writes the batches, each whole in one transaction, and returns the ledger seq of each; 0 for those that were refused because
	// the row did not match; it may set each one's Head. On an error the outcome is unknown for every batch, and need not be the same for all.
	Capture(ctx context.Context, batches []*Batch) ([]int64, error)
	// Gap reads up to limit messages owed for [from, to), and up to which offset they reach.
	Gap(ctx context.Context, partition int32, from, to int64, limit int) ([]outbox.Message, int64, error)
	// Incarnation says whether this process is still the one registered under its worker id.
	Incarnation(ctx context.Context) (bool, error)
	// ClaimedOutputs is the input's and the outputs' topic ids, by name, as they were when the source was set up.
	TopicIDs(ctx context.Context) (map[string]string, error)
}

// Group is Kafka apart from records and transactions: offsets, members, logs.
type Group interface {
	// Look reads the group offsets stable, and the logs' ends. Partitions whose offset did not become stable in time are left out.
	Look(ctx context.Context, leaderEpochs map[int32]int32) (map[int32]Look, error)
	// FenceAbsent fences those of the workers that are no member of the group, or are earlier incarnations of ourselves, and returns whom.
	FenceAbsent(ctx context.Context, workers []string) ([]string, error)
	// ScanOutputs reads the output topics to their stable end and returns the offset after the last event of each partition asked for.
	ScanOutputs(ctx context.Context, partitions []int32) (map[int32]int64, error)
	// StartOffsets are the offsets a first start begins at.
	StartOffsets(ctx context.Context) (map[int32]int64, error)
	// TopicIDs are the ids of the input and output topics now.
	TopicIDs(ctx context.Context) (map[string]string, error)
	// Unowned are the partitions of the input that no member of the group has. rests is false while there is a rebalance, which is about to
	// give out everything.
	Unowned(ctx context.Context) (partitions []int32, rests bool, err error)
	// Leave removes this worker from the group for good.
	Leave(ctx context.Context) error
}

// Item is one partition's part of a publish: messages, and the group offset they lead to.
type Item struct {
	Partition   int32
	Life        uint64
	To          int64
	LeaderEpoch int32
	Epoch       int64
	LedgerSeq   int64
	Head        *ledger.Head // the newest entry of what it publishes; nil: not known
	Messages    []outbox.Message
	Bytes       int
	Drain       bool
	Records     int64  // it brings to their end
	Trace       string // id of the trace of its capture; "" none

	arrived time.Time // when the first of the records was read; zero: by another life
}

// Outcome is how a publish ended.
type Outcome int

// The outcomes.
const (
	Committed  Outcome = iota // all of it is in Kafka
	Aborted                   // none of it is; the same bytes may be published again
	StaleStamp                // none of it is; the broker did not accept the stamp: wait for the rebalance
	Lost                      // unknown, fenced or fatal: this producer is of no use any more
)

func (o Outcome) String() string {
	return [...]string{"committed", "aborted", "stale stamp", "lost"}[o]
}

// Publisher is the Kafka transaction. One call at a time.
type Publisher interface {
	// Publish runs one transaction. cancelled is asked before the offsets are sent and before the commit: if true, abort.
	Publish(items []Item, s Stamp, cancelled func() bool) (Outcome, error)
	// Renew closes the producer, if any, and makes a new one under the same transactional id, which fences the old one's requests.
	Renew(ctx context.Context) error
	Close()
}
