// Package confluent owns the Kafka client of records and transactions: confluent-kafka-go (librdkafka) behind engine.Source and
// txn.Producer.
//
// It promises that every setting that matters is set, not left to a default, and that every error carries its class. It never
// decides what to do about one.
package confluent

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/security"
	"github.com/exactly-pipeline/exactly/outbox"
)

// Source is a member of the consumer group. It implements engine.Source.
type Source struct {
	c        *kafka.Consumer
	topic    string
	cfg      *config.Config
	listener engine.Listener
	keeper   *security.Keeper
	log      *zap.Logger
	bulk     *bulkReader // of all partitions that were set to an offset; nil: records come one by one
}

// NewSource joins the group under the worker's id as group.instance.id (static membership, KIP-345), cooperative-sticky (KIP-429).
func NewSource(c *config.Config, l engine.Listener, log *zap.Logger) (*Source, error) {
	m := kafka.ConfigMap{
		"bootstrap.servers":             c.Kafka.Brokers,
		"client.id":                     "exactly-" + c.Worker.ID,
		"group.id":                      c.Group,
		"group.instance.id":             c.Worker.ID,
		"group.protocol":                "classic",
		"partition.assignment.strategy": "cooperative-sticky",
		"enable.auto.commit":            false,
		"enable.auto.offset.store":      false,
		"auto.offset.reset":             "error",
		"isolation.level":               "read_committed",
		"allow.auto.create.topics":      false,
		"session.timeout.ms":            int(c.Kafka.SessionTimeout.Milliseconds()),
		"heartbeat.interval.ms":         int(c.Kafka.HeartbeatInterval.Milliseconds()),
		"max.poll.interval.ms":          int(max(c.Kafka.MaxPollInterval, c.Kafka.SessionTimeout).Milliseconds()),
		"fetch.min.bytes":               1,
		"fetch.wait.max.ms":             100,
		"fetch.error.backoff.ms":        50,
		"fetch.queue.backoff.ms":        5,
		"fetch.max.bytes":               c.Kafka.FetchMaxBytes,
		"max.partition.fetch.bytes":     1 << 20,
		"receive.message.max.bytes":     c.Kafka.FetchMaxBytes + 64<<20,
		"queued.max.messages.kbytes":    c.Kafka.FetchMaxBytes >> 10,
		"queued.min.messages":           20_000,
		"reconnect.backoff.ms":          50,
		"reconnect.backoff.max.ms":      1000,
		"socket.keepalive.enable":       true,
		"go.logs.channel.enable":        true,
	}
	if c.Kafka.Debug != "" {
		m["debug"] = c.Kafka.Debug
	}
	if err := security.Secure(m, &c.Kafka); err != nil {
		return nil, err
	}
	boundMalloc()
	kc, err := kafka.NewConsumer(&m)
	if err != nil {
		return nil, fmt.Errorf("make a consumer: %w", err)
	}
	s := &Source{c: kc, topic: c.Topics.Input, cfg: c, listener: l, log: log}
	if c.Kafka.Bulk {
		s.bulk = newBulkReader(kc)
	}
	s.keeper = security.Keep(&c.Kafka, kc, func(err error) { log.Warn("consumer", zap.Error(err)) })
	go drainLogs(kc.Logs(), log)
	if err := kc.SubscribeTopics([]string{c.Topics.Input}, s.rebalance); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("subscribe to %s: %w", c.Topics.Input, err)
	}
	return s, nil
}

