package transactions

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// look is one look at the open transactions.
type look struct {
	d     *Desk
	all   bool
	note  func(format string, a ...any)
	found []Transaction

	topics    kadm.TopicDetails
	producers map[place]map[int64]kadm.DescribedProducer // open transactions by partition and producer id
	stable    kadm.ListedOffsets
	ends      kadm.ListedOffsets
}

// grace is what a coordinator may take to notice that a transaction has timed out: it looks every 10 s
// (transaction.abort.timed.out.transaction.cleanup.interval.ms).
const grace = 20 * time.Second

// place is a partition of a topic.
type place struct {
	topic     string
	partition int32
}

func comparePlaces(a, b place) int {
	return cmp.Or(strings.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
}

// run looks at the partitions first and asks the coordinators then: a transaction is known to its coordinator before it reaches a partition.
// So one that a partition has and the coordinator does not has either ended in between, or it hangs; the partition is asked again.
func (l *look) run(ctx context.Context) error {
	if err := l.listTopics(ctx); err != nil {
		return err
	}
	if err := l.askPartitions(ctx, l.set(nil)); err != nil {
		return err
	}
	listed, err := l.d.adm.ListTransactions(ctx, nil, openStates)
	if err != nil {
		return explained("list transactions", err)
	}
	known, err := l.describe(ctx, listed.TransactionalIDs())
	if err != nil {
		return err
	}
	if more := l.set(known); len(more) > 0 { // partitions of topics that are not the group's, of transactions that are
		if err := l.askPartitions(ctx, more); err != nil {
			return err
		}
	}
	if err := l.listEnds(ctx); err != nil {
		return err
	}
	for _, t := range known {
		if l.all || l.d.ours(t.TxnID) || l.touchesUs(t) {
			l.found = append(l.found, l.coordinated(t))
		}
	}
	return l.hanging(ctx, known)
}

// listTopics finds the topics to look at: the group's, or all.
func (l *look) listTopics(ctx context.Context) (err error) {
	t := l.d.cfg.Topics
	if l.all {
		l.topics, err = l.d.adm.ListTopicsWithInternal(ctx)
	} else {
		l.topics, err = l.d.adm.ListTopics(ctx, t.Input, t.Output, t.DLQ)
	}
	if err != nil {
		return explained("list topics", err)
	}
	for name, d := range l.topics {
		if d.Err != nil {
			l.note("topic %s: %v", name, d.Err)
			delete(l.topics, name)
		}
	}
	return nil
}

// set is the partitions of the topics, or those of the transactions that are not among the topics' yet.
func (l *look) set(known []kadm.DescribedTransaction) kadm.TopicsSet {
	if known == nil {
		return l.topics.TopicsSet()
	}
	s := kadm.TopicsSet{}
	for _, t := range known {
		if !l.all && !l.d.ours(t.TxnID) {
			continue
		}
		for topic, partitions := range t.Topics {
			if _, there := l.topics[topic]; !there {
				for p := range partitions {
					s.Add(topic, p)
				}
			}
		}
	}
	return s
}

// askPartitions asks the partitions' leaders for the producers that have a transaction open there.
func (l *look) askPartitions(ctx context.Context, s kadm.TopicsSet) error {
	if l.producers == nil {
		l.producers = map[place]map[int64]kadm.DescribedProducer{}
	}
	if len(s) == 0 {
		return nil
	}
	described, err := l.d.adm.DescribeProducers(ctx, s)
	if refused(err) && len(s) > 1 { // which one is not said: what may not be looked at of one topic must hide nothing of another
		for topic, partitions := range s {
			if err := l.askPartitions(ctx, kadm.TopicsSet{topic: partitions}); err != nil {
				return err
			}
		}
		return nil
	}
	if refused(err) {
		l.note("topic %s: its producers may not be looked at (needs Read on the topic)", s.Topics()[0])
		return nil
	}
	if err != nil {
		return explained("describe producers", err)
	}
	described.EachPartition(func(p kadm.DescribedProducersPartition) {
		if p.Err != nil {
			l.note("%s/%d: %v", p.Topic, p.Partition, p.Err)
		}
	})
	described.EachProducer(func(p kadm.DescribedProducer) {
		if p.CurrentTxnStartOffset < 0 {
			return
		}
		at := place{p.Topic, p.Partition}
		if l.producers[at] == nil {
			l.producers[at] = map[int64]kadm.DescribedProducer{}
		}
		l.producers[at][p.ProducerID] = p
	})
	return nil
}

func refused(err error) bool {
	var auth *kadm.AuthError
	return errors.As(err, &auth)
}

// listEnds lists both ends of every topic that is concerned: the last stable offset and the high watermark.
func (l *look) listEnds(ctx context.Context) (err error) {
	l.stable, l.ends = kadm.ListedOffsets{}, kadm.ListedOffsets{}
	concerned := map[string]bool{}
	for at := range l.producers {
		concerned[at.topic] = true
	}
	for topic := range concerned {
		stable, err := l.d.adm.ListCommittedOffsets(ctx, topic)
		if err != nil {
			return explained("list the stable ends of "+topic, err)
		}
		ends, err := l.d.adm.ListEndOffsets(ctx, topic)
		if err != nil {
			return explained("list the ends of "+topic, err)
		}
		l.stable[topic], l.ends[topic] = stable[topic], ends[topic]
	}
	return nil
}

// describe asks the coordinators. What has ended since it was listed is left out.
func (l *look) describe(ctx context.Context, ids []string) ([]kadm.DescribedTransaction, error) {
	if len(ids) == 0 {
		return []kadm.DescribedTransaction{}, nil
	}
	described, err := l.d.adm.DescribeTransactions(ctx, ids...)
	if err != nil {
		return nil, explained("describe transactions", err)
	}
	out := []kadm.DescribedTransaction{}
	for _, t := range described.Sorted() {
		switch {
		case errors.Is(t.Err, kerr.TransactionalIDNotFound):
		case t.Err != nil:
			l.note("transactional id %s: %v", t.TxnID, t.Err)
		case isOpen(t.State):
			out = append(out, t)
		}
	}
	return out, nil
}

func isOpen(state string) bool {
	for _, s := range openStates {
		if s == state {
			return true
		}
	}
	return false
}

func (l *look) touchesUs(t kadm.DescribedTransaction) bool {
	c := l.d.cfg.Topics
	for _, topic := range []string{c.Input, c.Output, c.DLQ} {
		if len(t.Topics[topic]) > 0 {
			return true
		}
	}
	return false
}

// coordinated is a transaction that its coordinator knows.
func (l *look) coordinated(t kadm.DescribedTransaction) Transaction {
	out := Transaction{
		ID: t.TxnID, State: t.State, ProducerID: t.ProducerID, ProducerEpoch: t.ProducerEpoch, Coordinator: ptr(t.Coordinator),
		TimeoutMs: ptr(int64(t.TimeoutMillis)), Ours: l.d.ours(t.TxnID), Partitions: []Partition{},
	}
	if t.StartTimestamp > 0 {
		out.StartedAt = ptr(time.UnixMilli(t.StartTimestamp).UTC())
		out.AgeMs = ptr(max(0, l.d.now().UnixMilli()-t.StartTimestamp))
		out.Overdue = *out.AgeMs > *out.TimeoutMs+grace.Milliseconds()
		if ahead := t.StartTimestamp - l.d.now().UnixMilli(); ahead > grace.Milliseconds() {
			out.AheadMs = ptr(ahead)
		}
	}
	for _, topic := range t.Topics.Sorted() {
		for _, p := range topic.Partitions {
			out.Partitions = append(out.Partitions, l.partition(place{topic.Topic, p}, t.ProducerID))
		}
	}
	return out
}

// partition is what a producer's transaction does to a partition.
func (l *look) partition(at place, producer int64) Partition {
	out := Partition{Topic: at.topic, Partition: at.partition}
	if s, ok := l.stable.Lookup(at.topic, at.partition); ok && s.Err == nil {
		out.StableEnd = ptr(s.Offset)
	}
	if e, ok := l.ends.Lookup(at.topic, at.partition); ok && e.Err == nil {
		out.End = ptr(e.Offset)
	}
	p, ok := l.producers[at][producer]
	if !ok {
		return out
	}
	out.First, out.coordinatorEpoch, out.epoch = ptr(p.CurrentTxnStartOffset), p.CoordinatorEpoch, p.ProducerEpoch
	if out.End != nil {
		out.Held = ptr(max(0, *out.End-*out.First))
	}
	out.Holds = out.StableEnd != nil && *out.StableEnd == *out.First
	return out
}
