// Package franz owns the second Kafka client of records and transactions: franz-go behind engine.Source and txn.Producer.
//
// It promises the same as package confluent, on the same interfaces: every setting that matters is set, every error carries its class,
// rebalances are told inside Poll. It never decides what to do about an error.
package franz

import (
	"context"
	"errors"
	"fmt"
	"sync"
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
)

// stamp is the member and generation a publish is sent with.
type stamp struct {
	group, member, instance string
	generation              int32
}

// rebalance is a callback of the client, handed to the goroutine that polls.
type rebalance struct {
	do   func()
	done chan struct{}
}

// Source is a member of the consumer group. It implements engine.Source. The client calls back on goroutines of its own; they wait
// until Poll (or Close) has run the callback, so that the engine sees rebalances where the interface says.
type Source struct {
	cl         *kgo.Client
	cfg        *config.Config
	listener   engine.Listener
	log        *zap.Logger
	rebalances chan rebalance
	closed     chan struct{}
	errs       []error // of the last poll, one a call
	closing    sync.Once
	closeErr   error
}

// closeTimeout bounds Close: what is left then goes with the process, whose membership the group ends at the session timeout.
const closeTimeout = 5 * time.Second

// NewSource joins the group under the worker's id as group.instance.id (static membership, KIP-345), cooperative-sticky (KIP-429).
func NewSource(c *config.Config, l engine.Listener, log *zap.Logger) (*Source, error) {
	s := &Source{cfg: c, listener: l, log: log, rebalances: make(chan rebalance), closed: make(chan struct{})}
	// Offsets come from Postgres, so the client's own look at the group's offsets must not wait for pending transactions as well: below
	// version 7 OffsetFetch can't ask for that (KIP-447). The engine's look, which decides, does.
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(kmsg.OffsetFetch.Int16(), 6)
	opts := append(admin.Options(c),
		kgo.ClientID("exactly-"+c.Worker.ID),
		kgo.WithLogger(logger{log}),
		kgo.MaxVersions(versions),
		kgo.ConsumerGroup(c.Group),
		kgo.InstanceID(c.Worker.ID),
		kgo.ConsumeTopics(c.Topics.Input),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(c.Kafka.SessionTimeout),
		kgo.HeartbeatInterval(c.Kafka.HeartbeatInterval),
		kgo.RebalanceTimeout(max(c.Kafka.MaxPollInterval, c.Kafka.SessionTimeout)),
		kgo.DisableAutoCommit(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMinBytes(1),
		kgo.FetchMaxWait(100*time.Millisecond),
		kgo.FetchMaxBytes(int32(c.Kafka.FetchMaxBytes)),
		kgo.FetchMaxPartitionBytes(1<<20),
		kgo.BrokerMaxReadBytes(int32(c.Kafka.FetchMaxBytes)+64<<20),
		kgo.AdjustFetchOffsetsFn(placeholders),
		kgo.OnPartitionsAssigned(s.assigned),
		kgo.OnPartitionsRevoked(s.revoked),
		kgo.OnPartitionsLost(s.lost),
	)
	var err error
	if s.cl, err = kgo.NewClient(opts...); err != nil {
		return nil, fmt.Errorf("make a consumer: %w", err)
	}
	return s, nil
}

// placeholders are offsets to assign partitions at until the claim says where to read from: they are paused, and set by Seek.
func placeholders(_ context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	for _, ps := range offsets {
		for p := range ps {
			ps[p] = kgo.NewOffset().At(0)
		}
	}
	return offsets, nil
}

// hand runs do on the goroutine that polls, and returns when it is done.
func (s *Source) hand(ctx context.Context, do func()) {
	r := rebalance{do, make(chan struct{})}
	select {
	case s.rebalances <- r:
		select {
		case <-r.done:
		case <-s.closed:
		}
	case <-s.closed:
	case <-ctx.Done():
	}
}

// stamp is taken inside a rebalance callback, and nowhere else (guard 2).
func (s *Source) stamp(cl *kgo.Client) engine.Stamp {
	member, generation := cl.GroupMetadata()
	if generation < 0 {
		return nil
	}
	return &stamp{group: s.cfg.Group, member: member, generation: generation, instance: s.cfg.Worker.ID}
}

// The callbacks go by the client they are given: the first may come before NewSource has ours.

func (s *Source) assigned(ctx context.Context, cl *kgo.Client, m map[string][]int32) {
	st := s.stamp(cl)
	cl.PauseFetchPartitions(m)
	s.hand(ctx, func() { s.listener.Assigned(m[s.cfg.Topics.Input], st) })
}

func (s *Source) revoked(ctx context.Context, cl *kgo.Client, m map[string][]int32) {
	st := s.stamp(cl)
	s.hand(ctx, func() { s.listener.Revoked(m[s.cfg.Topics.Input], st) })
}

func (s *Source) lost(ctx context.Context, _ *kgo.Client, m map[string][]int32) {
	s.hand(ctx, func() { s.listener.Lost(m[s.cfg.Topics.Input], nil) })
}

// serve runs the callbacks that wait.
func (s *Source) serve() {
	for {
		select {
		case r := <-s.rebalances:
			r.do()
			close(r.done)
		default:
			return
		}
	}
}

// piece is how many records are taken at once: they have no bound in bytes there.
const piece = 32

// Poll implements engine.Source.
func (s *Source) Poll(buf []engine.Record, n int, wait time.Duration) ([]engine.Record, error) {
	s.serve()
	if len(s.errs) > 0 {
		err := s.errs[0]
		s.errs = s.errs[1:]
		return buf, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	for bytes := 0; n > 0 && bytes < engine.PollBytes; {
		fetches := s.cl.PollRecords(ctx, min(n, piece))
		ctx = nil //nolint:staticcheck // what is there already, without waiting
		had := len(buf)
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if p.Err != nil {
				s.trouble(p.Partition, p.Err)
			}
			for _, r := range p.Records {
				buf = append(buf, record(r))
				bytes += buf[len(buf)-1].Size()
			}
		})
		if len(buf) == had {
			break
		}
		n -= len(buf) - had
	}
	return buf, nil
}

