package transactions

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

// Target names what to end: a transactional id; or, for a hanging one, a producer in a partition.
type Target struct {
	ID         string
	Topic      string
	Partition  int32
	ProducerID int64 // hanging: -1 if the partition has only one
}

func (t Target) String() string {
	if t.ID != "" {
		return "transactional id " + t.ID
	}
	if t.ProducerID < 0 {
		return fmt.Sprintf("hanging transaction in %s/%d", t.Topic, t.Partition)
	}
	return fmt.Sprintf("producer %d in %s/%d", t.ProducerID, t.Topic, t.Partition)
}

// RefusedError says that nothing was done, and why.
type RefusedError struct{ Why string }

func (e *RefusedError) Error() string { return e.Why }

func refuse(format string, a ...any) error { return &RefusedError{fmt.Sprintf(format, a...)} }

// Plan is what an abort would do. It holds for the transaction it was made for and for no other.
type Plan struct {
	Target      Target
	Transaction Transaction
	Says        []string // what it does and what comes of it, a line each
}

// Done is what an abort did.
type Done struct {
	ID         string      `json:"transactional_id"`
	ProducerID int64       `json:"producer_id"`
	Aborted    bool        `json:"aborted"`
	Partitions []Partition `json:"partitions"` // as they are now
	Says       string      `json:"says"`
}

// Plan looks at what the target names. *RefusedError if there is nothing to end, or nobody may.
func (d *Desk) Plan(ctx context.Context, t Target) (*Plan, error) {
	if t.ID != "" {
		return d.planByID(ctx, t)
	}
	return d.planHanging(ctx, t)
}

func (d *Desk) planByID(ctx context.Context, t Target) (*Plan, error) {
	l := &look{d: d, note: func(string, ...any) {}}
	described, err := d.adm.DescribeTransactions(ctx, t.ID)
	if err != nil {
		return nil, explained("describe "+t.String(), err)
	}
	is := described[t.ID]
	switch {
	case is.Err != nil:
		return nil, refuse("%s: %v", t, is.Err)
	case !isOpen(is.State):
		return nil, refuse("%s has no open transaction (its state is %s)", t, is.State)
	}
	if err := l.askPartitions(ctx, is.Topics); err != nil {
		return nil, err
	}
	if err := l.listEnds(ctx); err != nil {
		return nil, err
	}
	p := &Plan{Target: t, Transaction: l.coordinated(is)}
	if is.State != "Ongoing" {
		return nil, refuse("%s: its transaction is in state %s: how it ends is decided, and the coordinator (broker %d) is writing that to the partitions; "+
			"if it stays so, one of their leaders can't be reached", t, is.State, is.Coordinator)
	}
	p.say("aborts the open transaction of %s by initialising that id (InitProducerId), as a producer of that name does when it starts", t)
	p.say("the records it has written stay invisible to read_committed readers; the offsets it was about to commit are dropped")
	if worker, ok := strings.CutPrefix(t.ID, d.cfg.TransactionalID("")); !ok {
		p.say("this is no transaction of group %s: the program that uses this id is fenced, and has to bear that", d.cfg.Group)
	} else if worker == admin.OutsideID {
		p.say("this is a command of ours that moves group offsets (exactly offsets): should it run at this moment, it fails, and is to be run again")
	} else if worker == admin.HealID {
		p.say("this is exactly heal kafka: should it run at this moment, it fails, and is to be run again")
	} else {
		members, err := d.a.Members(ctx)
		if err != nil {
			return nil, err
		}
		if _, alive := members[worker]; alive {
			p.say("worker %s is a member of the group now: it is fenced, makes a new producer, and publishes the same again from what Postgres holds", worker)
		} else {
			p.say("worker %s is no member of the group: the next owner of its partitions publishes the same again from what Postgres holds (it would have ended this by itself)", worker)
		}
	}
	return p, nil
}

func (d *Desk) planHanging(ctx context.Context, t Target) (*Plan, error) {
	is, err := d.findHanging(ctx, t)
	if err != nil {
		return nil, err
	}
	p := &Plan{Target: t, Transaction: *is}
	p.Target.ProducerID = is.ProducerID
	p.say("writes an abort marker for producer %d, epoch %d, to %s/%d (WriteTxnMarkers), as the transaction coordinator would if it knew of the transaction", is.ProducerID,
		is.Partitions[0].epoch, t.Topic, t.Partition)
	p.say("the producer's records there from offset %d on stay invisible to read_committed readers, which then get what comes behind them", *is.Partitions[0].First)
	p.say("make sure that you may describe every transactional id of the cluster: what you may not see looks as if it hung")
	return p, nil
}

