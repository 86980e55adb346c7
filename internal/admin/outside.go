package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/exactly-pipeline/exactly/internal/wait"
	"github.com/exactly-pipeline/exactly/txn"
)

// OutsideID ends the transactional id of CommitOutside. No worker may have it as its id.
const OutsideID = "offsets-restore"

// HealID ends the transactional id of `exactly heal kafka`. No worker can have it as its id (config.Validate).
const HealID = "heal:kafka"

// GroupOffset is the group's committed offset of one input partition.
type GroupOffset struct {
	Has      bool
	Offset   int64
	Metadata string
	Ours     bool // the metadata is ours: exactly/1 …
	Pending  bool // an open transaction is about to change it; nothing else is known
}

// GroupOffsets reads the group offsets of the partitions given, once, stable.
//
// It names the partitions in its request: asked for all a group has, a broker leaves out those which have nothing but a pending offset
// (Kafka 4.1, OffsetMetadataManager.fetchAllOffsets), and a first or a deleted offset would look stable.
func (a *Admin) GroupOffsets(ctx context.Context, partitions []int32) (map[int32]GroupOffset, error) {
	return a.groupOffsets(ctx, partitions, true)
}

// LastGroupOffsets reads the group offsets last committed, whatever an open transaction is about to make of them: for people to look at. Nothing
// may be decided by them.
func (a *Admin) LastGroupOffsets(ctx context.Context, partitions []int32) (map[int32]GroupOffset, error) {
	return a.groupOffsets(ctx, partitions, false)
}

