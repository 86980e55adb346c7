package transactions

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A producer dies in the middle of a transaction: it is listed with what it keeps readers from, and aborted; the stable end moves on.
func TestLeftOpen(t *testing.T) {
	b := setup(t)
	plain := b.client()
	b.produce(plain, b.cfg.Topics.Output, 0, 1)
	dead := b.open(b.cfg.TransactionalID("dead"), 1, 1)
	pid, epoch, err := dead.ProducerID(b.ctx)
	require.NoError(t, err)
	dead.Close()
	b.produce(plain, b.cfg.Topics.Output, 1, 1, 1)

	ts := b.list(Options{})
	require.Len(t, ts, 1)
	is := ts[0]
	require.Equal(t, []any{b.cfg.TransactionalID("dead"), "Ongoing", pid, epoch, true, false, int64(60_000)},
		[]any{is.ID, is.State, is.ProducerID, is.ProducerEpoch, is.Ours, is.Overdue, *is.TimeoutMs})
	require.Less(t, *is.AgeMs, int64(60_000))
	require.WithinDuration(t, time.Now(), *is.StartedAt, time.Minute)
	require.Len(t, is.Partitions, 1)
	p := is.Partitions[0]
	require.Equal(t, []any{b.cfg.Topics.Output, int32(1), int64(1), int64(1), int64(6), int64(5), true},
		[]any{p.Topic, p.Partition, *p.First, *p.StableEnd, *p.End, *p.Held, p.Holds})

	plan, err := b.Plan(b.ctx, Target{ID: is.ID})
	require.NoError(t, err)
	require.Contains(t, plan.Says[len(plan.Says)-1], "worker dead is no member of the group")
	done, err := b.Abort(b.ctx, plan)
	require.NoError(t, err)
	require.True(t, done.Aborted)
	stable, end := b.ends(1)
	require.Equal(t, int64(7), end, "no marker was written")
	require.Equal(t, end, stable)
	require.Empty(t, b.list(Options{}))
	_, err = b.Plan(b.ctx, Target{ID: is.ID})
	require.ErrorAs(t, err, new(*RefusedError))
	require.ErrorContains(t, err, "has no open transaction")
}

// Two in one partition: the one in front holds the stable end, the other does not, and takes it over when the first is gone.
func TestOneBehindAnother(t *testing.T) {
	b := setup(t)
	b.open(b.cfg.TransactionalID("first"), 0)
	b.open(b.cfg.TransactionalID("second"), 0, 1)
	by := func() map[string]Transaction {
		out := map[string]Transaction{}
		for _, x := range b.list(Options{}) {
			out[x.ID] = x
		}
		return out
	}
	is := by()
	require.True(t, is[b.cfg.TransactionalID("first")].Partitions[0].Holds)
	second := is[b.cfg.TransactionalID("second")]
	require.Len(t, second.Partitions, 2)
	require.False(t, second.Partitions[0].Holds)
	require.True(t, second.Partitions[1].Holds)
	plan, err := b.Plan(b.ctx, Target{ID: b.cfg.TransactionalID("first")})
	require.NoError(t, err)
	_, err = b.Abort(b.ctx, plan)
	require.NoError(t, err)
	require.True(t, by()[b.cfg.TransactionalID("second")].Partitions[0].Holds)
	stable, end := b.ends(0)
	require.Less(t, stable, end)
}

// A worker that lives is fenced by an abort of its transaction: its own commit fails, and the plan says so before.
func TestAliveIsFenced(t *testing.T) {
	b := setup(t)
	member := b.client(kgo.ConsumerGroup(b.cfg.Group), kgo.InstanceID("alive"), kgo.ConsumeTopics(b.cfg.Topics.Input))
	require.Eventually(t, func() bool {
		moment, cancel := context.WithTimeout(b.ctx, 10*time.Millisecond)
		defer cancel()
		member.PollRecords(moment, 1) // joins in the background; nothing is there to be polled
		m, err := b.a.Members(b.ctx)
		require.NoError(t, err)
		return m["alive"] != ""
	}, 30*time.Second, 50*time.Millisecond)
	cl := b.open(b.cfg.TransactionalID("alive"), 0)
	plan, err := b.Plan(b.ctx, Target{ID: b.cfg.TransactionalID("alive")})
	require.NoError(t, err)
	require.Contains(t, plan.Says[len(plan.Says)-1], "worker alive is a member of the group now")
	_, err = b.Abort(b.ctx, plan)
	require.NoError(t, err)
	require.Error(t, cl.EndTransaction(b.ctx, kgo.TryCommit))
}

// What was looked at ended, and another began: it is left alone.
func TestAnotherIsLeftAlone(t *testing.T) {
	b := setup(t)
	id := b.cfg.TransactionalID("w")
	cl := b.open(id, 0)
	plan, err := b.Plan(b.ctx, Target{ID: id})
	require.NoError(t, err)
	require.NoError(t, cl.EndTransaction(b.ctx, kgo.TryCommit))
	_, err = b.Abort(b.ctx, plan)
	require.ErrorAs(t, err, new(*RefusedError)) // over, or about to be
	require.NoError(t, cl.BeginTransaction())
	b.produce(cl, b.cfg.Topics.Output, 0)
	_, err = b.Abort(b.ctx, plan)
	require.ErrorAs(t, err, new(*RefusedError))
	require.ErrorContains(t, err, "another is open now")
	require.NoError(t, cl.EndTransaction(b.ctx, kgo.TryCommit))
}

