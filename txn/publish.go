package txn

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/guard"
	"github.com/exactly-pipeline/exactly/internal/wait"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/outbox"
)

// Class is what an error of the Kafka client leads to.
type Class int

// The classes.
const (
	Unknown   Class = iota // nothing set: treated as fatal
	Retriable              // the same call again, until its deadline; never another call meanwhile
	Abortable              // abort, then the same bytes again
	Stale                  // illegal generation, unknown member: abort, wait for the rebalance
	Fatal                  // fenced or fatal: close the producer
)

// Error is an error of the Kafka client with its class.
type Error struct {
	Class Class
	Err   error
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Offset is an input offset to be committed in a Kafka transaction.
type Offset struct {
	Partition   int32
	Offset      int64
	LeaderEpoch int32 // -1 unknown
	Metadata    string
}

// Producer is one incarnation of a transactional producer: the interface another client would implement. Every call takes a
// deadline by ctx, and should come back by then: what it does not keep, the Publisher does (held.go). Errors are *Error.
type Producer interface {
	Init(ctx context.Context) error
	Begin() error
	Produce(ctx context.Context, m *outbox.Message) error // may only collect it
	Send(ctx context.Context) error                       // what was collected goes on its way
	SendOffsets(ctx context.Context, topic string, offsets []Offset, s engine.Stamp) error
	Commit(ctx context.Context) error
	Abort(ctx context.Context) error
	// Repeated says, once the transaction is over, whether the client may have sent a request of it twice that ends it or moves its offsets:
	// a copy may then still be on its way, with an epoch that the broker takes for the next transaction's.
	Repeated() bool
	Close()
}

// Publisher runs the Kafka transactions of one worker. It implements engine.Publisher.
type Publisher struct {
	Topic   string                   // the input topic, whose offsets are committed
	New     func() (Producer, error) // a producer under this worker's transactional id
	Timeout time.Duration            // of one call; not longer than the transaction timeout
	Log     *zap.Logger
	p       *held
	used    bool // p has had a transaction

	HeadsTopic string         // where the ledger's heads go along; empty: nowhere
	Signer     *ledger.Signer // nil: they are not signed
	published  map[int32]time.Time
}

// Metadata is what a committed group offset carries, so that a reset by hand can be told from ours.
func Metadata(epoch, ledgerSeq int64) string {
	return "exactly/1 " + strconv.FormatInt(epoch, 10) + " " + strconv.FormatInt(ledgerSeq, 10)
}

// ParseMetadata reads what Metadata wrote.
func ParseMetadata(metadata string) (epoch, ledgerSeq int64, ok bool) {
	rest, ours := strings.CutPrefix(metadata, "exactly/1 ")
	e, s, both := strings.Cut(rest, " ")
	epoch, err := strconv.ParseInt(e, 10, 64)
	ledgerSeq, err2 := strconv.ParseInt(s, 10, 64)
	return epoch, ledgerSeq, ours && both && err == nil && err2 == nil
}

// IsOurs says whether a group offset's metadata is ours.
func IsOurs(metadata string) bool { return strings.HasPrefix(metadata, "exactly/1 ") }

// Renew implements engine.Publisher. InitTransactions under the same transactional id aborts what the producer before left open and
// fences every stray request of it (guard 8).
func (p *Publisher) Renew(ctx context.Context) error {
	p.Close()
	pr, err := p.New()
	if err != nil {
		return fmt.Errorf("make a producer: %w", err)
	}
	p.p, p.used = hold(pr, p.Log), false
	if err := p.call(ctx, p.p.Init); err != nil {
		p.Close()
		return fmt.Errorf("init transactions: %w", err)
	}
	return nil
}

// Close implements engine.Publisher.
func (p *Publisher) Close() {
	if p.p != nil {
		p.p.Close(p.Timeout)
		p.p = nil
	}
}

var errRepeated = errors.New("the client has sent a request of the transaction before twice, a copy of which may still be on its way")

// points are the failpoints of a publish, or of a drain's.
type points struct{ produced, offsetsSent, commitSent, committed string }

var (
	publishPoints = points{failpoint.PublishProduced, failpoint.PublishOffsetsSent, failpoint.PublishCommitSent, failpoint.PublishCommitted}
	drainPoints   = points{failpoint.DrainProduced, failpoint.DrainOffsetsSent, failpoint.DrainCommitSent, failpoint.DrainCommitted}
)

// Publish implements engine.Publisher.
func (p *Publisher) Publish(items []engine.Item, s engine.Stamp, cancelled func() bool) (engine.Outcome, error) {
	if p.p == nil {
		return engine.Lost, errors.New("no producer")
	}
	// A copy that is late would end the transaction that begins here, or set its offsets back (guard 8).
	if p.used && !guard.Off(guard.RenewRepeated) && p.p.Repeated() {
		return engine.Lost, errRepeated
	}
	at := publishPoints
	for i := range items {
		if items[i].Drain {
			at = drainPoints
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.Timeout)
	defer cancel()
	p.used = true
	if err := p.p.Begin(ctx); err != nil {
		return p.giveUp(fmt.Errorf("begin transaction: %w", err))
	}
	for i := range items {
		for j := range items[i].Messages {
			if err := p.p.Produce(ctx, &items[i].Messages[j]); err != nil {
				return p.giveUp(fmt.Errorf("produce to %s: %w", items[i].Messages[j].Topic, err))
			}
		}
	}
	due := p.due(items)
	for i := range due {
		if err := p.p.Produce(ctx, p.head(due[i])); err != nil {
			return p.giveUp(fmt.Errorf("produce to %s: %w", p.HeadsTopic, err))
		}
	}
	if err := p.p.Send(ctx); err != nil {
		return p.giveUp(fmt.Errorf("produce: %w", err))
	}
	failpoint.Hit(at.produced)
	if cancelled() {
		return p.abort(errors.New("the partition was lost"))
	}
	offsets := make([]Offset, len(items))
	for i := range items {
		it := &items[i]
		offsets[i] = Offset{it.Partition, it.To, it.LeaderEpoch, Metadata(it.Epoch, it.LedgerSeq)}
	}
	err := p.call(ctx, func(ctx context.Context) error { return p.p.SendOffsets(ctx, p.Topic, latest(offsets), s) })
	if err != nil {
		return p.giveUp(fmt.Errorf("send offsets to transaction: %w", err))
	}
	failpoint.Hit(at.offsetsSent)
	if cancelled() {
		return p.abort(errors.New("the partition was lost"))
	}
	failpoint.Beside(at.commitSent)
	// From here on the outcome can be unknown: an error that is not plainly an abort ends this producer.
	if err := p.call(ctx, p.p.Commit); err != nil {
		return p.giveUp(fmt.Errorf("commit transaction: %w", err))
	}
	failpoint.Hit(at.committed)
	p.told(due)
	return engine.Committed, nil
}

// latest keeps the last offset of each partition: items stand in the order of capture.
func latest(os []Offset) []Offset {
	out := os[:0]
	for _, o := range os {
		found := false
		for i := range out {
			if out[i].Partition == o.Partition {
				out[i], found = o, true
			}
		}
		if !found {
			out = append(out, o)
		}
	}
	return out
}

// call makes the same call again while its error is retriable and there is time.
func (p *Publisher) call(ctx context.Context, f func(context.Context) error) error {
	for {
		err := f(ctx)
		var e *Error
		if err == nil || !errors.As(err, &e) || e.Class != Retriable {
			return err
		}
		if wait.For(ctx, 20*time.Millisecond) != nil {
			return err // its outcome is unknown now
		}
	}
}

// giveUp turns an error into an outcome, aborting where the class allows it.
func (p *Publisher) giveUp(err error) (engine.Outcome, error) {
	var e *Error
	if errors.As(err, &e) {
		switch e.Class {
		case Abortable:
			return p.abort(err)
		case Stale:
			o, err := p.abort(err)
			if o == engine.Aborted {
				o = engine.StaleStamp
			}
			return o, err
		}
	}
	return engine.Lost, err
}

// abort has its own deadline: it must be tried even when the transaction's is used up.
func (p *Publisher) abort(why error) (engine.Outcome, error) {
	ctx, cancel := context.WithTimeout(context.Background(), p.Timeout)
	defer cancel()
	if err := p.call(ctx, p.p.Abort); err != nil {
		return engine.Lost, fmt.Errorf("%w; and abort failed: %w", why, err)
	}
	return engine.Aborted, why
}
