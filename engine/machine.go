package engine

import (
	"fmt"

	"github.com/exactly-pipeline/exactly/internal/guard"
	"github.com/exactly-pipeline/exactly/ledger"
)

// State is where a source partition is in its life in this worker.
type State string

// The states. doc/protocol.md draws them.
const (
	Unassigned  State = "unassigned"  // not ours
	Claiming    State = "claiming"    // raising the epoch in Postgres
	Looking     State = "looking"     // reading the group offset, stable, and the log's ends
	Starting    State = "starting"    // first start: choosing where
	Fencing     State = "fencing"     // the group offset is not stable: fencing whoever left it so
	Scanning    State = "scanning"    // the group offset is gone: looking for the last event in the outputs
	Draining    State = "draining"    // publishing the gap from the outbox
	Consuming   State = "consuming"   // reading, capturing, publishing
	Withdrawing State = "withdrawing" // giving up: waiting until nothing of it is in an open transaction
	Waiting     State = "waiting"     // back-off before the next claim
	NoProducer  State = "no-producer" // waiting for a producer before the next claim
	Held        State = "held"        // held by a person's command
	Stopped     State = "stopped"     // refused: something is wrong that a person must decide
)

// Partition is one source partition's life in one worker: a pure state machine. No I/O, no clock, no goroutine: Step takes what
// happened and returns what to do.
type Partition struct {
	ID       int32
	State    State
	Assigned bool   // the current assignment holds it
	Life     uint64 // raised when it is claimed and when it is given up; what comes back under an older one is stale

	Epoch       int64        // of our claim
	LedgerSeq   int64        // at our claim, then of our last capture
	Head        *ledger.Head // of the entry at our claim
	LeaderEpoch int32        // of the record before Next; -1 unknown
	Next        int64        // stored offset: next to capture
	Published   int64        // group offset
	Floor       int64        // the group offset can't honestly be below this (published_at_least)
	Captured    bool         // something was captured by anyone before
	Attempts    int          // claims since it last captured, for the back-off
	Doubt       int64        // the epoch of the claim under which Kafka was last found ahead of Postgres; -1 none

	Predecessors []string // workers that may have left a transaction open
	Care         Care     // what is to be handled with care
	Reason       string   // why it is stopped or held

	producerUp bool
}

// NewPartition is a partition nobody has assigned to us.
func NewPartition(id int32) *Partition {
	return &Partition{ID: id, State: Unassigned, Doubt: -1, producerUp: true}
}

// EventKind is what happened to a partition.
type EventKind string

// The events.
const (
	EvAssigned      EventKind = "assigned"
	EvRevoked       EventKind = "revoked"
	EvLost          EventKind = "lost"
	EvClaimed       EventKind = "claimed"
	EvUnclaimed     EventKind = "no-row" // the claim found no row
	EvHeld          EventKind = "held"
	EvLooked        EventKind = "looked"
	EvUnstable      EventKind = "unstable"
	EvFenced        EventKind = "predecessors-fenced"
	EvStarted       EventKind = "started"
	EvScanned       EventKind = "scanned"
	EvCaptured      EventKind = "captured"
	EvRefused       EventKind = "refused" // the compare-and-set did not match
	EvPublished     EventKind = "published"
	EvFailed        EventKind = "failed" // transient: a store is away, a capture's outcome is unknown
	EvBroken        EventKind = "broken" // a person must decide
	EvWithdrawn     EventKind = "withdrawn"
	EvProducerLost  EventKind = "producer-lost" // fenced, fatal, or a commit's outcome is unknown
	EvProducerReady EventKind = "producer-ready"
	EvRetry         EventKind = "retry"
)

// Event is one thing that happened. Life is the life it belongs to; 0 for those that belong to none (assigned, revoked, lost,
// producer-lost, producer-ready).
type Event struct {
	Kind  EventKind
	Life  uint64
	Claim Claim  // claimed
	Look  Look   // looked
	To    int64  // captured, published, scanned: up to here
	Why   string // held, broken
}

// ActionKind is what to do for a partition.
type ActionKind string

