package start

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/acl"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/security"
	"github.com/exactly-pipeline/exactly/txn"
)

// Explain says of a connection that is refused, or a right that is missing, what to look at. Any other error stays as it is.
func Explain(ctx context.Context, c *config.Config, err error) error {
	return acl.Explain(ctx, c, acl.Worker, security.Explain(c, err))
}

// explained is the client, with its refusals explained.
func (cl Client) explained(c *config.Config, log *zap.Logger) Client {
	rights := &rights{c: c, log: log}
	return Client{
		Source: func(l engine.Listener) (engine.Source, error) {
			s, err := cl.Source(l)
			if err != nil {
				return nil, Explain(context.Background(), c, err)
			}
			return &source{Source: s, c: c}, nil
		},
		Producer: func() (txn.Producer, error) {
			p, err := cl.Producer()
			if err != nil {
				return nil, err
			}
			return producer{p, c, rights}, nil
		},
	}
}

// explainedFor is how long an explanation is believed that the brokers were asked for: clients tell of one refusal again and again.
const explainedFor = 30 * time.Second

// source explains what Poll returns.
type source struct {
	engine.Source
	c *config.Config

	asked string // the last error that was explained, and how
	told  error
	at    time.Time
}

func (s *source) Poll(buf []engine.Record, n int, wait time.Duration) ([]engine.Record, error) {
	buf, err := s.Source.Poll(buf, n, wait)
	if err == nil {
		return buf, nil
	}
	var partition *engine.PartitionError
	var fatal *engine.FatalError
	switch {
	case errors.As(err, &fatal):
		return buf, err
	case errors.As(err, &partition):
		return buf, &engine.PartitionError{Partition: partition.Partition, Err: s.explain(partition.Err)}
	default:
		return buf, s.explain(err)
	}
}

func (s *source) explain(err error) error {
	if text := err.Error(); text != s.asked || time.Since(s.at) > explainedFor {
		s.asked, s.told, s.at = text, Explain(context.Background(), s.c, err), time.Now()
	}
	return s.told
}

// producer explains how a transaction ends; classes stay what they are.
type producer struct {
	txn.Producer
	c      *config.Config
	rights *rights
}

func (p producer) explain(ctx context.Context, err error) error {
	var e *txn.Error
	if !errors.As(err, &e) {
		return err
	}
	why := Explain(ctx, p.c, e.Err)
	if e.Class == txn.Abortable && !security.Refused(why) {
		p.rights.suspect()
	}
	return &txn.Error{Class: e.Class, Err: why}
}

// rights looks for missing ones behind aborts that don't tell their cause: librdkafka says "erroneous state" of a transaction that has
// failed before. It looks beside: an abort must not wait.
type rights struct {
	c   *config.Config
	log *zap.Logger

	mu sync.Mutex
	at time.Time
}

func (r *rights) suspect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.at) < explainedFor {
		return
	}
	r.at = time.Now()
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		cl, err := security.NewClient(&r.c.Kafka)
		if err != nil {
			return
		}
		defer cl.Close()
		if missing, err := acl.Missing(ctx, kadm.NewClient(cl), acl.Rules(r.c, acl.Worker)); err == nil && len(missing) > 0 {
			r.log.Warn("producer", zap.Error(acl.Denied(missing, nil)))
		}
	}()
}

func (p producer) Init(ctx context.Context) error { return p.explain(ctx, p.Producer.Init(ctx)) }

func (p producer) SendOffsets(ctx context.Context, topic string, offsets []txn.Offset, s engine.Stamp) error {
	return p.explain(ctx, p.Producer.SendOffsets(ctx, topic, offsets, s))
}

func (p producer) Commit(ctx context.Context) error { return p.explain(ctx, p.Producer.Commit(ctx)) }

// Group is the group as adm sees it, its refusals explained.
func Group(adm *admin.Admin, c *config.Config) engine.Group { return explained{adm, c} }

// explained is a Group whose refusals are explained.
type explained struct {
	engine.Group
	c *config.Config
}

func (e explained) Look(ctx context.Context, leaderEpochs map[int32]int32) (map[int32]engine.Look, error) {
	l, err := e.Group.Look(ctx, leaderEpochs)
	return l, Explain(ctx, e.c, err)
}

func (e explained) FenceAbsent(ctx context.Context, workers []string) ([]string, error) {
	f, err := e.Group.FenceAbsent(ctx, workers)
	return f, Explain(ctx, e.c, err)
}

func (e explained) ScanOutputs(ctx context.Context, partitions []int32) (map[int32]int64, error) {
	o, err := e.Group.ScanOutputs(ctx, partitions)
	return o, Explain(ctx, e.c, err)
}

func (e explained) StartOffsets(ctx context.Context) (map[int32]int64, error) {
	o, err := e.Group.StartOffsets(ctx)
	return o, Explain(ctx, e.c, err)
}

func (e explained) TopicIDs(ctx context.Context) (map[string]string, error) {
	ids, err := e.Group.TopicIDs(ctx)
	return ids, Explain(ctx, e.c, err)
}

func (e explained) Unowned(ctx context.Context) ([]int32, bool, error) {
	ps, rests, err := e.Group.Unowned(ctx)
	return ps, rests, Explain(ctx, e.c, err)
}

func (e explained) Leave(ctx context.Context) error { return Explain(ctx, e.c, e.Group.Leave(ctx)) }