// Others' transactions are shown where they are in our topics, all of them when asked for; and the age can be bounded.
func TestWhichAreListed(t *testing.T) {
	b := setup(t)
	elsewhere := b.cfg.Group + ".elsewhere"
	_, err := b.adm.CreateTopic(b.ctx, 1, 1, nil, elsewhere)
	require.NoError(t, err)
	upstream, other := b.client(kgo.TransactionalID("upstream-"+b.cfg.Group)), b.client(kgo.TransactionalID("other-"+b.cfg.Group))
	for topic, cl := range map[string]*kgo.Client{b.cfg.Topics.Input: upstream, elsewhere: other} {
		require.NoError(t, cl.BeginTransaction())
		b.produce(cl, topic, 0)
	}
	ts := b.list(Options{})
	require.Len(t, ts, 1)
	require.Equal(t, "upstream-"+b.cfg.Group, ts[0].ID)
	require.False(t, ts[0].Ours)
	require.True(t, ts[0].Partitions[0].Holds)
	plan, err := b.Plan(b.ctx, Target{ID: ts[0].ID})
	require.NoError(t, err)
	require.Contains(t, plan.Says[len(plan.Says)-1], "this is no transaction of group "+b.cfg.Group)

	ids := map[string]bool{}
	for _, x := range b.list(Options{All: true}) {
		ids[x.ID] = true
	}
	require.True(t, ids["upstream-"+b.cfg.Group] && ids["other-"+b.cfg.Group], "%v", ids)
	require.Empty(t, b.list(Options{OlderThan: time.Hour}))

	b.now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	ts = b.list(Options{OlderThan: time.Hour})
	require.Len(t, ts, 1)
	require.True(t, ts[0].Overdue, "the coordinator should have ended it long ago")
	require.Nil(t, ts[0].AheadMs)

	b.now = func() time.Time { return time.Now().Add(-time.Hour) } // as after the coordinator's clock was an hour ahead
	ts = b.list(Options{})
	require.Len(t, ts, 1)
	require.False(t, ts[0].Overdue)
	require.InDelta(t, time.Hour.Milliseconds(), *ts[0].AheadMs, float64(time.Minute.Milliseconds()))
}

// A transaction that has staged a group offset, and no record yet.
func TestStagedOffsets(t *testing.T) {
	b := setup(t)
	id := b.cfg.TransactionalID("w")
	cl := b.open(id)
	pid, epoch, err := cl.ProducerID(b.ctx)
	require.NoError(t, err)
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = id, pid, epoch, b.cfg.Group
	require.Eventually(t, func() bool {
		res, err := add.RequestWith(b.ctx, cl)
		require.NoError(t, err)
		return res.ErrorCode == 0
	}, 30*time.Second, 50*time.Millisecond)
	ts := b.list(Options{})
	require.Len(t, ts, 1)
	if embedded() { // kfake does not count the group's partition among the transaction's
		require.Empty(t, ts[0].Partitions)
	} else {
		require.Equal(t, "__consumer_offsets", ts[0].Partitions[0].Topic)
	}
	plan, err := b.Plan(b.ctx, Target{ID: id})
	require.NoError(t, err)
	_, err = b.Abort(b.ctx, plan)
	require.NoError(t, err)
	require.Empty(t, b.list(Options{}))
}

// A transaction that its partition has open and no coordinator knows of is found, and ended by a marker.
func TestHanging(t *testing.T) {
	var b *bundle
	var id string
	if embedded() {
		id = "hanging"
		b = setupAt(t, forgetful(t))
		b.open(id, 0)
	} else {
		b = setup(t)
		id = "hanging-" + b.cfg.Group
		b.hang(id)
	}
	plain := b.client()
	b.produce(plain, b.cfg.Topics.Output, 0, 0)
	ts := b.list(Options{OlderThan: time.Hour}) // it has no age
	require.Len(t, ts, 1)
	is := ts[0]
	require.Equal(t, Hanging, is.State)
	require.Nil(t, is.AgeMs)
	require.Len(t, is.Partitions, 1)
	require.Equal(t, []any{int64(0), int64(3), true}, []any{*is.Partitions[0].First, *is.Partitions[0].Held, is.Partitions[0].Holds})

	_, err := b.Plan(b.ctx, Target{Topic: b.cfg.Topics.Output, Partition: 1, ProducerID: -1})
	require.ErrorContains(t, err, "no such hanging transaction")
	_, err = b.Plan(b.ctx, Target{Topic: b.cfg.Topics.Output, Partition: 0, ProducerID: is.ProducerID + 1})
	require.ErrorContains(t, err, "no such hanging transaction")
	plan, err := b.Plan(b.ctx, Target{Topic: b.cfg.Topics.Output, Partition: 0, ProducerID: -1})
	require.NoError(t, err)
	require.Equal(t, is.ProducerID, plan.Target.ProducerID)
	done, err := b.Abort(b.ctx, plan)
	require.NoError(t, err)
	require.True(t, done.Aborted)
	stable, end := b.ends(0)
	require.Equal(t, []int64{4, 4}, []int64{stable, end})
	if !embedded() { // kfake's list of producers is the coordinator's
		require.Empty(t, b.list(Options{}))
	}
}

