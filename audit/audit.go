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
	"crypto/ed25519"
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
	IP          string   // what the workers keep of addresses: keep, truncate or hash; empty: keep
	IPKey       []byte   // the key of hash
	Format      string   // what clicks are written in: avro or json; empty: avro

	Heads             string                            // topic of the ledger's heads; empty: they are not looked at
	PublicKey         ed25519.PublicKey                 // heads must be signed with its private key; nil: signatures are not checked
	Anchor            string                            // file of heads kept elsewhere: checked, and added to if the ledger is sound; empty: none
	Archive           string                            // folder of the ledger's archives; empty: what was archived is not read
	Mark              bool                              // write in Postgres up to where everything is proven (exactly_verified_through)
	Settled           bool                              // nothing may be owed or waiting: for when all work is done
	Partition         *int32                            // only this source partition; nil: all
	Since, Until      time.Time                         // only what was captured from Since on and before Until, by the database's clock; zero: all
	MaxFindings       int                               // findings kept with their coordinates (all are counted); 100
	StableWait        time.Duration                     // how long the group offset may stay unstable before its last stable value is taken; 2s
	UndecidedIn       time.Duration                     // how long an open transaction may hide an event before it is called undecided; 30s
	Workers           int                               // streams read and decoded at once, per store; the number of cores, 2 to 8
	KafkaOpts         []kgo.Opt                         // TLS, SASL, …
	RegistryTransport http.RoundTripper                 // TLS, who we are, …; nil: none of it
	Progress          func(stage string, records int64) // called from several goroutines; nil: nobody watches
	Program           string                            // version of the program that audits, for the report
	Watch             func(Progress)                    // the same with what is left, at most twice a second; nil: nobody watches
}

// MemoryLimit is a soft limit (runtime/debug.SetMemoryLimit) that an audit's process does well to set, bytes.
const MemoryLimit = 200 << 20

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
	opts      Options
	hash      hasher
	findings  *collector
	kafka     *kafka
	pg        *snapshot
	dec       decoder
	source    int16
	sources   map[int16]bool // every source there is; rows of another one belong to another audit
	parts     map[int32]*partition
	outputs   map[string]*output
	totals    Totals
	kept      kept
	digests   digests
	anchors   int
	notes     []string
	versions  map[string]string
	facts     map[factKey][]byte // digests of the entries of prunes and erasures
	builds    map[string]bool    // of the programs that wrote the ledger
	deedList  []Deed
	deeds     int64
	stage     string
	progress  atomic.Int64
	done      atomic.Int64 // of all stages
	watched   atomic.Int64 // when Watch was last called, ns
	work      int64        // what there is to do, in records; an estimate
	begun     time.Time
	earlier   *position // what an earlier round has proven; nil: nothing
	follows   bool      // another round may follow
	noInput   bool      // of replays: the input is pointers, which are not looked at
	headsRead map[int32]int64
	heals     map[int32][]knownHead // heads in Kafka that say what a heal has replaced
	archives  map[int32][]archived  // what of the ledger is in files
	// group offsets held by a transaction that stays open: what is below them is as certain, the end is not
	unstable map[int32]bool
	replays  *replays
	counts   map[countsKey]*counted // of the source's and the replays' partitions that are counted
}

func newRun(opts Options) *run {
	return &run{
		opts: opts, begun: time.Now(), hash: newHasher(), findings: newCollector(opts.MaxFindings), parts: map[int32]*partition{}, unstable: map[int32]bool{},
		digests: digests{pending: map[digestKey][]hashed{}}, facts: map[factKey][]byte{}, headsRead: map[int32]int64{}, heals: map[int32][]knownHead{}, archives: map[int32][]archived{}, counts: map[countsKey]*counted{}, versions: map[string]string{}, builds: map[string]bool{},
	}
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
//
// Memory: of each stretch of offsets only sums are kept (see stretch.go), and a bit for each dead letter. Where sums differ, a second pass
// reads the records of those stretches once more, as many at a time as there is room for, and names them.
func Run(ctx context.Context, opts Options) (*Report, error) {
	rep, _, err := runFrom(ctx, opts, nil, false)
	return rep, err
}

// runFrom is Run, of what an earlier round has not proven (nil: of everything). The second result is what is proven then, if it is asked for.
func runFrom(ctx context.Context, opts Options, from *position, follows bool) (*Report, *position, error) {
	if err := opts.fill(); err != nil {
		return nil, nil, err
	}
	r := newRun(opts)
	r.earlier, r.follows = from, follows
	dec, done, err := newDecoder(&r.opts)
	if err != nil {
		return nil, nil, fmt.Errorf("audit: %w", err)
	}
	defer done()
	r.dec = dec
	if r.kafka, err = newKafka(ctx, &r.opts); err != nil {
		return nil, nil, fmt.Errorf("audit: %w", err)
	}
	defer r.kafka.close()
	for _, step := range []struct {
		stage string
		do    func(context.Context) error
	}{
		{"group offsets", r.readGroup},
		{"Postgres snapshot", r.openSnapshot},
		{"ledger archives", r.readArchives},
		{"replays' offsets", r.openReplays},
		{"counts", r.readCounts},
		{"ledger", r.readLedger},
		{"what was pruned and erased", r.readFacts},
		{"dead letters", r.sumDeadLetters},
		{"input", r.sumInput},
		{"rows", r.sumRows},
		{"output topics", r.readOutputs},
		{"what is still hidden", r.waitForHidden},
		{"outbox", r.sumOutbox},
		{"stored offsets again", r.readAgain},
		{"ledger heads", r.readHeads},
		{"anchor file", r.checkAnchor},
		{"replays", r.checkReplays},
		{"counts against rows", r.checkCounts},
		{"what differs", r.settle},
		{"versions", r.readVersions},
	} {
		r.stage = step.stage
		r.progress.Store(0)
		if err := step.do(ctx); err != nil {
			r.pg.close()
			return nil, nil, fmt.Errorf("audit: read %s: %w", step.stage, err)
		}
	}
	r.explain(ctx)
	var to *position
	if follows {
		to, err = r.position(ctx)
	}
	r.pg.close()
	if err == nil {
		err = r.writeAnchor()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("audit: %w", err)
	}
	rep := r.report()
	if r.opts.Mark {
		if err := r.writeMarks(ctx, rep); err != nil {
			return nil, nil, fmt.Errorf("audit: %w", err)
		}
	}
	return rep, to, nil
}

// tell passes on that n more records of the present stage are done.
func (r *run) tell(n int) {
	done := r.progress.Add(int64(n))
	r.done.Add(int64(n))
	r.watch(done)
	if r.opts.Progress != nil {
		r.opts.Progress(r.stage, done)
	}
}

// note is for what it can't vouch for, and why.
func (r *run) note(format string, a ...any) { r.notes = append(r.notes, fmt.Sprintf(format, a...)) }

// wants is false for source partitions the caller did not ask for.
func (r *run) wants(partition int32) bool {
	return r.opts.Partition == nil || *r.opts.Partition == partition
}
