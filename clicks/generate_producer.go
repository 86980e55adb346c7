package clicks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/security"
)

// window is how many messages may be unacknowledged; it is below librdkafka's own queue limit, so that its "queue full" is never met.
const window = 100_000

// producer is an idempotent producer that counts what is acknowledged. produce is for one goroutine; everything else for any.
type producer struct {
	client *kafka.Producer
	keeper *security.Keeper
	topic  string
	msg    kafka.Message // reused: librdkafka copies it
	sent   atomic.Int64
	acked  atomic.Int64
	failed atomic.Int64
	moved  chan struct{} // capacity 1: acknowledged or failed has grown, or err is set
	met    atomic.Bool   // a broker has answered
	down   atomic.Bool   // no broker can be reached; until the next acknowledgement
	drain  sync.WaitGroup

	mu  sync.Mutex
	err error // first failure that ends the run
}

func newProducer(brokers, topic, debug string, secure *config.Kafka, log func(string)) (*producer, error) {
	conf := kafka.ConfigMap{
		"bootstrap.servers":            brokers,
		"client.id":                    "exactly-generate",
		"enable.idempotence":           true, // a retry after a lost answer is not a second click
		"acks":                         "all",
		"partitioner":                  "murmur2_random", // the Java client's: the same key in the same partition, whoever produces
		"linger.ms":                    100,              // a request holds several clicks even when they come one by one
		"batch.num.messages":           10_000,
		"compression.type":             "lz4",
		"message.timeout.ms":           0,     // a broker that is away is waited for; whoever does not want to wait ends the command
		"allow.auto.create.topics":     false, // topics are created by setup, with the right number of partitions
		"queue.buffering.max.messages": 2 * window,
		"queue.buffering.max.kbytes":   256 << 10,
		"reconnect.backoff.ms":         100,
		"reconnect.backoff.max.ms":     2000,
		"log.connection.close":         false,  // an idle connection that the broker closes is no news
		"go.delivery.report.fields":    "none", // a report is only counted: copying key and value back would double its cost
		"go.events.channel.size":       10_000,
		"go.produce.channel.size":      1, // unused
		"go.logs.channel.enable":       true,
	}
	if debug != "" {
		conf["debug"] = debug
	}
	if err := security.Secure(conf, secure); err != nil {
		return nil, err
	}
	c, err := kafka.NewProducer(&conf)
	if err != nil {
		return nil, fmt.Errorf("create producer: %w", err)
	}
	p := &producer{client: c, topic: topic, moved: make(chan struct{}, 1)}
	// One that begins to refuse us is told of, and waited for like one that is away: a password file may be corrected.
	p.keeper = security.Keep(secure, c, func(err error) {
		if p.met.Load() { // before, waitForTopic finds out
			log(err.Error())
		}
	})
	p.msg.TopicPartition = kafka.TopicPartition{Topic: &p.topic, Partition: kafka.PartitionAny}
	p.drain.Add(1)
	go p.count()
	go func() { // ends when Close closes the channel; librdkafka's own words only if they were asked for
		for l := range c.Logs() {
			if debug != "" {
				log(l.Tag + ": " + l.Message)
			}
		}
	}()
	return p, nil
}

// produce hands one message over, waiting while the window is full. Delivery is seen in acked and failed.
func (p *producer) produce(ctx context.Context, key, value []byte, traceparent string) error {
	for p.waiting() >= window {
		if err := p.await(ctx); err != nil {
			return err
		}
	}
	p.msg.Key, p.msg.Value, p.msg.Headers = key, value, nil
	if traceparent != "" {
		p.msg.Headers = []kafka.Header{{Key: "traceparent", Value: []byte(traceparent)}}
	}
	for {
		err := p.client.Produce(&p.msg, nil)
		var ke kafka.Error
		switch {
		case err == nil:
			p.sent.Add(1)
			return nil
		case errors.As(err, &ke) && ke.Code() == kafka.ErrQueueFull: // the limit in bytes
			if err := p.await(ctx); err != nil {
				return err
			}
		default:
			return fmt.Errorf("produce to %s: %w", p.topic, err)
		}
	}
}

// flush waits until every message is acknowledged or failed.
func (p *producer) flush(ctx context.Context) error {
	for p.waiting() > 0 {
		if err := p.await(ctx); err != nil {
			return err
		}
	}
	return p.failure()
}

// await waits until something was acknowledged or failed since it was called last.
func (p *producer) await(ctx context.Context) error {
	if err := p.failure(); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-p.moved:
		return p.failure()
	}
}

// waiting is how many messages are neither acknowledged nor failed.
func (p *producer) waiting() int64 {
	done := p.acked.Load() + p.failed.Load() // first: read after sent it could be the larger
	return p.sent.Load() - done
}

// count reads the delivery reports, many at a time: an atomic and a wake-up for each would cost as much as the report.
func (p *producer) count() {
	defer p.drain.Done()
	for e := range p.client.Events() {
		var acked, failed int64
		for more := true; more; {
			switch e := e.(type) {
			case *kafka.Message:
				if e.TopicPartition.Error == nil {
					acked++
				} else {
					failed++
					p.fail(fmt.Errorf("deliver to %s: %w", p.topic, e.TopicPartition.Error))
				}
			case kafka.Error:
				p.event(e)
			case kafka.OAuthBearerTokenRefresh:
				p.keeper.Event(e)
			}
			select {
			case e, more = <-p.client.Events():
			default:
				more = false
			}
		}
		p.acked.Add(acked)
		p.failed.Add(failed)
		if acked > 0 {
			p.down.Store(false)
			p.keeper.Works()
		}
		p.wake()
	}
}

// event takes what librdkafka says of itself: only a fatal error ends anything, everything else it gets over by trying again.
func (p *producer) event(e kafka.Error) {
	p.keeper.Event(e)
	switch {
	case e.IsFatal():
		p.fail(fmt.Errorf("produce to %s: %w", p.topic, e))
	case e.Code() == kafka.ErrAllBrokersDown:
		p.down.Store(true)
	}
}

func (p *producer) wake() {
	select {
	case p.moved <- struct{}{}:
	default:
	}
}

func (p *producer) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
}

func (p *producer) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// close gives up what is not acknowledged yet.
func (p *producer) close() {
	p.keeper.Stop()
	p.client.Close()
	p.drain.Wait()
}
