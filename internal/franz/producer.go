package franz

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/outbox"
	"github.com/exactly-pipeline/exactly/txn"
)

// Producer is one incarnation of the worker's transactional producer. It implements txn.Producer. Where the brokers have
// transaction.version 2 the client speaks KIP-890: every end of a transaction raises the producer's epoch, so a late EndTxn can't end
// the next one.
type Producer struct {
	cl      *kgo.Client
	offsets *kgo.Client // sends the offsets; see NewProducer
	id      string      // transactional.id
	failed  atomic.Pointer[error]
	records int  // produced in this transaction
	sent    bool // offsets were sent in this transaction
	repeats *repeats

	promise func(*kgo.Record, error)
	arena   arena
}

// MaxMessage is how large a message may be, in bytes, where nobody says: the client's default, a little below the brokers'.
const MaxMessage = 1_000_012

// NewProducer makes a producer under the worker's transactional id. A message that could not be delivered fails the transaction's
// commit. maxMessage is the smallest max.message.bytes of the output topics, in bytes, 0 if unknown.
func NewProducer(c *config.Config, maxMessage int, log *zap.Logger) (*Producer, error) {
	tt := c.Kafka.TransactionTimeout
	if maxMessage <= 0 {
		maxMessage = MaxMessage
	}
	rep := &repeats{}
	cl, err := kgo.NewClient(append(admin.Options(c),
		kgo.ClientID("exactly-"+c.Worker.ID),
		kgo.WithLogger(logger{log}),
		kgo.WithHooks(rep),
		kgo.TransactionalID(c.TransactionalID(c.Worker.ID)),
		kgo.TransactionTimeout(tt),
		// No RecordDeliveryTimeout: it counts from the record's timestamp, which here is the click's. Deadlines come by the calls' contexts.
		kgo.RequestTimeoutOverhead(max(tt-100*time.Millisecond, 900*time.Millisecond)),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(int32(maxMessage)),
		kgo.ProducerLinger(100*time.Millisecond), // a commit flushes at once
		kgo.MaxBufferedRecords(500_000),
		kgo.MaxBufferedBytes(64<<20),
		kgo.RetryBackoffFn(func(n int) time.Duration { return min(5*time.Millisecond<<min(n, 6), 250*time.Millisecond) }),
	)...)
	if err != nil {
		return nil, fmt.Errorf("make a producer: %w", err)
	}
	// The client sends offsets only for a group it consumes in itself, with that group's metadata of the moment: guard 2 asks for the one
	// taken in the callback. So they go as requests of our own, in the versions that say by AddOffsetsToTxn what they belong to; a cap on
	// versions in the producing client would turn KIP-890 off there.
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(kmsg.TxnOffsetCommit.Int16(), 4)
	versions.SetMaxKeyVersion(kmsg.EndTxn.Int16(), 4)
	offsets, err := kgo.NewClient(append(admin.Options(c), kgo.ClientID("exactly-"+c.Worker.ID), kgo.MaxVersions(versions), kgo.WithLogger(logger{log}), kgo.WithHooks(rep))...)
	if err != nil {
		cl.Close()
		return nil, fmt.Errorf("make a producer: %w", err)
	}
	p := &Producer{cl: cl, offsets: offsets, id: c.TransactionalID(c.Worker.ID), repeats: rep}
	p.promise = p.done // as a value once: it would be an allocation a record
	return p, nil
}

// classify is the client's error with what it leads to.
func classify(err error) error {
	if err == nil {
		return nil
	}
	class := txn.Unknown
	var ke *kerr.Error
	switch {
	case errors.Is(err, kerr.ProducerFenced), errors.Is(err, kerr.InvalidProducerEpoch), errors.Is(err, kerr.InvalidProducerIDMapping),
		errors.Is(err, kerr.TransactionalIDAuthorizationFailed), errors.Is(err, kerr.InvalidTxnState):
		class = txn.Fatal
	case errors.Is(err, kerr.IllegalGeneration), errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.FencedInstanceID),
		errors.Is(err, kerr.RebalanceInProgress):
		class = txn.Stale
	case errors.Is(err, kerr.TransactionAbortable), errors.Is(err, kerr.OperationNotAttempted):
		class = txn.Abortable
	case errors.As(err, &ke) && (ke.Retriable || errors.Is(err, kerr.ConcurrentTransactions)):
		class = txn.Retriable
	}
	return &txn.Error{Class: class, Err: err}
}

// Init implements txn.Producer.
func (p *Producer) Init(ctx context.Context) error {
	_, _, err := p.cl.ProducerID(ctx)
	return classify(err)
}

// Begin implements txn.Producer.
func (p *Producer) Begin() error {
	p.failed.Store(nil)
	p.records, p.sent = 0, false
	p.repeats.begin()
	return classify(p.cl.BeginTransaction())
}

func (p *Producer) done(_ *kgo.Record, err error) {
	if err != nil {
		failed := err // err itself would go to the heap for every record
		p.failed.CompareAndSwap(nil, &failed)
	}
}

