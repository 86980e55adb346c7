package transactions

import (
	"context"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
)

// hanging finds the transactions that partitions have open and no coordinator knows of there. The coordinator may have another transaction
// of the same producer under way, as long as it is not in this partition.
func (l *look) hanging(ctx context.Context, known []kadm.DescribedTransaction) error {
	candidates := map[int64][]place{}
	for at, producers := range l.producers {
		for id := range producers {
			if !covered(known, id, at) {
				candidates[id] = append(candidates[id], at)
			}
		}
	}
	if len(candidates) == 0 {
		return nil
	}
	// A second look, partitions last: what was only about to end is over by now, or known.
	ids := slices.Sorted(maps.Keys(candidates))
	listed, err := l.d.adm.ListTransactions(ctx, ids, nil)
	if err != nil {
		return explained("list transactions", err)
	}
	known, err = l.describe(ctx, listed.TransactionalIDs())
	if err != nil {
		return err
	}
	again := kadm.TopicsSet{}
	for _, places := range candidates {
		for _, at := range places {
			again.Add(at.topic, at.partition)
		}
	}
	before := l.producers
	l.producers = nil
	if err := l.askPartitions(ctx, again); err != nil {
		return err
	}
	names := map[int64]string{}
	for _, t := range listed {
		names[t.ProducerID] = t.TxnID
	}
	for _, id := range ids {
		t := Transaction{ID: names[id], State: Hanging, ProducerID: id, Ours: l.d.ours(names[id]), Partitions: []Partition{}}
		for _, at := range candidates[id] {
			was := before[at][id]
			is, there := l.producers[at][id]
			if !there || is.CurrentTxnStartOffset != was.CurrentTxnStartOffset || covered(known, id, at) {
				continue
			}
			t.ProducerEpoch = is.ProducerEpoch
			t.Partitions = append(t.Partitions, l.partition(at, id))
		}
		if len(t.Partitions) > 0 {
			slices.SortFunc(t.Partitions, func(a, b Partition) int {
				return comparePlaces(place{a.Topic, a.Partition}, place{b.Topic, b.Partition})
			})
			l.found = append(l.found, t)
		}
	}
	return nil
}

// covered says whether a coordinator knows of an open transaction of the producer in the partition.
func covered(known []kadm.DescribedTransaction, producer int64, at place) bool {
	return slices.ContainsFunc(known, func(t kadm.DescribedTransaction) bool {
		_, there := t.Topics[at.topic][at.partition]
		return t.ProducerID == producer && there
	})
}
