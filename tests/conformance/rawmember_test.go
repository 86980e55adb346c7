package conformance

import (
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// rawMember is a member of the group spoken step by step on the wire, so that it can be late, silent, or say what no client would.
type rawMember struct {
	w        *world
	id       string
	instance string
	session  time.Duration

	generation int32
	leads      bool
	assigned   []int32
}

// joinRaw has a member join a group that has none, and take the partitions given.
func (w *world) joinRaw(instance string, session time.Duration, partitions ...int32) *rawMember {
	w.t.Helper()
	r := &rawMember{w: w, instance: instance, session: session}
	require.Equal(w.t, "ok", r.join())
	require.True(w.t, r.leads, "there is another member")
	require.Equal(w.t, "ok", r.sync(partitions...))
	return r
}

func (r *rawMember) instanceID() *string {
	if r.instance == "" {
		return nil
	}
	return &r.instance
}

// join is JoinGroup; it returns when the broker has heard of all members, or stopped waiting for them.
func (r *rawMember) join() string {
	r.w.t.Helper()
	md := kmsg.NewConsumerMemberMetadata()
	md.Version, md.Topics = 1, []string{r.w.cfg.Topics.Input}
	if len(r.assigned) > 0 {
		md.OwnedPartitions = append(md.OwnedPartitions, kmsg.ConsumerMemberMetadataOwnedPartition{Topic: r.w.cfg.Topics.Input, Partitions: r.assigned})
	}
	for range 2 {
		req := kmsg.NewPtrJoinGroupRequest()
		req.Group, req.MemberID, req.InstanceID, req.ProtocolType = r.w.cfg.Group, r.id, r.instanceID(), "consumer"
		req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = int32(r.session.Milliseconds()), 30_000
		p := kmsg.NewJoinGroupRequestProtocol()
		p.Name, p.Metadata = "cooperative-sticky", md.AppendTo(nil)
		req.Protocols = append(req.Protocols, p)
		res, err := req.RequestWith(r.w.soon(), r.w.raw)
		if err != nil {
			return name(err)
		}
		if c := code(res.ErrorCode); c != "ok" && c != "MEMBER_ID_REQUIRED" {
			return c
		}
		r.id = res.MemberID
		if res.ErrorCode == 0 {
			r.generation, r.leads = res.Generation, res.LeaderID == res.MemberID
			return "ok"
		}
	}
	return "MEMBER_ID_REQUIRED"
}

// sync is SyncGroup: a leader that is alone gives itself the partitions, a follower learns what it has been given.
func (r *rawMember) sync(own ...int32) string {
	r.w.t.Helper()
	req := kmsg.NewPtrSyncGroupRequest()
	proto, kind := "cooperative-sticky", "consumer"
	req.Group, req.MemberID, req.Generation, req.InstanceID, req.Protocol, req.ProtocolType = r.w.cfg.Group, r.id, r.generation, r.instanceID(), &proto, &kind
	if r.leads {
		a := kmsg.NewConsumerMemberAssignment()
		a.Topics = append(a.Topics, kmsg.ConsumerMemberAssignmentTopic{Topic: r.w.cfg.Topics.Input, Partitions: own})
		g := kmsg.NewSyncGroupRequestGroupAssignment()
		g.MemberID, g.MemberAssignment = r.id, a.AppendTo(nil)
		req.GroupAssignment = append(req.GroupAssignment, g)
	}
	res, err := req.RequestWith(r.w.soon(), r.w.raw)
	if err != nil {
		return name(err)
	}
	r.assigned = nil
	var a kmsg.ConsumerMemberAssignment
	if res.ErrorCode == 0 && a.ReadFrom(res.MemberAssignment) == nil {
		for _, t := range a.Topics {
			r.assigned = append(r.assigned, t.Partitions...)
		}
	}
	return code(res.ErrorCode)
}

func (r *rawMember) heartbeat() string {
	r.w.t.Helper()
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.Generation, req.InstanceID = r.w.cfg.Group, r.id, r.generation, r.instanceID()
	res, err := req.RequestWith(r.w.soon(), r.w.raw)
	if err != nil {
		return name(err)
	}
	return code(res.ErrorCode)
}
