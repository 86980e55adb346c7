package pipeline

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/retention"
	"github.com/exactly-pipeline/exactly/internal/start"
)

// pruneEvery is how often a worker looks for days past their retention.
const pruneEvery = time.Hour

// prune drops days past their retention, where the settings say that workers do. Several workers take turns: whoever comes while another is
// at it leaves it to that one. What goes wrong is said, and is no reason to stop capturing.
func prune(ctx context.Context, c *config.Config, build string, log *zap.Logger) {
	if !c.Retention.Prune {
		return
	}
	t := time.NewTicker(pruneEvery)
	defer t.Stop()
	for {
		r, err := retention.Prune(ctx, c, retention.Options{Wait: time.Minute, By: c.Worker.ID, Why: "retention.prune", Build: build, Log: log})
		if r != nil {
			for i := range r.Partitions {
				p := &r.Partitions[i]
				log.Info("prune", zap.String("time_partition", p.Name), zap.String("state", string(p.State)), zap.Int64("records", p.Records), zap.String("why", p.Why))
			}
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, retention.ErrRunning) {
			log.Error("prune", zap.Error(start.Explain(ctx, c, err)))
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}
