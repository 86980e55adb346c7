package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/wait"
)

// topicsTimeout is how long topics just made may take to be known everywhere.
const topicsTimeout = 30 * time.Second

// AwaitTopics waits until every broker that answers knows the topics, and leaders of all their partitions. A broker says that a topic was
// created as soon as its controller has decided so; the brokers learn it a little later, each for itself, and until then the topic
// does not exist, for whoever asks that one (KRaft).
func (a *Admin) AwaitTopics(ctx context.Context, topics ...string) error {
	ctx, cancel := context.WithTimeout(ctx, topicsTimeout)
	defer cancel()
	brokers, err := a.adm.ListBrokers(ctx)
	if err != nil {
		return fmt.Errorf("ask kafka for its brokers: %w", err)
	}
	for _, b := range brokers {
		var last error // what the broker said
		for {
			err := a.knows(ctx, b.NodeID, topics)
			if err == nil {
				break
			}
			var ke *kerr.Error
			if !errors.As(err, &ke) && ctx.Err() == nil { // it is down: when it is back it learns first, then serves
				a.log.Warn("broker does not answer", zap.Int32("broker", b.NodeID), zap.Error(err))
				break
			}
			if ke != nil || last == nil {
				last = err
			}
			if wait.For(ctx, 20*time.Millisecond) != nil {
				return fmt.Errorf("wait for topics on broker %d: %w", b.NodeID, last)
			}
		}
	}
	return a.forget(ctx, topics)
}

// forget waits until our own client knows the topics: it keeps what it was told, also that there is no such topic, for MetadataMinAge.
func (a *Admin) forget(ctx context.Context, topics []string) error {
	for {
		ds, err := a.adm.ListTopics(ctx, topics...)
		if err == nil {
			err = ds.Error()
		}
		if !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return err
		}
		if wait.For(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("wait for topics: %w", err)
		}
	}
}

// knows asks one broker. A topic or leader it does not know is a *kerr.Error.
func (a *Admin) knows(ctx context.Context, broker int32, topics []string) error {
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, t)
	}
	res, err := a.cl.Broker(int(broker)).Request(ctx, req)
	if err != nil {
		return err
	}
	for _, t := range res.(*kmsg.MetadataResponse).Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			return fmt.Errorf("topic %s: %w", *t.Topic, err)
		}
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return fmt.Errorf("%s/%d: %w", *t.Topic, p.Partition, err)
			}
		}
	}
	return nil
}
