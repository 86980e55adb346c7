// Package audit owns the proof: the input topic, the rows, the dead letters, the outbox, the ledger and the output topics, held
// against each other as multisets by source coordinates (source partition, source offset).
//
// It promises that what it calls clean is: every input record up to the stored offset exactly once in Postgres, every one below
// the group offset exactly once in Kafka, the same in both; and that it finds nothing false beside workers that go on working.
// What can't be decided is an outcome of its own, never a pass. It never trusts what the pipeline says of itself: it shares no
// code with the rooms that capture and publish, it recomputes every hash, and it reads the topics as any other consumer would.
//
// The order of reading is what makes it right beside live workers (see Run).
package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Options says what to audit. Everything but the first block has a default.
type Options struct {
	Brokers     []string // seed brokers, host:port
	DSN         string   // Postgres; never printed
	RegistryURL string   // schema registry, Confluent API
	Group       string   // consumer group of the workers
	Input       string   // topic the workers read
	Output      string   // topic of enriched clicks
	DLQ         string   // topic of dead letters

	Settled           bool                              // nothing may be owed or waiting: for when all work is done
	Partition         *int32                            // only this source partition; nil: all
	MaxFindings       int                               // findings kept with their coordinates (all are counted); 100
	StableWait        time.Duration                     // how long the group offset may stay unstable before its last stable value is taken; 2s
	UndecidedIn       time.Duration                     // how long an open transaction may hide an event before it is called undecided; 30s
	Workers           int                               // streams read and decoded at once, per store; the number of cores, 2 to 8
	KafkaOpts         []kgo.Opt                         // TLS, SASL, …
	RegistryTransport http.RoundTripper                 // TLS, who we are, …; nil: none of it
	Progress          func(stage string, records int64) // called from several goroutines; nil: nobody watches
}

func (o *Options) fill() error {
	for _, n := range []struct{ name, value string }{{"group", o.Group}, {"input topic", o.Input}, {"output topic", o.Output}, {"DLQ topic", o.DLQ}, {"Postgres DSN", o.DSN}} {
		if n.value == "" {
			return fmt.Errorf("audit: no %s given", n.name)
		}
	}
	if len(o.Brokers) == 0 {
		return errors.New("audit: no brokers given")
	}
	o.MaxFindings = cmp.Or(o.MaxFindings, 100)
	o.StableWait = cmp.Or(o.StableWait, 2*time.Second)
	o.UndecidedIn = cmp.Or(o.UndecidedIn, 30*time.Second)
	o.Workers = cmp.Or(o.Workers, min(max(runtime.NumCPU(), 2), 8))
	return nil
}

// run is one audit under way.
type run struct {
	opts     Options
	hash     hasher
	findings *collector
	kafka    *kafka
	pg       *snapshot
	dec      decoder
	source   int16
	sources  map[int16]bool // every source there is; rows of another one belong to another audit
	parts    map[int32]*partition
	outputs  map[string]*output
	totals   Totals
	stage    string
	progress atomic.Int64
	// group offsets held by a transaction that stays open: what is below them is as certain, the end is not
	unstable map[int32]bool
}

// Run audits once. An error means that it could not be done; what it found is in the report.
//
// The order: (1) the group offsets G, then the ends of the output topics, (2) a Postgres snapshot with the stored offsets S,
// (3) the input up to S, the snapshot's tables, then the output topics up to their stable ends as listed now. G was read first and S
// only grows, so G <= S holds of any honest pipeline, and whatever was published by (1) must be seen in (3). Events in [G, S)
// may be there already or not yet, events from S on were captured after the snapshot: S is read again at the end and must cover them.
//
// One thing moves the other way: a Kafka transaction's commit reaches the group's partition and the output partitions one by one.
// G may be ahead of the outputs' stable ends for that moment, or for as long as another transaction is open before it in the log.
// An event missing under those circumstances is waited for, up to the ends listed at (1), before anything is said of it.
func Run(ctx context.Context, opts Options) (*Report, error) {
	if err := opts.fill(); err != nil {
		return nil, err
	}
	begun := time.Now()
	r := &run{opts: opts, hash: newHasher(), findings: newCollector(opts.MaxFindings), parts: map[int32]*partition{}, unstable: map[int32]bool{}}
	dec, done, err := newDecoder(&r.opts)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	defer done()
	r.dec = dec
	if r.kafka, err = newKafka(ctx, &r.opts); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	defer r.kafka.close()
	for _, step := range []struct {
		stage string
		do    func(context.Context) error
	}{
		{"group offsets", r.readGroup},
		{"Postgres snapshot", r.openSnapshot},
		{"ledger", r.readLedger},
		{"input", r.readInput},
		{"rows", r.readRows},
		{"dead letters", r.readDeadLetters},
		{"outbox", r.readOutbox},
		{"output topics", r.readOutputs},
		{"what is still hidden", r.waitForHidden},
		{"stored offsets again", r.readAgain},
	} {
		r.stage = step.stage
		r.progress.Store(0)
		if err := step.do(ctx); err != nil {
			r.pg.close()
			return nil, fmt.Errorf("audit: read %s: %w", step.stage, err)
		}
	}
	r.settle()
	r.explain(ctx)
	r.pg.close()
	return r.report(begun), nil
}

// tell passes on that n more records of the present stage are done.
func (r *run) tell(n int) {
	done := r.progress.Add(int64(n))
	if r.opts.Progress != nil {
		r.opts.Progress(r.stage, done)
	}
}

// wants is false for source partitions the caller did not ask for.
func (r *run) wants(partition int32) bool {
	return r.opts.Partition == nil || *r.opts.Partition == partition
}
