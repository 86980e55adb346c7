// Package admin owns what is asked of Kafka apart from records and transactions: group offsets and members, topics, logs, fencing. It
// is franz-go's kadm, which has the admin calls that librdkafka lacks and honours a context.
//
// It promises that group offsets are read stable (KIP-447). It never consumes as a member of the group, nor produces.
package admin

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/security"
)

// Admin asks the brokers. It implements engine.Group.
type Admin struct {
	cfg *config.Config
	cl  *kgo.Client
	adm *kadm.Client
	log *zap.Logger
}

// New makes a client; it connects when it is first used.
func New(c *config.Config, log *zap.Logger) (*Admin, error) {
	cl, err := kgo.NewClient(Options(c)...)
	if err != nil {
		return nil, fmt.Errorf("make a kafka admin client: %w", err)
	}
	return &Admin{cfg: c, cl: cl, adm: kadm.NewClient(cl), log: log}, nil
}

// Options are the connection settings of every franz-go client.
func Options(c *config.Config) []kgo.Opt {
	return append(security.KafkaOptions(&c.Kafka),
		kgo.SeedBrokers(strings.Split(c.Kafka.Brokers, ",")...),
		kgo.ClientID("exactly-admin-"+c.Worker.ID),
		kgo.RequestTimeoutOverhead(5*time.Second),
		kgo.RetryTimeout(5*time.Second),
		kgo.MetadataMinAge(100*time.Millisecond),
	)
}

// Close ends the connections.
func (a *Admin) Close() { a.cl.Close() }

// Kadm is the client itself, for commands.
func (a *Admin) Kadm() *kadm.Client { return a.adm }

// Cluster is the cluster's id.
func (a *Admin) Cluster(ctx context.Context) (string, error) {
	m, err := a.adm.BrokerMetadata(ctx)
	if err != nil {
		return "", fmt.Errorf("ask kafka for its cluster id: %w", err)
	}
	return m.Cluster, nil
}

func (a *Admin) topics(ctx context.Context) (kadm.TopicDetails, error) {
	// Asked for rights as well, the client does not answer from what it remembers: a topic may have been made, or made anew, just now.
	ds, err := a.adm.ListTopics(kadm.WithAuthorizedOps(ctx), a.cfg.AllTopics()...)
	if err != nil {
		return nil, fmt.Errorf("ask kafka for the topics: %w", err)
	}
	for _, d := range ds {
		if d.Err != nil && !errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
			return nil, fmt.Errorf("ask kafka for topic %s: %w", d.Topic, d.Err)
		}
	}
	return ds, nil
}

// TopicIDs implements engine.Group: the ids of those of the topics that exist, by name.
func (a *Admin) TopicIDs(ctx context.Context) (map[string]string, error) {
	ds, err := a.topics(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, d := range ds {
		if d.Err == nil {
			out[d.Topic] = uuid.UUID(d.ID).String()
		}
	}
	return out, nil
}

// Partitions is the number of partitions of each topic that exists.
func (a *Admin) Partitions(ctx context.Context) (map[string]int, error) {
	ds, err := a.topics(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, d := range ds {
		if d.Err == nil {
			out[d.Topic] = len(d.Partitions)
		}
	}
	return out, nil
}

// MaxMessageBytes is the smallest max.message.bytes of the output topics, 0 where the brokers do not say.
func (a *Admin) MaxMessageBytes(ctx context.Context) (int, error) {
	least := 0
	cs, err := a.adm.DescribeTopicConfigs(ctx, a.cfg.Topics.Output, a.cfg.Topics.DLQ)
	if err != nil {
		return 0, fmt.Errorf("ask kafka how large messages may be: %w", err)
	}
	for _, c := range cs {
		if c.Err != nil {
			return 0, fmt.Errorf("ask kafka how large messages of %s may be: %w", c.Name, c.Err)
		}
		for _, kv := range c.Configs {
			if n, err := strconv.Atoi(kv.MaybeValue()); err == nil && kv.Key == "max.message.bytes" && (least == 0 || n < least) {
				least = n
			}
		}
	}
	return least, nil
}

// LogRange lists the first offsets still there, and the high watermarks, of every partition of the topics.
func (a *Admin) LogRange(ctx context.Context, topics ...string) (starts, ends kadm.ListedOffsets, err error) {
	starts, err = a.adm.ListStartOffsets(ctx, topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("ask kafka for the start of %s: %w", strings.Join(topics, ", "), err)
	}
	ends, err = a.adm.ListEndOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("ask kafka for the end of %s: %w", strings.Join(topics, ", "), err)
	}
	return starts, ends, nil
}

// StartOffsets implements engine.Group: where a first start begins, by the setting `start`.
func (a *Admin) StartOffsets(ctx context.Context) (map[int32]int64, error) {
	var l kadm.ListedOffsets
	var err error
	topic := a.cfg.Topics.Input
	switch a.cfg.Start {
	case "earliest":
		l, err = a.adm.ListStartOffsets(ctx, topic)
	case "latest":
		l, err = a.adm.ListCommittedOffsets(ctx, topic)
	default:
		t, perr := a.cfg.StartTime()
		if perr != nil {
			return nil, perr
		}
		l, err = a.adm.ListOffsetsAfterMilli(ctx, t.UnixMilli(), topic)
	}
	if err == nil {
		err = l.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ask kafka for the %s offsets of %s: %w", a.cfg.Start, topic, err)
	}
	out := map[int32]int64{}
	l.Each(func(o kadm.ListedOffset) { out[o.Partition] = o.Offset })
	return out, nil
}

// Leave implements engine.Group. librdkafka's static members send no LeaveGroup themselves.
func (a *Admin) Leave(ctx context.Context) error {
	res, err := a.adm.LeaveGroup(ctx, kadm.LeaveGroup(a.cfg.Group).Reason("stopped").InstanceIDs(a.cfg.Worker.ID))
	if err == nil {
		err = res.Error()
	}
	if errors.Is(err, kerr.UnknownMemberID) {
		return nil // already gone
	}
	if err != nil {
		return fmt.Errorf("leave group %s: %w", a.cfg.Group, err)
	}
	return nil
}