// undelivered is the class of a record's error: the transaction is to be aborted unless the producer is of no use any more.
func undelivered(err error) error {
	e := &txn.Error{Class: txn.Abortable, Err: err}
	var c *txn.Error
	if errors.As(classify(err), &c) && c.Class == txn.Fatal {
		e.Class = txn.Fatal
	}
	return e
}

// Produce implements txn.Producer: it buffers, waiting while the buffer is full.
func (p *Producer) Produce(ctx context.Context, m *outbox.Message) error {
	if err := p.failed.Load(); err != nil {
		return undelivered(*err)
	}
	p.cl.Produce(ctx, p.arena.record(m), p.promise)
	p.records++
	return nil
}

// Send implements txn.Producer: the client sends by itself.
func (p *Producer) Send(context.Context) error { return nil }

// SendOffsets implements txn.Producer: AddOffsetsToTxn, then TxnOffsetCommit with the stamp's member and generation (KIP-447).
func (p *Producer) SendOffsets(ctx context.Context, topic string, offsets []txn.Offset, s engine.Stamp) error {
	st, ok := s.(*stamp)
	if !ok || st == nil {
		return &txn.Error{Class: txn.Stale, Err: errors.New("no group metadata")}
	}
	// First what is to be there before: the offsets must not be in a transaction that lacks its records.
	if err := p.flush(ctx); err != nil {
		return err
	}
	pid, epoch, err := p.cl.ProducerID(ctx)
	if err != nil {
		return classify(err)
	}
	p.sent = true
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = p.id, pid, epoch, st.group
	added, err := add.RequestWith(ctx, p.offsets)
	if err == nil {
		err = kerr.ErrorForCode(added.ErrorCode)
	}
	if err != nil {
		return classify(fmt.Errorf("add offsets to transaction: %w", err))
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = p.id, pid, epoch
	req.Group, req.MemberID, req.Generation, req.InstanceID = st.group, st.member, st.generation, &st.instance
	t := kmsg.NewTxnOffsetCommitRequestTopic()
	t.Topic = topic
	for i := range offsets {
		o := &offsets[i]
		tp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		tp.Partition, tp.Offset, tp.LeaderEpoch, tp.Metadata = o.Partition, o.Offset, o.LeaderEpoch, &o.Metadata
		t.Partitions = append(t.Partitions, tp)
	}
	req.Topics = append(req.Topics, t)
	res, err := req.RequestWith(ctx, p.offsets)
	if err != nil {
		return classify(fmt.Errorf("commit offsets in transaction: %w", err))
	}
	for i := range res.Topics {
		for _, tp := range res.Topics[i].Partitions {
			if err := kerr.ErrorForCode(tp.ErrorCode); err != nil {
				return classify(fmt.Errorf("commit offset of %s/%d in transaction: %w", topic, tp.Partition, err))
			}
		}
	}
	return nil
}

// flush waits for every record's acknowledgement.
func (p *Producer) flush(ctx context.Context) error {
	if err := p.cl.Flush(ctx); err != nil {
		return &txn.Error{Class: txn.Abortable, Err: fmt.Errorf("flush: %w", err)}
	}
	if err := p.failed.Load(); err != nil {
		return undelivered(*err)
	}
	return nil
}

// Commit implements txn.Producer.
func (p *Producer) Commit(ctx context.Context) error {
	if err := p.flush(ctx); err != nil {
		return err
	}
	err := p.end(ctx, kgo.TryCommit)
	if err == nil { // and each record's promise was kept by the flush: nobody holds them any more
		p.arena.again()
	}
	return err
}

// Abort implements txn.Producer.
func (p *Producer) Abort(ctx context.Context) error {
	p.arena = arena{} // the client may still hold some
	if err := p.cl.AbortBufferedRecords(ctx); err != nil {
		return classify(err)
	}
	return p.end(ctx, kgo.TryAbort)
}

func (p *Producer) end(ctx context.Context, how kgo.TransactionEndTry) error {
	if p.records == 0 && p.sent {
		// The client ends nothing where it produced nothing, and does not know of the offsets.
		if err := p.endOffsetsOnly(ctx, how); err != nil {
			return err
		}
		how = kgo.TryAbort // of nothing: only its own state is left to be closed
	}
	return ended(p.cl.EndTransaction(ctx, how))
}

// ended classes the error of an EndTxn. The client has tried again where that was safe; another try would only be told that the outcome
// is unknown.
func ended(err error) error {
	err = classify(err)
	var e *txn.Error
	if errors.As(err, &e) && e.Class == txn.Retriable {
		e.Class = txn.Unknown
	}
	return err
}

func (p *Producer) endOffsetsOnly(ctx context.Context, how kgo.TransactionEndTry) error {
	pid, epoch, err := p.cl.ProducerID(ctx)
	if err != nil {
		return classify(err)
	}
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = p.id, pid, epoch, bool(how)
	res, err := req.RequestWith(ctx, p.offsets)
	if err == nil {
		err = kerr.ErrorForCode(res.ErrorCode)
	}
	return ended(err)
}

// Repeated implements txn.Producer.
func (p *Producer) Repeated() bool { return p.repeats.any() }

// Close implements txn.Producer.
func (p *Producer) Close() {
	p.cl.Close()
	p.offsets.Close()
}
