package pipeline

import (
	"context"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/acl"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/security"
)

// explain says of a connection that is refused, or a right that is missing, what to look at. Any other error stays as it is.
func explain(ctx context.Context, c *config.Config, err error) error {
	return acl.Explain(ctx, c, acl.Worker, security.Explain(c, err))
}

// explained is a Group whose refusals are explained.
type explained struct {
	engine.Group
	c *config.Config
}

func (e explained) Look(ctx context.Context, leaderEpochs map[int32]int32) (map[int32]engine.Look, error) {
	l, err := e.Group.Look(ctx, leaderEpochs)
	return l, explain(ctx, e.c, err)
}

func (e explained) FenceAbsent(ctx context.Context, workers []string) ([]string, error) {
	f, err := e.Group.FenceAbsent(ctx, workers)
	return f, explain(ctx, e.c, err)
}

func (e explained) ScanOutputs(ctx context.Context, partitions []int32) (map[int32]int64, error) {
	o, err := e.Group.ScanOutputs(ctx, partitions)
	return o, explain(ctx, e.c, err)
}

func (e explained) StartOffsets(ctx context.Context) (map[int32]int64, error) {
	o, err := e.Group.StartOffsets(ctx)
	return o, explain(ctx, e.c, err)
}

func (e explained) TopicIDs(ctx context.Context) (map[string]string, error) {
	ids, err := e.Group.TopicIDs(ctx)
	return ids, explain(ctx, e.c, err)
}

func (e explained) Leave(ctx context.Context) error { return explain(ctx, e.c, e.Group.Leave(ctx)) }
