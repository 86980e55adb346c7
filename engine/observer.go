package engine

import (
	"cmp"
	"time"

	"go.uber.org/zap"
)

// Observer is told what happens, for metrics. Calls come from one goroutine and must not block. None is made for a single record.
type Observer interface {
	State(partition int32, s State)
	Event(partition int32, k EventKind)           // of the life the partition is in; what comes back from an older one is left out
	Offsets(partition int32, stored, group int64) // whenever one of them has moved: the gap is between them
	Captured(records, rows, deadLetters int64, took time.Duration)
	Dead(class string, deadLetters int64)  // captured, by what was wrong
	Failed(partition int32, reason string) // transient trouble: it waits until it is claimed again
	Published(records int64, took time.Duration, o Outcome)
	Queued(bytes int)        // each time the worker's loop goes round, at least once in CheckEvery
	Careful(partition int32) // it is taken with care

	Rebalanced(k EventKind, partitions int)   // assigned, revoked or lost, once a rebalance; it may be about none
	Claimed(partition int32, c *Claim)        // it is ours under this epoch
	Transaction(t *Transaction)               // a capture or a publish has ended, however
	Landed(partition int32, l *Landing)       // records are in both sinks
	Pulse(partition int32, p *PartitionPulse) // of each partition, once in CheckEvery
	Polled(ago time.Duration)                 // since the source was polled last, once in CheckEvery; 0 while there is no membership
}

// TransactionKind is what a transaction was for.
type TransactionKind string

// The kinds.
const (
	Capture TransactionKind = "capture" // in Postgres
	Publish TransactionKind = "publish" // in Kafka
	Drain   TransactionKind = "drain"   // in Kafka, of what another life had captured
)

// Outcomes of captures. Those of publishes and drains are Outcome's.
const (
	CaptureCommitted = "committed" // at least one partition's part
	CaptureRefused   = "refused"   // no partition's row matched: fenced
	CaptureUnknown   = "unknown"   // an error: it may have been committed, or not
)

// Transaction is one that has ended.
type Transaction struct {
	Kind     TransactionKind
	Outcome  string
	Records  int64 // of a capture: in what was committed
	Messages int64 // to Kafka; of a capture: for Kafka
	Bytes    int64
	Refused  int // partitions of a capture whose row did not match
	Took     time.Duration
	Trace    string // its trace id, if it is traced and sampled
}

// Landing is what one publish brought to its end for one partition.
type Landing struct {
	Records int64
	Drained bool          // another life had captured it
	Took    time.Duration // since the first of the records was read; 0 if drained
	Trace   string        // of the capture
}

// PartitionPulse is where a partition stands.
type PartitionPulse struct {
	Buffered int  // records read and not yet handed to the handler
	Full     bool // not fetched for now: enough of it is buffered
}

// Traced is a Publisher that can say under which trace id its last transaction was; "" if none. It is asked where Publish was called.
type Traced interface{ Trace() string }

// tellCapture tells of a capture that has ended.
func (w *Worker) tellCapture(e *evCaptured) {
	t := Transaction{Kind: Capture, Outcome: CaptureCommitted, Took: time.Duration(e.took)}
	for i, b := range e.batches {
		t.Trace = cmp.Or(t.Trace, b.Trace)
		if e.err == nil && e.seqs[i] == 0 {
			t.Refused++
			continue
		}
		t.Records, t.Messages, t.Bytes = t.Records+b.Records, t.Messages+int64(len(b.Messages)), t.Bytes+int64(b.Bytes)
	}
	switch {
	case e.err != nil:
		t.Outcome = CaptureUnknown
	case t.Refused == len(e.batches):
		t.Outcome = CaptureRefused
	}
	w.obs.Transaction(&t)
}

// tellPublish tells of a publish that has ended, and of what it brought to its end.
func (w *Worker) tellPublish(items []Item, e *evPublished) {
	t := Transaction{Kind: Publish, Outcome: e.o.String(), Took: time.Duration(e.took), Trace: e.trace}
	now := time.Now()
	for i := range items {
		it := &items[i]
		t.Messages, t.Bytes = t.Messages+int64(len(it.Messages)), t.Bytes+int64(it.Bytes)
		if it.Drain {
			t.Kind = Drain
		}
		if e.o != Committed {
			continue
		}
		l := Landing{Records: it.Records, Drained: it.Drain, Trace: it.Trace}
		if !it.arrived.IsZero() {
			l.Took = now.Sub(it.arrived)
		}
		w.obs.Landed(it.Partition, &l)
	}
	w.obs.Transaction(&t)
}

// traceID is a log line's way to the trace.
func traceID(id string) zap.Field {
	if id == "" {
		return zap.Skip()
	}
	return zap.String("trace_id", id)
}

// pulse tells where each partition stands.
func (w *Worker) pulse() {
	ago := time.Duration(0) // there is none: it is not late
	if w.joined {
		ago = time.Since(time.Unix(0, w.poll.polled.Load()))
	}
	w.obs.Polled(ago)
	for _, id := range w.ids() {
		s := w.parts[id]
		w.obs.Pulse(id, &PartitionPulse{Buffered: len(s.buf), Full: s.full})
	}
}

type nobody struct{}

func (nobody) State(int32, State)                          {}
func (nobody) Event(int32, EventKind)                      {}
func (nobody) Offsets(int32, int64, int64)                 {}
func (nobody) Captured(int64, int64, int64, time.Duration) {}
func (nobody) Dead(string, int64)                          {}
func (nobody) Failed(int32, string)                        {}
func (nobody) Published(int64, time.Duration, Outcome)     {}
func (nobody) Queued(int)                                  {}
func (nobody) Careful(int32)                               {}
func (nobody) Rebalanced(EventKind, int)                   {}
func (nobody) Claimed(int32, *Claim)                       {}
func (nobody) Transaction(*Transaction)                    {}
func (nobody) Landed(int32, *Landing)                      {}
func (nobody) Pulse(int32, *PartitionPulse)                {}
func (nobody) Polled(time.Duration)                        {}
