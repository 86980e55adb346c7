package sim

import (
	"fmt"
	"time"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/outbox"
	"github.com/exactly-pipeline/exactly/txn"
)

// code is a broker's answer.
type code int

const (
	ok                  code = iota
	fenced                   // PRODUCER_FENCED, INVALID_PRODUCER_EPOCH
	concurrent               // CONCURRENT_TRANSACTIONS
	moved                    // NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS
	invalidState             // INVALID_TXN_STATE
	unknownMember            // UNKNOWN_MEMBER_ID
	illegalGeneration        // ILLEGAL_GENERATION
	fencedInstance           // FENCED_INSTANCE_ID
	rebalanceInProgress      // REBALANCE_IN_PROGRESS
)

func (c code) String() string {
	return [...]string{"ok", "fenced", "concurrent transactions", "not the coordinator", "invalid transaction state", "unknown member", "illegal generation",
		"fenced instance", "rebalance in progress"}[c]
}

// later says that the client asks again by itself.
func (c code) later() bool { return c == concurrent || c == moved }

// The transaction coordinator's states (TransactionMetadata).
type txnState int

const (
	empty txnState = iota
	ongoing
	preparing // decided; markers are being written
	completed
)

// transaction is what the coordinator knows of a transactional id.
type transaction struct {
	id       string
	epoch    int // the producer id stays the same
	state    txnState
	commit   bool // decided so
	began    time.Duration
	w        *worker // whose producer initialised last
	messages []outbox.Message
	offsets  []txn.Offset // staged: pending until the markers are written
	met      int          // which Postgres the producer's worker knew when it began
}

// inputLog is one partition of the input. Offsets have holes, as behind any transactional producer.
type inputLog struct {
	records []engine.Record // also those that expired
	start   int64
	end     int64
	epoch   int32
	ends    []int64    // where each leader epoch ended, by epoch
	lost    [][2]int64 // ranges whose records were truncated
}

// kafka is the brokers.
type kafka struct {
	s     *sim
	in    []*inputLog
	txns  []*transaction
	group group
	ids   map[string]string
	held  []stray          // see release
	moved [2]time.Duration // until when the coordinator of transactions, of the group, is not to be found
}

const sweepInterval = 10 * time.Second // transaction.abort.timed.out.transaction.cleanup.interval.ms

func newKafka(s *sim) *kafka {
	k := &kafka{s: s, ids: map[string]string{"in": "1", "out": "2", "dlq": "3"}}
	k.group = group{s: s, offsets: make([]committed, s.p.partitions)}
	for range s.p.partitions {
		k.in = append(k.in, &inputLog{})
	}
	s.at(s.between(0, sweepInterval), nil, nil, k.sweep)
	return k
}

// append produces a record to a partition of the input.
func (k *kafka) append(p int32) {
	l := k.in[p]
	if k.s.chance(100) {
		l.end += 1 + int64(k.s.rng.IntN(2))
	}
	kind := "v"
	if k.s.chance(60) {
		kind = "poison"
	}
	if k.s.killers > 0 {
		k.s.killers--
		kind = "killer"
	}
	l.records = append(l.records, engine.Record{
		Partition: p, Offset: l.end, LeaderEpoch: l.epoch, TimestampMs: 1000 + l.end, Key: []byte{'k', byte('0' + k.s.rng.IntN(10))},
		Value: fmt.Appendf(nil, "%s%d/%d/%d", kind, p, l.end, l.epoch),
	})
	k.s.say(nil, "record", int64(p), l.end)
	l.end++
	for _, w := range k.s.workers {
		if !w.dead && w.client != nil {
			w.client.offer()
		}
	}
}

func (k *kafka) txn(id string) *transaction {
	for _, t := range k.txns {
		if t.id == id {
			return t
		}
	}
	t := &transaction{id: id}
	k.txns = append(k.txns, t)
	return t
}

func (k *kafka) away(which int) bool { return k.s.now < k.moved[which] }