// trouble keeps an error of a poll, with its class, for the next call: what was read before it goes first.
func (s *Source) trouble(partition int32, err error) {
	var session *kgo.ErrGroupSession
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
	case errors.Is(err, kerr.FencedInstanceID), errors.Is(err, kgo.ErrClientClosed):
		s.errs = append(s.errs, &engine.FatalError{Err: err})
	case errors.As(err, &session):
		s.errs = append(s.errs, err) // the client joins again by itself
	case partition >= 0:
		s.errs = append(s.errs, &engine.PartitionError{Partition: partition, Err: err})
	default:
		s.errs = append(s.errs, err)
	}
}

func record(r *kgo.Record) engine.Record {
	out := engine.Record{Partition: r.Partition, Offset: r.Offset, LeaderEpoch: r.LeaderEpoch, Key: r.Key, Value: r.Value}
	if r.Attrs.TimestampType() >= 0 {
		out.TimestampMs = r.Timestamp.UnixMilli()
	}
	if len(r.Headers) > 0 {
		out.Headers = make([]outbox.Header, len(r.Headers))
		for i, h := range r.Headers {
			out.Headers[i] = outbox.Header{Key: h.Key, Value: h.Value}
		}
	}
	return out
}

// Seek implements engine.Source. It fails until the client has placed the partition, which it does some time after the callback: set
// earlier, the offset would be lost.
func (s *Source) Seek(partition int32, offset int64) error {
	topic := s.cfg.Topics.Input
	if _, placed := s.cl.CommittedOffsets()[topic][partition]; !placed {
		return fmt.Errorf("seek %s/%d to %d: not assigned yet", topic, partition, offset)
	}
	s.cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: {partition: {Epoch: -1, Offset: offset}}})
	return s.Resume([]int32{partition})
}

// Pause implements engine.Source.
func (s *Source) Pause(partitions []int32) error {
	s.cl.PauseFetchPartitions(map[string][]int32{s.cfg.Topics.Input: partitions})
	return nil
}

// Resume implements engine.Source.
func (s *Source) Resume(partitions []int32) error {
	s.cl.ResumeFetchPartitions(map[string][]int32{s.cfg.Topics.Input: partitions})
	return nil
}

// Close implements engine.Source. A static member sends no LeaveGroup: engine.Group.Leave does, where it is meant.
func (s *Source) Close() error {
	s.closing.Do(func() {
		done := make(chan struct{})
		go func() { defer close(done); s.cl.CloseAllowingRebalance() }()
		t := time.NewTimer(closeTimeout)
		defer t.Stop()
		defer close(s.closed)
		for {
			select {
			case r := <-s.rebalances: // what is owned is given up through the listener
				r.do()
				close(r.done)
			case <-done:
				return
			case <-t.C:
				s.log.Warn("the consumer did not close in time", zap.Duration("waited", closeTimeout))
				return
			}
		}
	})
	return s.closeErr
}
