package apache

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Leader is the broker that leads a partition now, as the cluster says.
func (c *Cluster) Leader(ctx context.Context, topic string, partition int32) (*Broker, error) {
	m, err := c.adm.Metadata(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("ask for the leader of %s/%d: %w", topic, partition, err)
	}
	t := m.Topics[topic]
	p, ok := t.Partitions[partition]
	if err := t.Err; err != nil || !ok {
		return nil, fmt.Errorf("ask for the leader of %s/%d: there is none (%v)", topic, partition, err)
	}
	return c.known(p.Leader, p.Err, fmt.Sprintf("leader of %s/%d", topic, partition))
}

// GroupCoordinator is the broker that coordinates a consumer group now.
func (c *Cluster) GroupCoordinator(ctx context.Context, group string) (*Broker, error) {
	return c.coordinator(c.adm.FindGroupCoordinators(ctx, group), group, "coordinator of group "+group)
}

// TxnCoordinator is the broker that coordinates the transactions of a transactional id now.
func (c *Cluster) TxnCoordinator(ctx context.Context, transactionalID string) (*Broker, error) {
	return c.coordinator(c.adm.FindTxnCoordinators(ctx, transactionalID), transactionalID, "coordinator of transactional id "+transactionalID)
}

func (c *Cluster) coordinator(found kadm.FindCoordinatorResponses, name, what string) (*Broker, error) {
	return c.known(found[name].NodeID, found[name].Err, what)
}

func (c *Cluster) known(node int32, err error, what string) (*Broker, error) {
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if node < 0 || int(node) >= len(c.brokers) {
		return nil, fmt.Errorf("%s: there is none (%d)", what, node)
	}
	return c.brokers[node], nil
}
