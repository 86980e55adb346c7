package provision

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
)

// outputMaxBytes is max.message.bytes of the output topics: what the client's message.max.bytes (16 MiB) lets through, and its batch's
// overhead. The broker's default would do for the input alone: a dead letter is the input and headers that name what was wrong, and what came in
// compressed goes out plain. One record that is refused would be published again for ever, and hold up all that is published with it.
const outputMaxBytes = 17 << 20

// topic is one that setup makes.
type topic struct {
	name        string
	partitions  int
	retention   time.Duration // 0: for ever
	maxBytes    int           // 0: the broker's default
	replication int16
}

func (t *topic) String() string {
	kept := fmt.Sprintf("kept %d days", t.retention/(24*time.Hour))
	if t.retention == 0 {
		kept = "kept for ever"
	}
	return fmt.Sprintf("%s: %d partitions, replication %d, %s", t.name, t.partitions, t.replication, kept)
}

// configs are the topic's, as the broker takes them.
func (t *topic) configs() map[string]*string {
	ms, size := fmt.Sprint(t.retention.Milliseconds()), fmt.Sprint(t.maxBytes)
	del, create := "delete", "CreateTime"
	configs := map[string]*string{"retention.ms": &ms, "cleanup.policy": &del, "message.timestamp.type": &create}
	if t.retention == 0 { // said in both ways: a broker's defaults may be others. Never compacted: that would delete evidence.
		all := "-1"
		ms = all
		configs["retention.bytes"] = &all
	}
	if t.maxBytes > 0 {
		configs["max.message.bytes"] = &size
	}
	if t.replication >= 3 { // a record that a producer was told of is then on two brokers, and one may be gone
		two := "2"
		configs["min.insync.replicas"] = &two
	}
	return configs
}

// allTopics are those there have to be, and that of replays: not one of the source's, but a source of its own once there is a replay.
func allTopics(c *config.Config) []string {
	all := c.AllTopics()
	if c.Topics.Replay != "" {
		all = append(all, c.Topics.Replay)
	}
	return all
}

// missingTopics are those that do not exist. A replication of 0 is three, or the number of brokers if that is less.
func missingTopics(ctx context.Context, c *config.Config, a *admin.Admin) ([]topic, error) {
	adm := a.Kadm()
	brokers, err := adm.ListBrokers(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask kafka for its brokers: %w", err)
	}
	rf := int16(c.Topics.Replication)
	if rf == 0 {
		rf = int16(min(3, len(brokers)))
	}
	// Those that are there are not created again to see that they are: it takes the right to create topics.
	there, err := adm.ListTopics(ctx, allTopics(c)...)
	if err != nil {
		return nil, fmt.Errorf("ask kafka for the topics: %w", err)
	}
	day := 24 * time.Hour
	var missing []topic
	for _, t := range []topic{
		{c.Topics.Input, c.Topics.Partitions, 7 * day, 0, rf}, {c.Topics.Output, c.Topics.Partitions, 7 * day, outputMaxBytes, rf},
		{c.Topics.DLQ, c.Topics.Partitions, 30 * day, outputMaxBytes, rf}, {c.Ledger.HeadsTopic, 1, 0, 0, rf},
		{c.Topics.Replay, min(c.Topics.Partitions, 3), 7 * day, 0, rf},
	} {
		if t.name != "" && !there.Has(t.name) {
			missing = append(missing, t)
		}
	}
	return missing, nil
}

// Topics makes the topics that do not exist yet, and returns what it made, a line each.
func Topics(ctx context.Context, c *config.Config, a *admin.Admin) ([]string, error) {
	missing, err := missingTopics(ctx, c, a)
	if err != nil {
		return nil, err
	}
	var did []string
	for i := range missing {
		t := &missing[i]
		res, err := a.Kadm().CreateTopic(ctx, int32(t.partitions), t.replication, t.configs(), t.name)
		if err == nil {
			err = res.Err
		}
		if errors.Is(err, kerr.TopicAlreadyExists) {
			continue
		}
		if err != nil {
			return did, fmt.Errorf("create topic %s: %w", t.name, err)
		}
		did = append(did, "created topic "+t.String())
	}
	return did, a.AwaitTopics(ctx, allTopics(c)...)
}
