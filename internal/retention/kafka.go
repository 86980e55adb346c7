package retention

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/wait"
	"github.com/exactly-pipeline/exactly/ledger"
)

// source is one row of sources: the tables hold those of all of them.
type source struct {
	id                             int16
	topic, topicID, cluster, group string
	retired                        bool // its topic was recreated: nothing of it will ever be published
	partitions                     []int32
}

func (s source) stream() ledger.Stream {
	return ledger.Stream{SourceID: s.id, Topic: s.topic, TopicID: s.topicID, Group: s.group}
}

func readSources(ctx context.Context, conn *pgx.Conn) (map[int16]source, error) {
	rows, err := conn.Query(ctx, `SELECT s.source_id, s.topic, s.topic_id::text, s.cluster_id, s.group_id, s.retired_at IS NOT NULL,
		coalesce(array_agg(p.source_partition ORDER BY p.source_partition) FILTER (WHERE p.source_id IS NOT NULL), '{}')
		FROM sources s LEFT JOIN partition_offsets p USING (source_id) GROUP BY s.source_id`)
	if err != nil {
		return nil, fmt.Errorf("read sources: %w", err)
	}
	out := map[int16]source{}
	var s source
	_, err = pgx.ForEachRow(rows, []any{&s.id, &s.topic, &s.topicID, &s.cluster, &s.group, &s.retired, &s.partitions}, func() error {
		out[s.id] = s
		s.partitions = nil
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read sources: %w", err)
	}
	return out, nil
}

// kafka answers how far each source is published: once a prune, which only makes it stricter.
type kafka struct {
	cfg  *config.Config
	log  *zap.Logger
	asks map[int16]*answer
}

type answer struct {
	group map[int32]admin.GroupOffset
	why   string // nothing can be said
}

func newKafka(c *config.Config, log *zap.Logger) *kafka {
	return &kafka{cfg: c, log: log, asks: map[int16]*answer{}}
}

// published is the stable group offset of a source's partition, or why nobody knows it.
func (k *kafka) published(ctx context.Context, s source, partition int32) (at int64, why string, err error) {
	a := k.asks[s.id]
	if a == nil {
		if a, err = k.ask(ctx, s); err != nil {
			return 0, "", err
		}
		k.asks[s.id] = a
	}
	who := fmt.Sprintf("source %d (%s, group %s), partition %d", s.id, s.topic, s.group, partition)
	g, ok := a.group[partition]
	switch {
	case a.why != "":
		return 0, a.why, nil
	case !ok:
		return 0, who + " has no stored offset, and yet rows: run exactly audit", nil
	case g.Pending:
		return 0, who + ": the group offset stays pending in an open transaction: exactly txn list", nil
	case !g.Has:
		return 0, who + " has no group offset: exactly offsets restore", nil
	case !g.Ours:
		return 0, fmt.Sprintf("%s: the group offset %d was set by somebody else: exactly offsets restore", who, g.Offset), nil
	}
	return g.Offset, "", nil
}

// ask reads the group offsets of a source, once its identity is certain. Another group's may be out of this user's sight: then all of it stays.
func (k *kafka) ask(ctx context.Context, s source) (*answer, error) {
	c := *k.cfg
	c.Topics.Input, c.Group, c.Worker.ID = s.topic, s.group, "prune:command"
	ours := s.topic == k.cfg.Topics.Input && s.group == k.cfg.Group
	adm, err := admin.New(&c, k.log)
	if err != nil {
		return nil, err
	}
	defer adm.Close()
	a := &answer{}
	who := fmt.Sprintf("source %d (%s, group %s)", s.id, s.topic, s.group)
	cluster, err := adm.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	ids, err := adm.TopicIDs(ctx)
	switch {
	case err == nil && (cluster != s.cluster || ids[s.topic] != s.topicID):
		a.why = who + ": cluster or topic are not those it was set up with: its group offsets can't be asked for here"
		return a, nil
	case err == nil:
		a.group, err = stable(ctx, adm, s.partitions, c.Kafka.StableTimeout)
	}
	if err != nil && !ours {
		a.why, err = fmt.Sprintf("%s: its group offsets can't be read: %v", who, err), nil
	}
	return a, err
}

// stable asks until no open transaction is about to change a group offset, or the time is over.
func stable(ctx context.Context, adm *admin.Admin, partitions []int32, timeout time.Duration) (map[int32]admin.GroupOffset, error) {
	until := time.Now().Add(max(timeout, 2*time.Second))
	if len(partitions) == 0 {
		return nil, nil
	}
	out := map[int32]admin.GroupOffset{}
	for {
		now, err := adm.GroupOffsets(ctx, partitions)
		if err != nil {
			return nil, err
		}
		pending := partitions[:0:0]
		for p, g := range now {
			if out[p] = g; g.Pending {
				pending = append(pending, p)
			}
		}
		if partitions = pending; len(partitions) == 0 || time.Now().After(until) {
			return out, nil
		}
		if err := wait.For(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}
