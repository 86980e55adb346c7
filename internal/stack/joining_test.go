package stack

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// member is one of a group, a request at a time.
type member struct {
	t        *testing.T
	cl       *kgo.Client
	instance string
	id       string
}

func (m *member) join(ctx context.Context) *kmsg.JoinGroupResponse {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Group, r.MemberID, r.InstanceID, r.ProtocolType = "g", m.id, &m.instance, "consumer"
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = 2000, 60_000
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name = "range"
	r.Protocols = append(r.Protocols, p)
	resp, err := r.RequestWith(ctx, m.cl)
	if err != nil {
		resp = kmsg.NewPtrJoinGroupResponse() // of no generation
	}
	assert.NoError(m.t, err, "member %s", m.instance)
	assert.NoError(m.t, kerr.ErrorForCode(resp.ErrorCode), "member %s", m.instance)
	m.id = resp.MemberID
	return resp
}

// sync returns the error the group answers with.
func (m *member) sync(ctx context.Context, generation int32) error {
	r := kmsg.NewPtrSyncGroupRequest()
	r.Group, r.Generation, r.MemberID, r.InstanceID = "g", generation, m.id, &m.instance
	resp, err := r.RequestWith(ctx, m.cl)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(resp.ErrorCode)
}

func (m *member) heartbeat(ctx context.Context, generation int32) int16 {
	r := kmsg.NewPtrHeartbeatRequest()
	r.Group, r.Generation, r.MemberID, r.InstanceID = "g", generation, m.id, &m.instance
	resp, err := r.RequestWith(ctx, m.cl)
	require.NoError(m.t, err)
	return resp.ErrorCode
}

// two returns the members of a group of two, who have joined and not yet synced, the leader first.
func two(t *testing.T, ctx context.Context, b *broker) (leader, follower *member, generation int32) {
	t.Helper()
	x, y := newMember(t, b, "x"), newMember(t, b, "y")
	first := x.join(ctx)
	require.NoError(t, x.sync(ctx, first.Generation))
	joined := make(chan *kmsg.JoinGroupResponse)
	go func() { joined <- y.join(ctx) }()
	x.toldToJoin(ctx, first.Generation)
	second := x.join(ctx)
	require.Equal(t, second.Generation, (<-joined).Generation)
	if second.LeaderID == y.id {
		x, y = y, x
	}
	return x, y, second.Generation
}

func newMember(t *testing.T, b *broker, instance string) *member {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.brokers()))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return &member{t: t, cl: cl, instance: instance}
}

func (m *member) toldToJoin(ctx context.Context, generation int32) {
	m.t.Helper()
	require.Eventually(m.t, func() bool { return m.heartbeat(ctx, generation) == kerr.RebalanceInProgress.Code }, 10*time.Second, 10*time.Millisecond)
}

// A member waits in JoinGroup for another one that has died: it is answered once the dead one's session is over, though its own would have
// run out before.
func TestJoinOutlastsTheSession(t *testing.T) {
	b := startBroker(t, t.TempDir(), &state{ClusterID: "c"})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	waits, dies, generation := two(t, ctx, b)
	require.NoError(t, waits.sync(ctx, generation))
	require.NoError(t, dies.sync(ctx, generation))

	joined := make(chan int32, 2)
	third := newMember(t, b, "third")
	go func() { joined <- third.join(ctx).Generation }()
	waits.toldToJoin(ctx, generation)
	go func() { joined <- waits.join(ctx).Generation }()
	for range 4 { // dies lives on, and never joins: its session ends a second after that of the one who waits
		time.Sleep(250 * time.Millisecond)
		require.Equal(t, kerr.RebalanceInProgress.Code, dies.heartbeat(ctx, generation))
	}
	for range 2 {
		require.Equal(t, generation+1, <-joined)
	}
}

// A member waits in SyncGroup for a leader that is slow, or has died: it is answered by what the leader sends at last, or told to join again.
func TestSyncOutlastsTheSession(t *testing.T) {
	for _, dies := range []bool{false, true} {
		t.Run(map[bool]string{false: "slow", true: "dead"}[dies], func(t *testing.T) {
			b := startBroker(t, t.TempDir(), &state{ClusterID: "c"})
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			leader, follower, generation := two(t, ctx, b)
			synced := make(chan error, 1)
			go func() { synced <- follower.sync(ctx, generation) }()
			for range 12 {
				time.Sleep(250 * time.Millisecond)
				require.Zero(t, leader.heartbeat(ctx, generation))
			}
			if dies {
				require.ErrorIs(t, <-synced, kerr.RebalanceInProgress)
				require.Equal(t, generation+1, follower.join(ctx).Generation)
				return
			}
			require.NoError(t, leader.sync(ctx, generation))
			require.NoError(t, <-synced)
		})
	}
}