// rebalance runs inside Poll and Close. The group metadata is taken here, and nowhere else (guard 2).
func (s *Source) rebalance(c *kafka.Consumer, e kafka.Event) error {
	var stamp engine.Stamp
	if md, err := c.GetConsumerGroupMetadata(); err == nil {
		stamp = md
	} else {
		s.log.Warn("no group metadata in a rebalance", zap.Error(err))
	}
	switch e := e.(type) {
	case kafka.AssignedPartitions:
		parts := s.placed(e.Partitions)
		s.note("assign", c.IncrementalAssign(parts))
		if len(parts) > 0 {
			s.note("pause", c.Pause(parts))
		}
		s.listener.Assigned(ids(e.Partitions), stamp)
	case kafka.RevokedPartitions:
		if c.AssignmentLost() {
			s.listener.Lost(ids(e.Partitions), nil)
		} else {
			s.listener.Revoked(ids(e.Partitions), stamp)
		}
		s.note("unassign", c.IncrementalUnassign(e.Partitions))
	}
	return nil
}

// placedWithin bounds what the callback of an assignment takes of max.poll.interval, however many partitions there are.
const placedWithin = 5 * time.Second

// placed are the partitions, each at an offset to assign it at until the claim says where to read from: it is paused at once and set by Seek. It
// must be absolute. A logical one (end, stored) leaves a query under way, and librdkafka, finding its answer outdated by a seek, asks
// again and then moves the partition to the answer: past records nobody has read. The log's end is in range and has nothing to fetch.
func (s *Source) placed(ps []kafka.TopicPartition) []kafka.TopicPartition {
	const atOnce = 8 // a leader that does not answer must not keep the others from being asked
	out := make([]kafka.TopicPartition, len(ps))
	until := time.Now().Add(placedWithin)
	var next atomic.Int32
	var wg sync.WaitGroup
	for range min(atOnce, len(ps)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(ps); i = int(next.Add(1)) - 1 {
				p := ps[i].Partition
				_, high, err := s.c.QueryWatermarkOffsets(s.topic, p, max(int(time.Until(until).Milliseconds()), 1))
				if err != nil {
					s.log.Warn("consumer: no log end for a new partition", zap.Int32("partition", p), zap.Error(err))
					high = 0
				}
				out[i] = kafka.TopicPartition{Topic: ps[i].Topic, Partition: p, Offset: kafka.Offset(high)}
			}
		})
	}
	wg.Wait()
	return out
}

func (s *Source) note(what string, err error) {
	if err != nil {
		s.log.Warn("consumer: "+what+" in a rebalance", zap.Error(err))
	}
}

func ids(ps []kafka.TopicPartition) []int32 {
	out := make([]int32, len(ps))
	for i := range ps {
		out[i] = ps[i].Partition
	}
	return out
}

// Poll implements engine.Source.
func (s *Source) Poll(buf []engine.Record, n int, wait time.Duration) ([]engine.Record, error) {
	if s.bulk == nil {
		return s.each(buf, n, wait)
	}
	// Rebalances, errors and whatever else the group has to say come by the client's own queue: it is looked at in between.
	const look = 10 * time.Millisecond
	for before, until := len(buf), time.Now().Add(wait); ; {
		var err error
		if buf, err = s.each(buf, n, 0); err != nil || len(buf) > before {
			return buf, err
		}
		if buf, err = s.bulk.read(buf, n, max(0, min(time.Until(until), look))); err != nil {
			var ke kafka.Error
			if errors.As(err, &ke) {
				err = s.trouble(ke)
			}
			return buf, err
		}
		if len(buf) > before {
			s.keeper.Works()
			return buf, nil
		}
		if time.Until(until) < time.Millisecond {
			return buf, nil
		}
	}
}

// each is Poll by the client's own queue.
func (s *Source) each(buf []engine.Record, n int, wait time.Duration) ([]engine.Record, error) {
	ms, bytes := int(wait.Milliseconds()), 0
	for range n {
		switch e := s.c.Poll(ms).(type) {
		case nil:
			return buf, nil
		case *kafka.Message:
			if e.TopicPartition.Error != nil {
				return buf, &engine.PartitionError{Partition: e.TopicPartition.Partition, Err: e.TopicPartition.Error}
			}
			s.keeper.Works()
			buf = append(buf, record(e))
			if bytes += buf[len(buf)-1].Size(); bytes >= engine.PollBytes {
				return buf, nil
			}
		case kafka.Error:
			if err := s.trouble(e); err != nil {
				return buf, err
			}
		case kafka.OAuthBearerTokenRefresh:
			s.keeper.Event(e)
		}
		ms = 0
	}
	return buf, nil
}