// findHanging looks at the target's partition alone.
func (d *Desk) findHanging(ctx context.Context, t Target) (*Transaction, error) {
	l := &look{d: d, note: func(string, ...any) {}}
	if err := l.askPartitions(ctx, kadm.TopicsSet{t.Topic: {t.Partition: struct{}{}}}); err != nil {
		return nil, err
	}
	listed, err := d.adm.ListTransactions(ctx, nil, openStates)
	if err != nil {
		return nil, explained("list transactions", err)
	}
	known, err := l.describe(ctx, listed.TransactionalIDs())
	if err != nil {
		return nil, err
	}
	if err := l.listEnds(ctx); err != nil {
		return nil, err
	}
	producers := l.producers[place{t.Topic, t.Partition}]
	if err := l.hanging(ctx, known); err != nil {
		return nil, err
	}
	is := slices.DeleteFunc(l.found, func(f Transaction) bool { return t.ProducerID >= 0 && f.ProducerID != t.ProducerID })
	switch {
	case len(is) == 1:
		return &is[0], nil
	case len(is) > 1:
		return nil, refuse("several transactions hang in %s/%d: name the producer", t.Topic, t.Partition)
	}
	for id := range producers {
		for _, k := range known {
			if k.ProducerID == id && (t.ProducerID < 0 || t.ProducerID == id) {
				return nil, refuse("the open transaction in %s/%d does not hang, its coordinator knows it: abort it by its transactional id, %s", t.Topic, t.Partition, k.TxnID)
			}
		}
	}
	return nil, refuse("no such hanging transaction: %s", t)
}

func (p *Plan) say(format string, a ...any) { p.Says = append(p.Says, fmt.Sprintf(format, a...)) }

// Abort carries a plan out and waits until the partitions are free of the transaction. *RefusedError if what was planned for has ended, or
// another has begun, since.
func (d *Desk) Abort(ctx context.Context, p *Plan) (*Done, error) {
	now, err := d.Plan(ctx, p.Target)
	if err != nil {
		return nil, err
	}
	was, is := p.Transaction, now.Transaction
	if is.ProducerID != was.ProducerID || is.ProducerEpoch != was.ProducerEpoch || !same(is.StartedAt, was.StartedAt) || !sameFirst(is.Partitions, was.Partitions) {
		return nil, refuse("%s: the transaction that was looked at is over, and another is open now: look again", p.Target)
	}
	if p.Target.ID != "" {
		err = d.a.Fence(ctx, p.Target.ID, time.Duration(*was.TimeoutMs)*time.Millisecond)
	} else {
		err = d.mark(ctx, now)
	}
	if err != nil {
		return nil, fmt.Errorf("abort %s: %w", p.Target, err)
	}
	done := &Done{ID: was.ID, ProducerID: was.ProducerID, Aborted: true}
	if done.Partitions, err = d.freed(ctx, now.Transaction.Partitions); err != nil {
		return nil, fmt.Errorf("abort %s: aborted, but %w", p.Target, err)
	}
	done.Says = "aborted"
	for _, q := range done.Partitions {
		if q.StableEnd != nil && q.End != nil {
			done.Says += fmt.Sprintf("; %s/%d is stable up to %d of %d", q.Topic, q.Partition, *q.StableEnd, *q.End)
		}
	}
	return done, nil
}

// same compares what may be null.
func same[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }

// sameFirst says whether no partition has another first offset now. New partitions are of the same transaction.
func sameFirst(is, was []Partition) bool {
	for _, w := range was {
		i := slices.IndexFunc(is, func(p Partition) bool { return p.Topic == w.Topic && p.Partition == w.Partition })
		if i >= 0 && w.First != nil && !same(is[i].First, w.First) {
			return false
		}
	}
	return true
}

// mark ends a hanging transaction in its partition.
func (d *Desk) mark(ctx context.Context, p *Plan) error {
	at := p.Transaction.Partitions[0]
	res, err := d.adm.WriteTxnMarkers(ctx, kadm.TxnMarkers{
		ProducerID: p.Transaction.ProducerID, ProducerEpoch: at.epoch, Commit: false,
		// -1 where the producer never ended a transaction there. 0 is then at or below every coordinator's (as Kafka's own tool does it, KIP-664).
		CoordinatorEpoch: max(0, at.coordinatorEpoch),
		Topics:           kadm.TopicsSet{at.Topic: {at.Partition: struct{}{}}},
	})
	if refused(err) {
		return fmt.Errorf("this Kafka user may not write transaction markers (needs ClusterAction on the cluster): %w", err)
	}
	if err != nil {
		return err
	}
	res.EachPartition(func(r kadm.TxnMarkersPartitionResponse) { err = errors.Join(err, r.Err) })
	return err
}

// freedWithin bounds how long the markers may take to take effect.
const freedWithin = 30 * time.Second

// freed waits until the stable ends are beyond the transaction's first offsets, and returns the partitions as they are then.
func (d *Desk) freed(ctx context.Context, partitions []Partition) ([]Partition, error) {
	ctx, cancel := context.WithTimeout(ctx, freedWithin)
	defer cancel()
	for {
		l := &look{d: d, producers: map[place]map[int64]kadm.DescribedProducer{}}
		for _, p := range partitions {
			l.producers[place{p.Topic, p.Partition}] = nil
		}
		if err := l.listEnds(ctx); err != nil {
			return nil, err
		}
		out := []Partition{}
		var held []string
		for _, p := range partitions {
			q := l.partition(place{p.Topic, p.Partition}, -1)
			out = append(out, q)
			// Where another open transaction began before this one, the end stays where it was; only what this one held counts.
			if p.Holds && q.StableEnd != nil && *q.StableEnd <= *p.First {
				held = append(held, fmt.Sprintf("%s/%d", q.Topic, q.Partition))
			}
		}
		if len(held) == 0 {
			return out, nil
		}
		if wait.For(ctx, 20*time.Millisecond) != nil {
			return nil, fmt.Errorf("%s stays held back: %w", strings.Join(held, ", "), ctx.Err())
		}
	}
}
