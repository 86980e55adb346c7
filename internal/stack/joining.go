package stack

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// joining keeps members alive while they wait for the answer to a JoinGroup or a SyncGroup: a client sends no heartbeats then. Apache Kafka
// waits for it all the same; kfake lets its session run out, forgets it and never answers, or miscounts who is still to join. The client
// waits for max.poll.interval.ms then, five minutes. So heartbeats are sent for it, as long as it is owed the answer.
type joining struct {
	every  time.Duration // less than the shortest session there can be
	client *kgo.Client
	ctx    context.Context
	stop   context.CancelFunc
	under  sync.WaitGroup

	// Only used inside kfake's request loop.
	generations map[string]int32 // by member id: of its last SyncGroup
}

func newJoining(brokers []string, shortestSession time.Duration) (*joining, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		return nil, err
	}
	j := &joining{every: shortestSession / 4, client: cl, generations: map[string]int32{}}
	j.ctx, j.stop = context.WithCancel(context.Background())
	return j, nil
}

func (j *joining) close() {
	j.stop()
	j.under.Wait()
	j.client.Close()
}

func (j *joining) watch(c *kfake.Cluster) {
	c.ControlKey(int16(kmsg.SyncGroup), func(r kmsg.Request) (kmsg.Response, error, bool) {
		s := r.(*kmsg.SyncGroupRequest)
		j.generations[s.MemberID] = s.Generation
		j.keep(s.Group, s.MemberID, s.InstanceID, s.Generation, j.syncing)
		return nil, nil, false
	})
	c.ControlKey(int16(kmsg.JoinGroup), func(r kmsg.Request) (kmsg.Response, error, bool) {
		join := r.(*kmsg.JoinGroupRequest)
		if generation, synced := j.generations[join.MemberID]; synced { // else it has no session yet
			delete(j.generations, join.MemberID)
			j.keep(join.Group, join.MemberID, join.InstanceID, generation, rebalancing)
		}
		return nil, nil, false
	})
}

// keep sends heartbeats as long as the answers say that the member waits.
func (j *joining) keep(group, member string, instance *string, generation int32, waits func(*kmsg.HeartbeatRequest, error) bool) {
	if j.ctx.Err() != nil {
		return
	}
	h := kmsg.NewPtrHeartbeatRequest()
	h.Group, h.Generation, h.MemberID, h.InstanceID = group, generation, member, instance
	j.under.Go(func() {
		tick := time.NewTicker(j.every)
		defer tick.Stop()
		for {
			select {
			case <-j.ctx.Done():
				return
			case <-tick.C:
			}
			resp, err := h.RequestWith(j.ctx, j.client)
			if err != nil || !waits(h, kerr.ErrorForCode(resp.ErrorCode)) {
				return
			}
		}
	})
}

// rebalancing says whether who has sent a JoinGroup still waits: once the rebalance is over, its generation is an old one.
func rebalancing(_ *kmsg.HeartbeatRequest, answer error) bool {
	return answer == kerr.RebalanceInProgress
}

// syncing says whether who has sent a SyncGroup still waits, for what the leader sends with its own.
func (j *joining) syncing(h *kmsg.HeartbeatRequest, answer error) bool {
	if answer != nil {
		return false
	}
	gs, err := kadm.NewClient(j.client).DescribeGroups(j.ctx, h.Group)
	return err == nil && gs[h.Group].State == "CompletingRebalance"
}