// trouble is an error with its class; nil if it is somebody else's affair.
func (s *Source) trouble(e kafka.Error) error {
	switch {
	case e.IsFatal(), e.Code() == kafka.ErrFencedInstanceID:
		return &engine.FatalError{Err: e}
	case e.Code() == kafka.ErrAutoOffsetReset: // said once, without its partition, which is not fetched any more
		return &engine.PartitionError{Partition: engine.SomePartition, Err: e}
	case s.keeper.Event(e):
		return nil
	}
	return security.ExplainEvent(&s.cfg.Kafka, e)
}

func record(m *kafka.Message) engine.Record {
	r := engine.Record{
		Partition: m.TopicPartition.Partition, Offset: int64(m.TopicPartition.Offset), LeaderEpoch: -1,
		Key: m.Key, Value: m.Value,
	}
	if m.TopicPartition.LeaderEpoch != nil {
		r.LeaderEpoch = *m.TopicPartition.LeaderEpoch
	}
	if m.TimestampType != kafka.TimestampNotAvailable {
		r.TimestampMs = m.Timestamp.UnixMilli()
	}
	if len(m.Headers) > 0 {
		r.Headers = make([]outbox.Header, len(m.Headers))
		for i, h := range m.Headers {
			r.Headers[i] = outbox.Header{Key: h.Key, Value: h.Value}
		}
	}
	return r
}

// Seek implements engine.Source.
func (s *Source) Seek(partition int32, offset int64) error {
	tp := []kafka.TopicPartition{{Topic: &s.topic, Partition: partition, Offset: kafka.Offset(offset)}}
	res, err := s.c.SeekPartitions(tp)
	if err == nil && len(res) == 1 {
		err = res[0].Error
	}
	if err == nil && s.bulk != nil && !s.bulk.forward(s.topic, partition) {
		err = errors.New("no such partition")
	}
	if err == nil {
		err = s.c.Resume(tp)
	}
	if err != nil {
		return fmt.Errorf("seek %s/%d to %d: %w", s.topic, partition, offset, err)
	}
	return nil
}

func (s *Source) list(partitions []int32) []kafka.TopicPartition {
	tps := make([]kafka.TopicPartition, len(partitions))
	for i, p := range partitions {
		tps[i] = kafka.TopicPartition{Topic: &s.topic, Partition: p}
	}
	return tps
}

// Pause implements engine.Source.
func (s *Source) Pause(partitions []int32) error { return s.c.Pause(s.list(partitions)) }

// Resume implements engine.Source.
func (s *Source) Resume(partitions []int32) error { return s.c.Resume(s.list(partitions)) }

// closeTimeout bounds Close: after a fatal error (fenced by another member with our instance id) librdkafka's close may never end.
// What is left then goes with the process, whose membership the group ends at the session timeout.
const closeTimeout = 5 * time.Second

// Close implements engine.Source. A static member sends no LeaveGroup: engine.Group.Leave does, where it is meant.
func (s *Source) Close() error {
	s.keeper.Stop()
	if s.bulk != nil {
		s.bulk.close()
		s.bulk = nil
	}
	done := make(chan error, 1)
	go func() { done <- s.c.Close() }()
	t := time.NewTimer(closeTimeout)
	defer t.Stop()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("close consumer: %w", err)
		}
	case <-t.C:
		s.log.Warn("the consumer did not close in time", zap.Duration("waited", closeTimeout))
	}
	return nil
}

func drainLogs(logs chan kafka.LogEvent, log *zap.Logger) {
	for l := range logs {
		logLine(log, &l)
	}
}

func logLine(log *zap.Logger, l *kafka.LogEvent) {
	log.Debug("librdkafka", zap.String("tag", l.Tag), zap.String("message", l.Message))
}
