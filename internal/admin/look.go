package admin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

// Look implements engine.Group. Group offsets are asked for stable until the stable timeout; partitions that stay unstable are left out.
func (a *Admin) Look(ctx context.Context, leaderEpochs map[int32]int32) (map[int32]engine.Look, error) {
	topic := a.cfg.Topics.Input
	offsets := map[int32]GroupOffset{}
	missing := slices.Sorted(maps.Keys(leaderEpochs))
	until := time.Now().Add(a.cfg.Kafka.StableTimeout)
	for {
		now, err := a.GroupOffsets(ctx, missing)
		if err != nil {
			return nil, err
		}
		missing = slices.DeleteFunc(missing, func(p int32) bool {
			if now[p].Pending {
				return false
			}
			offsets[p] = now[p]
			return true
		})
		if len(missing) == 0 || time.Now().After(until) {
			break
		}
		if wait.For(ctx, 10*time.Millisecond) != nil {
			return nil, ctx.Err()
		}
	}
	starts, ends, err := a.LogRange(ctx, topic)
	if err != nil {
		return nil, err
	}
	epochEnds, err := a.epochEnds(ctx, leaderEpochs)
	if err != nil {
		return nil, err
	}
	out := map[int32]engine.Look{}
	for p, o := range offsets {
		l := engine.Look{HasOffset: o.Has, Offset: o.Offset, Ours: o.Ours, EpochEnd: -1}
		s, ok := starts.Lookup(topic, p)
		e, ok2 := ends.Lookup(topic, p)
		if !ok || !ok2 {
			return nil, fmt.Errorf("topic %s has no partition %d any more", topic, p)
		}
		l.LogStart, l.LogEnd = s.Offset, e.Offset
		if end, ok := epochEnds[p]; ok {
			l.EpochEnd = end
		}
		out[p] = l
	}
	return out, nil
}

// epochEnds asks where the stored leader epochs ended (KIP-320). Brokers that do not know an epoch are no proof of anything.
func (a *Admin) epochEnds(ctx context.Context, leaderEpochs map[int32]int32) (map[int32]int64, error) {
	topic := a.cfg.Topics.Input
	var req kadm.OffsetForLeaderEpochRequest
	for p, e := range leaderEpochs {
		if e >= 0 {
			req.Add(topic, p, e)
		}
	}
	out := map[int32]int64{}
	if len(req) == 0 {
		return out, nil
	}
	res, err := a.adm.OffsetForLeaderEpoch(ctx, req)
	if err != nil {
		return nil, fmt.Errorf("ask kafka for the leader epochs of %s: %w", topic, err)
	}
	for p, o := range res[topic] {
		if o.Err != nil {
			return nil, fmt.Errorf("ask kafka for the leader epoch of %s/%d: %w", topic, p, o.Err)
		}
		if o.LeaderEpoch >= 0 && o.EndOffset >= 0 {
			out[p] = o.EndOffset
		}
	}
	return out, nil
}
