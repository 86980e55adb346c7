// Package transactions owns Kafka transactions seen from outside: which are open, what they keep readers from, and ending one by hand.
//
// It promises that only what was looked at is ended: a transaction that has ended or begun since is left alone. It never commits one, and
// never ends one that nobody named.
package transactions

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
)

// Hanging is the state of a transaction that its partition has open and the transaction coordinator does not know of (KIP-664): no timeout
// will end it.
const Hanging = "Hanging"

// openStates are the coordinator's states of a transaction whose partitions are not all marked yet.
var openStates = []string{"Ongoing", "PrepareCommit", "PrepareAbort", "PrepareEpochFence"}

// Transaction is one open Kafka transaction.
type Transaction struct {
	ID            string      `json:"transactional_id"` // empty: hanging, and the coordinator has no id for the producer
	State         string      `json:"state"`
	ProducerID    int64       `json:"producer_id"`
	ProducerEpoch int16       `json:"producer_epoch"`
	Coordinator   *int32      `json:"coordinator"` // node id of the broker
	StartedAt     *time.Time  `json:"started_at"`  // by the coordinator's clock; null for hanging ones
	AgeMs         *int64      `json:"age_ms"`      // by this machine's clock
	TimeoutMs     *int64      `json:"timeout_ms"`  // after which the coordinator aborts it by itself
	Overdue       bool        `json:"overdue"`     // older than its timeout: the coordinator should have ended it
	AheadMs       *int64      `json:"ahead_ms"`    // it began that much later than now: its coordinator's clock was ahead, and the timeout is late by as much
	Ours          bool        `json:"ours"`        // its id begins with the group's name
	Partitions    []Partition `json:"partitions"`
}

// Partition is a partition with an open transaction in it. What could not be read is null.
type Partition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	First     *int64 `json:"first_offset"` // of the transaction there; null also if it has written nothing there yet
	StableEnd *int64 `json:"stable_end"`   // last stable offset: read_committed readers get this far
	End       *int64 `json:"end"`          // high watermark
	Holds     bool   `json:"holds"`        // the stable end stands at this transaction's first offset: it is the one that holds it back
	Held      *int64 `json:"held_records"` // end - first: what readers can't get while it is open, other transactions' records included

	coordinatorEpoch int32
	epoch            int16
}

// Report is what `txn list` lists.
type Report struct {
	Group        string        `json:"group"`
	All          bool          `json:"all"`
	Transactions []Transaction `json:"transactions"`
	Notes        []string      `json:"notes,omitempty"` // what could not be looked at
}

// Options say what to list.
type Options struct {
	All       bool          // of the whole cluster; else those whose id begins with the group's name, and those in the group's topics
	OlderThan time.Duration // hanging ones have no age and are always listed
}

// Desk is where transactions are looked at and ended.
type Desk struct {
	cfg *config.Config
	a   *admin.Admin
	adm *kadm.Client
	now func() time.Time
}

// New makes a desk on a client, which stays the caller's.
func New(c *config.Config, a *admin.Admin) *Desk { return &Desk{c, a, a.Kadm(), time.Now} }

// List looks at the open transactions, those that have waited longest first. It changes nothing.
func (d *Desk) List(ctx context.Context, o Options) (*Report, error) {
	r := &Report{Group: d.cfg.Group, All: o.All, Transactions: []Transaction{}}
	l := &look{d: d, all: o.All, note: func(format string, a ...any) { r.Notes = append(r.Notes, fmt.Sprintf(format, a...)) }}
	if err := l.run(ctx); err != nil {
		return nil, err
	}
	for _, t := range l.found {
		if t.AgeMs == nil || *t.AgeMs >= o.OlderThan.Milliseconds() {
			r.Transactions = append(r.Transactions, t)
		}
	}
	slices.SortFunc(r.Transactions, func(a, b Transaction) int {
		return cmp.Or(-cmp.Compare(age(a), age(b)), strings.Compare(a.ID, b.ID), cmp.Compare(a.ProducerID, b.ProducerID))
	})
	return r, nil
}

// age sorts hanging ones first: they wait for ever.
func age(t Transaction) int64 {
	if t.AgeMs == nil {
		return 1 << 62
	}
	return *t.AgeMs
}

// ours says whether a transactional id is one of this group's workers or commands. A group whose name begins with this one's and a hyphen
// can't be told apart.
func (d *Desk) ours(id string) bool { return strings.HasPrefix(id, d.cfg.TransactionalID("")) }

// explained says what an error of these requests, which are newer than the others we make, comes from.
func explained(what string, err error) error {
	if refused(err) {
		return fmt.Errorf("%s: this Kafka user may not: %w", what, err)
	}
	return fmt.Errorf("%s (needs Kafka 3.0 or newer): %w", what, err)
}

func ptr[T any](v T) *T { return &v }