// The actions.
const (
	DoClaim    ActionKind = "claim"
	DoLook     ActionKind = "look"
	DoStart    ActionKind = "start"
	DoFence    ActionKind = "fence"
	DoScan     ActionKind = "scan"
	DoDrain    ActionKind = "drain"   // publish [From, To) from the outbox
	DoDrained  ActionKind = "drained" // note in Postgres that predecessors no longer matter
	DoConsume  ActionKind = "consume" // seek to From and resume
	DoPublish  ActionKind = "publish" // hand the captured batch to publish
	DoWithdraw ActionKind = "withdraw"
	DoRelease  ActionKind = "release" // nothing of it is left: the rebalance may go on
	DoRetry    ActionKind = "retry"   // send retry after a jittered back-off
	DoStop     ActionKind = "stop"    // say why, look again later
)

// Action is one thing to do, under the life it belongs to.
type Action struct {
	Kind     ActionKind
	Life     uint64
	From, To int64
	Why      string
	Abort    bool // withdraw: abort what is open, never commit (the partition was lost, not revoked)
	Attempt  int  // retry: how often in a row
}

func (a Action) String() string {
	s := string(a.Kind)
	if a.Kind == DoDrain {
		s += fmt.Sprintf(" [%d,%d)", a.From, a.To)
	}
	if a.Kind == DoConsume {
		s += fmt.Sprintf(" from %d", a.From)
	}
	if a.Kind == DoRetry {
		s += fmt.Sprintf(" attempt %d", a.Attempt)
	}
	if a.Abort {
		s += " abort"
	}
	if a.Why != "" {
		s += ": " + a.Why
	}
	return s
}

// Step takes one event and returns what to do, in order.
func (p *Partition) Step(e Event) []Action {
	switch e.Kind {
	case EvAssigned:
		p.Assigned = true
		if p.State == Unassigned {
			return p.claim()
		}
		return nil // still being withdrawn: claimed again once it is
	case EvRevoked, EvLost:
		p.Assigned = false
		if p.State == Unassigned {
			return p.do(DoRelease)
		}
		return p.withdraw(e.Kind == EvLost)
	case EvProducerLost:
		p.producerUp = false
		if p.State == Unassigned || p.State == Withdrawing || p.State == Stopped || p.State == Held {
			return nil
		}
		return p.withdraw(true)
	case EvProducerReady:
		p.producerUp = true
		if p.State == NoProducer {
			return p.claim()
		}
		return nil
	}
	if e.Life != p.Life && !guard.Off(guard.Lives) {
		return nil // of a life that is over
	}
	switch e.Kind {
	case EvWithdrawn:
		return p.withdrawn()
	case EvFailed:
		return p.withdraw(false)
	case EvRefused:
		return p.withdraw(false)
	case EvBroken:
		if p.State == Withdrawing {
			return nil // given up first, or a revoke would wait for ever; the look after the next claim finds it again
		}
		return p.stop(e.Why)
	case EvRetry:
		if p.State == Waiting || p.State == Held || p.State == Stopped {
			return p.claim()
		}
		return nil
	}
	return p.progress(e)
}

// progress is the way from claim to consume, and consuming.
func (p *Partition) progress(e Event) []Action {
	switch {
	case e.Kind == EvHeld && p.State == Claiming:
		p.State, p.Reason = Held, e.Why
		return []Action{{Kind: DoRetry, Life: p.Life, Why: "held", Attempt: 1}}
	case (e.Kind == EvClaimed || e.Kind == EvUnclaimed) && p.State == Claiming:
		p.State = Looking
		p.Epoch, p.LedgerSeq, p.Next, p.Floor = e.Claim.Epoch, e.Claim.LedgerSeq, e.Claim.Next, e.Claim.Floor
		p.Head, p.Care = e.Claim.Head, e.Claim.Care
		p.Captured, p.Predecessors, p.LeaderEpoch = e.Claim.Captured, e.Claim.Predecessors, e.Claim.LeaderEpoch
		return p.do(DoLook)
	case e.Kind == EvUnstable && p.State == Looking:
		p.State = Fencing
		return p.do(DoFence)
	case e.Kind == EvFenced && p.State == Fencing:
		p.State = Looking
		return p.do(DoLook)
	case e.Kind == EvLooked && p.State == Looking:
		return p.looked(e.Look)
	case e.Kind == EvStarted && p.State == Starting:
		return p.claim()
	case e.Kind == EvScanned && p.State == Scanning:
		return p.restore(max(e.To, p.Floor))
	case e.Kind == EvPublished && p.State == Draining:
		return p.drain(e.To) // what is left, or to work
	case e.Kind == EvPublished && p.State == Consuming:
		p.Published = e.To
		return nil
	case e.Kind == EvCaptured && p.State == Consuming:
		p.Next, p.Attempts = e.To, 0 // it gets on: only now is the trouble over
		return p.do(DoPublish)
	}
	return nil
}