func (a *Admin) groupOffsets(ctx context.Context, partitions []int32, stable bool) (map[int32]GroupOffset, error) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group, req.RequireStable = a.cfg.Group, stable
	t := kmsg.NewOffsetFetchRequestTopic()
	t.Topic, t.Partitions = a.cfg.Topics.Input, partitions
	req.Topics = append(req.Topics, t)
	ctx, cancel := context.WithTimeout(ctx, max(a.cfg.Kafka.StableTimeout, 5*time.Second))
	defer cancel()
	res, err := req.RequestWith(ctx, a.cl)
	out := map[int32]GroupOffset{}
	for _, p := range partitions {
		out[p] = GroupOffset{}
	}
	if err == nil {
		err = kerr.ErrorForCode(res.ErrorCode)
	}
	if err == nil && len(res.Groups) > 0 {
		err = kerr.ErrorForCode(res.Groups[0].ErrorCode)
	}
	switch {
	case errors.Is(err, kerr.GroupIDNotFound):
		return out, nil
	case errors.Is(err, kerr.UnstableOffsetCommit):
		for _, p := range partitions {
			out[p] = GroupOffset{Pending: true}
		}
		return out, nil
	case err != nil:
		return nil, fmt.Errorf("read the offsets of group %s: %w", a.cfg.Group, err)
	}
	note := func(p int32, at int64, metadata *string, code int16) error {
		switch err := kerr.ErrorForCode(code); {
		case errors.Is(err, kerr.UnstableOffsetCommit):
			out[p] = GroupOffset{Pending: true}
		case err != nil:
			return fmt.Errorf("read the offset of group %s, partition %d: %w", a.cfg.Group, p, err)
		case at >= 0:
			g := GroupOffset{Has: true, Offset: at}
			if metadata != nil {
				g.Metadata, g.Ours = *metadata, txn.IsOurs(*metadata)
			}
			out[p] = g
		}
		return nil
	}
	if len(res.Groups) > 0 {
		for _, t := range res.Groups[0].Topics {
			for _, p := range t.Partitions {
				if err := note(p.Partition, p.Offset, p.Metadata, p.ErrorCode); err != nil {
					return nil, err
				}
			}
		}
		return out, nil
	}
	for _, t := range res.Topics { // brokers before Kafka 3.0
		for _, p := range t.Partitions {
			if err := note(p.Partition, p.Offset, p.Metadata, p.ErrorCode); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// Assigned is whom the group has assigned each partition of the input: the instance id, or the client id of a member without one.
func (a *Admin) Assigned(ctx context.Context) (map[int32]string, error) {
	ds, err := a.adm.DescribeGroups(ctx, a.cfg.Group)
	if err == nil {
		err = ds[a.cfg.Group].Err
	}
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("ask kafka for the members of group %s: %w", a.cfg.Group, err)
	}
	out := map[int32]string{}
	for _, m := range ds[a.cfg.Group].Members {
		c, ok := m.Assigned.AsConsumer()
		if !ok {
			continue
		}
		name := m.ClientID
		if m.InstanceID != nil {
			name = *m.InstanceID
		}
		for _, t := range c.Topics {
			for _, p := range t.Partitions {
				if t.Topic == a.cfg.Topics.Input {
					out[p] = name
				}
			}
		}
	}
	return out, nil
}

// Outside is a group offset to be committed by somebody who is no member.
type Outside struct {
	Offset   int64
	Metadata string
}

// CommitOutside commits group offsets without being a member of the group, all or none of them, whether it has members or not.
//
// A plain OffsetCommit of an outsider is refused with UNKNOWN_MEMBER_ID while the group has members (Kafka 4.1,
// ClassicGroup.validateOffsetCommit; kfake too). One in a transaction, with no member and generation -1, never is: nothing
// fences it from the group's rebalances. In a worker that would defeat guard 2. It is right here and nowhere else, because the caller
//
//   - holds the partitions' rows in Postgres: nobody can claim them, so nobody reads a group offset that is about to change;
//   - looks again afterwards (stable read, then the output topics), and commits once more if a former owner's last publish came
//     in between: what is published is bounded by the stored offset, which the hold keeps still;
//   - has a transactional id of its own: a second caller fences the first.
func (a *Admin) CommitOutside(ctx context.Context, offsets map[int32]Outside) error {
	what := func(step string, err error) error {
		return fmt.Errorf("commit offsets of group %s from outside: %s: %w", a.cfg.Group, step, err)
	}
	// The protocol before KIP-890, as the workers' librdkafka speaks it: these versions leave the epoch alone, and every broker has them.
	v := kversion.Stable()
	for key, version := range map[kmsg.Key]int16{kmsg.InitProducerID: 4, kmsg.AddOffsetsToTxn: 3, kmsg.TxnOffsetCommit: 3, kmsg.EndTxn: 3} {
		v.SetMaxKeyVersion(int16(key), version)
	}
	cl, err := kgo.NewClient(append(Options(a.cfg), kgo.MaxVersions(v))...)
	if err != nil {
		return what("make a client", err)
	}
	defer cl.Close()
	id := a.cfg.TransactionalID(OutsideID)
	init := kmsg.NewPtrInitProducerIDRequest()
	init.TransactionalID, init.ProducerID, init.ProducerEpoch = &id, -1, -1
	init.TransactionTimeoutMillis = int32(a.cfg.Kafka.TransactionTimeout.Milliseconds())
	var pid int64
	var epoch int16
	err = retry(ctx, func() (int16, error) {
		res, err := init.RequestWith(ctx, cl)
		if err != nil {
			return 0, err
		}
		pid, epoch = res.ProducerID, res.ProducerEpoch
		return res.ErrorCode, nil
	})
	if err != nil {
		return what("init producer id", err)
	}
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = id, pid, epoch, a.cfg.Group
	err = retry(ctx, func() (int16, error) {
		res, err := add.RequestWith(ctx, cl)
		if err != nil {
			return 0, err
		}
		return res.ErrorCode, nil
	})
	if err != nil {
		return what("add offsets to transaction", err)
	}
	staged := stage(ctx, cl, a.outside(id, pid, epoch, offsets))
	end := kmsg.NewPtrEndTxnRequest()
	end.TransactionalID, end.ProducerID, end.ProducerEpoch, end.Commit = id, pid, epoch, staged == nil
	err = retry(ctx, func() (int16, error) {
		res, err := end.RequestWith(ctx, cl)
		if err != nil {
			return 0, err
		}
		return res.ErrorCode, nil
	})
	if staged != nil {
		return what("stage", errors.Join(staged, err))
	}
	if err != nil {
		return what("end transaction (its outcome is unknown)", err)
	}
	return nil
}

func (a *Admin) outside(id string, pid int64, epoch int16, offsets map[int32]Outside) *kmsg.TxnOffsetCommitRequest {
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group, req.Generation = id, pid, epoch, a.cfg.Group, -1
	t := kmsg.NewTxnOffsetCommitRequestTopic()
	t.Topic = a.cfg.Topics.Input
	for p, o := range offsets {
		tp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		tp.Partition, tp.Offset, tp.LeaderEpoch, tp.Metadata = p, o.Offset, -1, kmsg.StringPtr(o.Metadata)
		t.Partitions = append(t.Partitions, tp)
	}
	req.Topics = append(req.Topics, t)
	return req
}

func stage(ctx context.Context, cl *kgo.Client, req *kmsg.TxnOffsetCommitRequest) error {
	return retry(ctx, func() (int16, error) {
		res, err := req.RequestWith(ctx, cl)
		if err != nil {
			return 0, err
		}
		for _, t := range res.Topics {
			for _, p := range t.Partitions {
				if p.ErrorCode != 0 {
					return p.ErrorCode, nil
				}
			}
		}
		return 0, nil
	})
}

// retry makes the same request again while the broker says that it may be. A connection that breaks is not retried: what became of
// the request is the caller's to find out.
func retry(ctx context.Context, request func() (code int16, err error)) error {
	for {
		code, err := request()
		if err != nil {
			return err
		}
		err = kerr.ErrorForCode(code)
		if err == nil || !errors.Is(err, kerr.ConcurrentTransactions) && !kerr.IsRetriable(err) {
			return err
		}
		if wait.For(ctx, 20*time.Millisecond) != nil {
			return errors.Join(err, ctx.Err())
		}
	}
}
