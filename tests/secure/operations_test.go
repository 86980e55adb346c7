//go:build e2e

package secure

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/acl"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/confluent"
	"github.com/exactly-pipeline/exactly/internal/franz"
	"github.com/exactly-pipeline/exactly/internal/security"
	"github.com/exactly-pipeline/exactly/outbox"
	"github.com/exactly-pipeline/exactly/txn"
)

// operations are what a worker does in Kafka, one by one and with each client: not its own look at its rights, which would find out
// before. Without a right some of them fails, and says so; so does the worker, at its start.
func (w *world) operations(missing int, rules []acl.Rule) {
	t := w.t
	w = w.with("worker.id", "tried")
	c := w.config()
	adm, err := admin.New(c, zap.NewNop())
	require.NoError(t, err)
	defer adm.Close()
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	type operation struct {
		name string
		do   func() error
	}
	ops := []operation{
		{"look", func() error { _, err := adm.Look(ctx, map[int32]int32{0: 0}); return err }},
		{"first start", func() error { _, err := adm.StartOffsets(ctx); return err }},
		{"topic ids", func() error { _, err := adm.TopicIDs(ctx); return err }},
		{"fence", func() error { _, err := adm.FenceAbsent(ctx, []string{"gone"}); return err }},
		{"partitions nobody has", func() error { _, _, err := adm.Unowned(ctx); return err }},
		{"scan", func() error { _, err := adm.ScanOutputs(ctx, []int32{0, 1, 2}); return err }},
	}
	for name, cl := range clients {
		ops = append(ops,
			operation{name + ": publish", func() error { return publish(ctx, cl.producer, c, c.Topics.Output) }},
			operation{name + ": publish a dead letter", func() error { return publish(ctx, cl.producer, c, c.Topics.DLQ) }},
			operation{name + ": publish a ledger head", func() error { return publish(ctx, cl.producer, c, c.Ledger.HeadsTopic) }},
			operation{name + ": consume", func() error { return consume(c, cl.source) }},
			operation{"leave", func() error { return adm.Leave(ctx) }},
		)
	}
	var failures []error
	for _, op := range ops {
		if err := op.do(); err != nil {
			failures = append(failures, fmt.Errorf("%s: %w", op.name, acl.Explain(ctx, c, acl.Worker, err)))
		}
	}
	if missing < 0 {
		require.Empty(t, failures)
		return
	}
	lacks := rules[missing].String()
	require.NotEmpty(t, failures, "nothing failed without %s", lacks)
	for _, err := range failures {
		t.Log(err)
		require.ErrorContains(t, err, "kafka does not allow it: we need ")
		require.ErrorContains(t, err, lacks)
	}
	p := w.start("run")
	p.says(lacks)
	p.stop()
}

// clients are the two there are.
var clients = map[string]struct {
	producer func(*config.Config) (txn.Producer, error)
	source   func(*config.Config, engine.Listener) (engine.Source, error)
}{
	"confluent": {
		func(c *config.Config) (txn.Producer, error) { return confluent.NewProducer(c, zap.NewNop()) },
		func(c *config.Config, l engine.Listener) (engine.Source, error) {
			return confluent.NewSource(c, l, zap.NewNop())
		},
	},
	"franz": {
		func(c *config.Config) (txn.Producer, error) { return franz.NewProducer(c, 0, zap.NewNop()) },
		func(c *config.Config, l engine.Listener) (engine.Source, error) {
			return franz.NewSource(c, l, zap.NewNop())
		},
	},
}

// publish commits one message.
func publish(ctx context.Context, make func(*config.Config) (txn.Producer, error), c *config.Config, topic string) error {
	p, err := make(c)
	if err != nil {
		return err
	}
	defer p.Close()
	if err = p.Init(ctx); err == nil {
		err = p.Begin()
	}
	if err == nil {
		err = p.Produce(ctx, &outbox.Message{Topic: topic, Value: []byte("x"), TimestampMs: time.Now().UnixMilli()})
	}
	if err == nil {
		err = p.Commit(ctx)
	}
	return err
}

// consume joins the group and reads a record.
func consume(c *config.Config, source func(*config.Config, engine.Listener) (engine.Source, error)) error {
	assigned := make(chan int32, 99)
	src, err := source(c, owned{assigned})
	if err != nil {
		return err
	}
	defer src.Close() //nolint:errcheck // nothing is owed
	deadline := time.Now().Add(20 * time.Second)
	for time.Now().Before(deadline) {
		records, err := src.Poll(nil, 10, 50*time.Millisecond)
		if security.KafkaCode(err) != 0 {
			return err
		}
		if len(records) > 0 {
			return nil
		}
		select {
		case p := <-assigned:
			if err := src.Seek(p, 0); err != nil {
				assigned <- p
			}
		default:
		}
	}
	return errors.New("no record")
}

type owned struct{ assigned chan int32 }

func (o owned) Assigned(ps []int32, _ engine.Stamp) {
	for _, p := range ps {
		o.assigned <- p
	}
}
func (o owned) Revoked([]int32, engine.Stamp) {}
func (o owned) Lost([]int32, engine.Stamp)    {}