func (p *Partition) do(k ActionKind) []Action { return []Action{{Kind: k, Life: p.Life}} }

func (p *Partition) claim() []Action {
	p.Life++
	p.Attempts++
	if !p.producerUp {
		p.State = NoProducer
		return nil
	}
	p.State, p.Epoch = Claiming, 0
	return p.do(DoClaim)
}

// drain publishes from the group offset to the stored one; where there is nothing owed, the partition goes to work at once.
func (p *Partition) drain(groupOffset int64) []Action {
	if groupOffset > p.Next {
		return p.ahead(brokenAhead(groupOffset, p.Next))
	}
	p.Published = groupOffset
	if p.Published == p.Next {
		return p.consume()
	}
	p.State = Draining
	return []Action{{Kind: DoDrain, Life: p.Life, From: p.Published, To: p.Next}}
}

// restore drains from where the scan ended. Even where nothing is owed it commits the group offset that was gone.
func (p *Partition) restore(scanned int64) []Action {
	if scanned != p.Next {
		return p.drain(scanned)
	}
	p.Published, p.State = scanned, Draining
	return []Action{{Kind: DoDrain, Life: p.Life, From: scanned, To: p.Next}}
}

func (p *Partition) consume() []Action {
	p.State, p.Reason, p.Doubt = Consuming, "", -1
	return []Action{{Kind: DoDrained, Life: p.Life}, {Kind: DoConsume, Life: p.Life, From: p.Next}}
}

func (p *Partition) withdraw(abort bool) []Action {
	if p.State == Withdrawing && !abort {
		return nil // under way: its withdrawn is still to come, and must not find itself stale
	}
	p.Life++ // whatever comes back from now on is stale
	p.State = Withdrawing
	return []Action{{Kind: DoWithdraw, Life: p.Life, Abort: abort}}
}

// withdrawn: given up. While the assignment still holds the partition, start again from claim; else forget it. (Without this, a
// late claim by a former owner leaves the partition with nobody.)
func (p *Partition) withdrawn() []Action {
	if p.State != Withdrawing {
		return nil
	}
	if !p.Assigned {
		p.State, p.Attempts, p.Reason, p.Doubt = Unassigned, 0, "", -1
		return p.do(DoRelease)
	}
	if !p.producerUp {
		p.State = NoProducer
		return nil
	}
	p.State = Waiting
	if guard.Off(guard.ClaimedAgain) {
		return nil
	}
	return []Action{{Kind: DoRetry, Life: p.Life, Attempt: max(p.Attempts, 1)}}
}

// ahead: Kafka has what the row we claimed had not. Either Postgres lost it, or we were overtaken: evicted without knowing it yet, we claimed, and
// before our look the new owner claimed after us and went on. The next claim tells: if its epoch is the one after, nobody has claimed in
// between, and what we saw is so. (Without this a worker that was merely slow cries that Postgres has gone back in time: the model found it.)
// That claim waits for the back-off: each one stops the new owner, too, and would be followed by the next for as long as nobody tells us that we are evicted.
func (p *Partition) ahead(why string) []Action {
	sure := p.Doubt >= 0 && (p.Epoch == p.Doubt+1 || p.Epoch == 0 && p.Doubt == 0) // 0: there was no row, twice
	p.Doubt = p.Epoch
	if sure || guard.Off(guard.Doubt) {
		return p.stop(why)
	}
	return p.withdraw(false)
}

// stop refuses the partition until a person has decided; it is looked at again now and then, so that a repair needs no restart.
func (p *Partition) stop(why string) []Action {
	p.Life++
	again := p.Reason == why
	p.State, p.Reason = Stopped, why
	if again {
		why = ""
	}
	return []Action{{Kind: DoWithdraw, Life: p.Life, Abort: true}, {Kind: DoStop, Life: p.Life, Why: why}}
}
