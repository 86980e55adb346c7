package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/txn"
)

// Look implements engine.Group. Group offsets are asked for stable until the stable timeout; partitions that stay unstable are left out.
func (a *Admin) Look(ctx context.Context, leaderEpochs map[int32]int32) (map[int32]engine.Look, error) {
	topic := a.cfg.Topics.Input
	offsets := map[int32]kadm.Offset{}
	missing := map[int32]bool{}
	for p := range leaderEpochs {
		missing[p] = true
	}
	until := time.Now().Add(a.cfg.Kafka.StableTimeout)
	for {
		all, unstable, err := a.Offsets(ctx)
		if err != nil {
			return nil, err
		}
		for p := range missing {
			if !unstable[p] && !unstable[-1] {
				delete(missing, p)
				if o, ok := all[p]; ok {
					offsets[p] = o
				}
			}
		}
		if len(missing) == 0 || time.Now().After(until) {
			break
		}
		t := time.NewTimer(10 * time.Millisecond)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, ctx.Err()
		case <-t.C:
		}
	}
	starts, err := a.adm.ListStartOffsets(ctx, topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ask kafka for the start of %s: %w", topic, err)
	}
	ends, err := a.adm.ListEndOffsets(ctx, topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ask kafka for the end of %s: %w", topic, err)
	}
	epochEnds, err := a.epochEnds(ctx, leaderEpochs)
	if err != nil {
		return nil, err
	}
	out := map[int32]engine.Look{}
	for p := range leaderEpochs {
		if missing[p] {
			continue
		}
		l := engine.Look{EpochEnd: -1}
		if o, ok := offsets[p]; ok && o.At >= 0 {
			l.HasOffset, l.Offset, l.Ours = true, o.At, txn.IsOurs(o.Metadata)
		}
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

// Offsets reads the group's committed offsets of the input topic, stable. unstable names the partitions whose offset is pending in an
// open transaction, -1 standing for all of them: some brokers say it of the group as a whole.
func (a *Admin) Offsets(ctx context.Context) (offsets map[int32]kadm.Offset, unstable map[int32]bool, err error) {
	offsets, unstable = map[int32]kadm.Offset{}, map[int32]bool{}
	c, cancel := context.WithTimeout(kadm.RequireStable(ctx), a.cfg.Kafka.StableTimeout)
	defer cancel()
	res, err := a.adm.FetchOffsets(c, a.cfg.Group)
	switch {
	case errors.Is(err, kerr.GroupIDNotFound):
		return offsets, unstable, nil
	case errors.Is(err, kerr.UnstableOffsetCommit), err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
		unstable[-1] = true
		return offsets, unstable, nil
	case err != nil:
		return nil, nil, fmt.Errorf("read the offsets of group %s: %w", a.cfg.Group, err)
	}
	for p, o := range res[a.cfg.Topics.Input] {
		switch {
		case errors.Is(o.Err, kerr.UnstableOffsetCommit):
			unstable[p] = true
		case o.Err != nil:
			return nil, nil, fmt.Errorf("read the offset of group %s, partition %d: %w", a.cfg.Group, p, o.Err)
		default:
			offsets[p] = o.Offset
		}
	}
	return offsets, unstable, nil
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
