package confluent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/security"
	"github.com/exactly-pipeline/exactly/outbox"
	"github.com/exactly-pipeline/exactly/txn"
)

// Producer is one incarnation of the worker's transactional producer. It implements txn.Producer.
type Producer struct {
	p       *kafka.Producer
	keeper  *security.Keeper
	topics  map[string]*string
	drained chan struct{}
	repeats *repeats
	bulk    *bulkWriter // nil: messages go one by one
}

// MaxMessage is how large a message may be, in bytes, where the topics take as much.
const MaxMessage = 16 << 20

// NewProducer makes a producer under the worker's transactional id. Delivery reports are off: a message that could not be delivered
// fails the transaction's commit.
func NewProducer(c *config.Config, log *zap.Logger) (*Producer, error) {
	tt := c.Kafka.TransactionTimeout
	m := kafka.ConfigMap{
		"bootstrap.servers":            c.Kafka.Brokers,
		"client.id":                    "exactly-" + c.Worker.ID,
		"transactional.id":             c.TransactionalID(c.Worker.ID),
		"transaction.timeout.ms":       int(tt.Milliseconds()),
		"message.timeout.ms":           int(tt.Milliseconds()),
		"socket.timeout.ms":            int(max(tt-100*time.Millisecond, 900*time.Millisecond).Milliseconds()),
		"enable.idempotence":           true,
		"acks":                         "all",
		"allow.auto.create.topics":     false,
		"linger.ms":                    100, // a commit flushes at once; waking for every partition meanwhile costs more than it gains
		"batch.size":                   1 << 20,
		"batch.num.messages":           20_000,
		"message.max.bytes":            MaxMessage,
		"queue.buffering.max.messages": 500_000,
		"queue.buffering.max.kbytes":   64 << 10,
		"retry.backoff.ms":             5, // librdkafka's 100 is paid by every SendOffsetsToTransaction (CONCURRENT_TRANSACTIONS)
		"retry.backoff.max.ms":         250,
		"reconnect.backoff.ms":         50,
		"reconnect.backoff.max.ms":     1000,
		"socket.keepalive.enable":      true,
		"go.delivery.reports":          false,
		"go.delivery.report.fields":    "none", // they come all the same, to be thrown away: at least without keys and values
		"go.logs.channel.enable":       true,
	}
	m["debug"] = strings.TrimPrefix(c.Kafka.Debug+","+debugged, ",") // see repeats
	if err := security.Secure(m, &c.Kafka); err != nil {
		return nil, err
	}
	boundMalloc()
	kp, err := kafka.NewProducer(&m)
	if err != nil {
		return nil, fmt.Errorf("make a producer: %w", err)
	}
	p := &Producer{p: kp, topics: map[string]*string{}, drained: make(chan struct{}), repeats: newRepeats()}
	if c.Kafka.Bulk {
		p.bulk = newBulkWriter(kp)
	}
	p.keeper = security.Keep(&c.Kafka, kp, func(err error) { log.Warn("producer", zap.Error(err)) })
	go func() {
		for l := range kp.Logs() {
			p.repeats.told(l.Tag)
			if l.Level < debugLevel || c.Kafka.Debug != "" {
				logLine(log, &l)
			}
		}
	}()
	go func() { // whatever comes must be taken, or Commit and Abort hang
		defer close(p.drained)
		for e := range kp.Events() {
			if err, ok := e.(kafka.Error); !p.keeper.Event(e) && ok {
				log.Debug("producer", zap.Error(err))
			}
		}
	}()
	return p, nil
}

// classify is the client's error with what it leads to.
func classify(err error) error {
	if err == nil {
		return nil
	}
	var ke kafka.Error
	if !errors.As(err, &ke) {
		return &txn.Error{Class: txn.Unknown, Err: err}
	}
	class := txn.Unknown
	switch {
	case ke.IsFatal(), ke.Code() == kafka.ErrFenced, ke.Code() == kafka.ErrProducerFenced, ke.Code() == kafka.ErrInvalidProducerEpoch:
		class = txn.Fatal
	case ke.Code() == kafka.ErrIllegalGeneration, ke.Code() == kafka.ErrUnknownMemberID, ke.Code() == kafka.ErrFencedInstanceID,
		ke.Code() == kafka.ErrRebalanceInProgress:
		class = txn.Stale
	case ke.TxnRequiresAbort():
		class = txn.Abortable
	case ke.IsRetriable():
		class = txn.Retriable
	}
	return &txn.Error{Class: class, Err: ke}
}