// An open transaction that its coordinator knows is not taken for a hanging one.
func TestKnownIsNotHanging(t *testing.T) {
	b := setup(t)
	b.open(b.cfg.TransactionalID("w"), 0)
	_, err := b.Plan(b.ctx, Target{Topic: b.cfg.Topics.Output, Partition: 0, ProducerID: -1})
	require.ErrorAs(t, err, new(*RefusedError))
	require.ErrorContains(t, err, "abort it by its transactional id, "+b.cfg.TransactionalID("w"))
	_, err = b.Plan(b.ctx, Target{ID: "nobody-has-this"})
	require.ErrorAs(t, err, new(*RefusedError))
}

// One that ends between the two looks at the partitions does not hang.
func TestEndsMeanwhile(t *testing.T) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(k.Close)
	b := setupAt(t, k.ListenAddrs()[0])
	cl := b.open(b.cfg.TransactionalID("w"), 0)
	ended := make(chan error, 1)
	k.ControlKey(int16(kmsg.ListTransactions), func(req kmsg.Request) (kmsg.Response, error, bool) { // the partitions have been asked
		go func() { ended <- cl.EndTransaction(b.ctx, kgo.TryCommit) }()
		k.SleepControl(func() { require.NoError(t, <-ended) })
		return nil, nil, false
	})
	require.Empty(t, b.list(Options{}))
}

// A decision that is being carried out is nobody's to change.
func TestDecidedIsRefused(t *testing.T) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(k.Close)
	b := setupAt(t, k.ListenAddrs()[0])
	id := b.cfg.TransactionalID("w")
	b.open(id, 0)
	k.ControlKey(int16(kmsg.DescribeTransactions), func(req kmsg.Request) (kmsg.Response, error, bool) {
		res := req.ResponseKind().(*kmsg.DescribeTransactionsResponse)
		s := kmsg.NewDescribeTransactionsResponseTransactionState()
		s.TransactionalID, s.State, s.StartTimestamp = id, "PrepareCommit", time.Now().UnixMilli()
		res.TransactionStates = append(res.TransactionStates, s)
		return res, nil, true
	})
	_, err = b.Plan(b.ctx, Target{ID: id})
	require.ErrorAs(t, err, new(*RefusedError))
	require.ErrorContains(t, err, "is decided")
}

// A topic that may not be looked at is named, and hides nothing of the others.
func TestOneTopicIsForbidden(t *testing.T) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(k.Close)
	b := setupAt(t, k.ListenAddrs()[0])
	b.open(b.cfg.TransactionalID("w"), 0)
	k.ControlKey(int16(kmsg.DescribeProducers), func(req kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		r := req.(*kmsg.DescribeProducersRequest)
		res := r.ResponseKind().(*kmsg.DescribeProducersResponse)
		for _, rt := range r.Topics {
			if rt.Topic == b.cfg.Topics.Input {
				st := kmsg.NewDescribeProducersResponseTopic()
				sp := kmsg.NewDescribeProducersResponseTopicPartition()
				st.Topic, sp.ErrorCode = rt.Topic, kerr.TopicAuthorizationFailed.Code
				st.Partitions = append(st.Partitions, sp)
				res.Topics = append(res.Topics, st)
				return res, nil, true
			}
		}
		return nil, nil, false
	})
	r, err := b.List(b.ctx, Options{})
	require.NoError(t, err)
	require.Len(t, r.Notes, 1)
	require.Contains(t, r.Notes[0], b.cfg.Topics.Input)
	require.Len(t, r.Transactions, 1)
	require.NotNil(t, r.Transactions[0].Partitions[0].First)
}

func TestSameFirst(t *testing.T) {
	p := func(partition int32, first int64) Partition {
		return Partition{Topic: "t", Partition: partition, First: &first}
	}
	require.True(t, sameFirst([]Partition{p(0, 1), p(1, 2)}, []Partition{p(0, 1)}))
	require.False(t, sameFirst([]Partition{p(0, 2)}, []Partition{p(0, 1)}))
	require.True(t, covered([]kadm.DescribedTransaction{{ProducerID: 1, Topics: kadm.TopicsSet{"t": {0: {}}}}}, 1, place{"t", 0}))
	require.False(t, covered([]kadm.DescribedTransaction{{ProducerID: 1, Topics: kadm.TopicsSet{"t": {0: {}}}}}, 1, place{"t", 1}))
	require.False(t, covered([]kadm.DescribedTransaction{{ProducerID: 2, Topics: kadm.TopicsSet{"t": {0: {}}}}}, 1, place{"t", 0}))
}