// initProducer is InitProducerId: it aborts what is open, and raises the epoch.
func (k *kafka) initProducer(id string, w *worker) (int, code) {
	if k.away(0) {
		return 0, moved
	}
	t := k.txn(id)
	switch t.state {
	case ongoing:
		t.epoch++
		k.decide(t, false)
		return 0, concurrent
	case preparing:
		return 0, concurrent
	}
	t.epoch++
	t.state, t.w = empty, w
	return t.epoch, ok
}

// enter is AddPartitionsToTxn, or AddOffsetsToTxn: the transaction begins with the first of them.
func (k *kafka) enter(id string, epoch int) (*transaction, code) {
	if k.away(0) {
		return nil, moved
	}
	t := k.txn(id)
	switch {
	case t.epoch != epoch:
		return nil, fenced
	case t.state == preparing:
		return nil, concurrent
	case t.state != ongoing:
		t.state, t.began = ongoing, k.s.now
	}
	return t, ok
}

// produce is Produce into the transaction that enter began. The broker asks the coordinator whether it is still open.
func (k *kafka) produce(id string, epoch int, messages []outbox.Message) code {
	t := k.txn(id)
	switch {
	case t.epoch != epoch:
		return fenced
	case t.state != ongoing:
		return invalidState
	}
	t.messages = append(t.messages, messages...)
	return ok
}

// stage is TxnOffsetCommit.
func (k *kafka) stage(id string, epoch int, offsets []txn.Offset, st *stamp, met int) code {
	if k.away(1) {
		return moved
	}
	t := k.txn(id)
	switch {
	case t.epoch != epoch:
		return fenced
	case t.state != ongoing:
		return invalidState
	}
	if c := k.group.validate(st); c != ok {
		return c
	}
	t.met = met
	for _, o := range offsets {
		k.s.say(nil, "staged", int64(o.Partition), o.Offset)
		t.offsets = append(t.offsets, o)
	}
	return ok
}

// end is EndTxn.
func (k *kafka) end(id string, epoch int, commit bool) code {
	if k.away(0) {
		return moved
	}
	t := k.txn(id)
	switch {
	case t.epoch != epoch:
		return fenced
	case t.state == preparing && t.commit == commit:
		return concurrent
	case t.state == completed && t.commit == commit:
		return ok // it was delivered twice
	case t.state != ongoing:
		return invalidState
	}
	k.decide(t, commit)
	return ok
}

// decide is the moment at which a transaction's outcome stands. Readers see it when the markers are written.
func (k *kafka) decide(t *transaction, commit bool) {
	s := k.s
	t.state, t.commit = preparing, commit
	what := "transaction aborted: "
	if commit {
		what = "transaction committed: "
	}
	s.say(t.w, what+t.id, int64(len(t.messages)), int64(len(t.offsets)))
	if commit {
		s.truth.published(t)
	}
	d := s.between(500*time.Microsecond, 10*time.Millisecond)
	if s.lagging && s.chance(20) {
		d = s.between(100*time.Millisecond, 3*time.Second)
	}
	s.at(d, nil, nil, func() {
		if commit {
			for _, o := range t.offsets {
				k.group.offsets[o.Partition] = committed{has: true, at: o.Offset, metadata: o.Metadata}
			}
		}
		t.state, t.messages, t.offsets = completed, nil, nil
		s.truth.changed = true
	})
}

// pending says whether an undecided, or unmarked, transaction has an offset of the partition.
func (k *kafka) pending(p int32) bool {
	for _, t := range k.txns {
		if t.state == ongoing || t.state == preparing {
			for i := range t.offsets {
				if t.offsets[i].Partition == p {
					return true
				}
			}
		}
	}
	return false
}

// open says whether any transaction has messages that are not yet to be read.
func (k *kafka) open() bool {
	for _, t := range k.txns {
		if (t.state == ongoing || t.state == preparing) && len(t.messages) > 0 {
			return true
		}
	}
	return false
}

// sweep aborts what has been open for longer than its timeout, and fences whoever had it open.
func (k *kafka) sweep() {
	for _, t := range k.txns {
		if t.state == ongoing && k.s.now-t.began > transactionTimeout {
			k.s.say(t.w, "transaction timed out", 0, 0)
			t.epoch++
			k.decide(t, false)
		}
	}
	k.s.at(sweepInterval, nil, nil, k.sweep)
}