// Init implements txn.Producer.
func (p *Producer) Init(ctx context.Context) error { return p.done(p.p.InitTransactions(ctx)) }

// done is how a call ended that only a broker which accepts us can answer.
func (p *Producer) done(err error) error {
	if err == nil {
		p.keeper.Works()
	}
	return classify(err)
}

// Begin implements txn.Producer.
func (p *Producer) Begin() error {
	p.repeats.begin()
	p.forget()
	return classify(p.p.BeginTransaction())
}

// Produce implements txn.Producer: it enqueues, waiting while the queue is full.
func (p *Producer) Produce(ctx context.Context, m *outbox.Message) error {
	if done, err := p.collect(ctx, m); done {
		return err
	}
	topic := p.topics[m.Topic]
	if topic == nil {
		t := m.Topic
		topic = &t
		p.topics[t] = topic
	}
	msg := kafka.Message{
		TopicPartition: kafka.TopicPartition{Topic: topic, Partition: m.Partition},
		Key:            m.Key, Value: m.Value, Timestamp: time.UnixMilli(m.TimestampMs),
	}
	if len(m.Headers) > 0 {
		msg.Headers = make([]kafka.Header, len(m.Headers))
		for i, h := range m.Headers {
			msg.Headers[i] = kafka.Header{Key: h.Key, Value: h.Value}
		}
	}
	for {
		err := p.p.Produce(&msg, nil)
		if err == nil {
			return nil
		}
		var ke kafka.Error
		if errors.As(err, &ke) && ke.Code() == kafka.ErrQueueFull && ctx.Err() == nil {
			p.p.Flush(10)
			continue
		}
		return refused(err)
	}
}

// refused is the class of a message's error. Not fatal, then the transaction is to be aborted: one message less is not the transaction we captured.
func refused(err error) error {
	var ke kafka.Error
	e := &txn.Error{Class: txn.Abortable, Err: err}
	if errors.As(err, &ke) && (ke.IsFatal() || ke.Code() == kafka.ErrFatal) {
		e.Class = txn.Fatal
	}
	return e
}

// SendOffsets implements txn.Producer.
func (p *Producer) SendOffsets(ctx context.Context, topic string, offsets []txn.Offset, s engine.Stamp) error {
	md, ok := s.(*kafka.ConsumerGroupMetadata)
	if !ok || md == nil {
		return &txn.Error{Class: txn.Stale, Err: errors.New("no group metadata")}
	}
	if err := p.Send(ctx); err != nil {
		return err
	}
	tps := make([]kafka.TopicPartition, len(offsets))
	for i := range offsets {
		o := &offsets[i]
		tps[i] = kafka.TopicPartition{Topic: &topic, Partition: o.Partition, Offset: kafka.Offset(o.Offset), Metadata: &o.Metadata}
		if o.LeaderEpoch >= 0 {
			tps[i].LeaderEpoch = &o.LeaderEpoch
		}
	}
	at := time.Now()
	defer func() { p.repeats.sentOffsets(time.Since(at)) }()
	return classify(p.p.SendOffsetsToTransaction(ctx, tps, md))
}

// Commit implements txn.Producer.
func (p *Producer) Commit(ctx context.Context) error {
	if err := p.Send(ctx); err != nil {
		return err
	}
	return p.done(p.p.CommitTransaction(ctx))
}

// Abort implements txn.Producer.
func (p *Producer) Abort(ctx context.Context) error {
	p.forget()
	return classify(p.p.AbortTransaction(ctx))
}

// Repeated implements txn.Producer.
func (p *Producer) Repeated() bool { return p.repeats.any() }

// Close implements txn.Producer.
func (p *Producer) Close() {
	p.keeper.Stop()
	if p.bulk != nil {
		p.bulk.close()
	}
	p.p.Close()
	<-p.drained
}
