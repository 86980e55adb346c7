package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/exactly-pipeline/exactly/outbox"
)

// world is an in-memory Kafka and Postgres around one worker. It notes whatever breaks the order in wrong.
type world struct {
	mu    sync.Mutex
	wrong []string

	logs     map[int32][]Record // the input
	logStart map[int32]int64    // first offsets still there
	rows     map[int32]*fakeRow // partition_offsets, outbox and enriched rows
	offsets  map[int32]groupOffset
	owned    map[int32]bool // by the group's last word
	out      map[int32][]outbox.Message
	attempts []attempt // every publish, in order
	trace    []string  // claims, looks, renewals, publishes, in order
	ids      map[string]string
	over     chan struct{} // closed when the test is: whatever blocks goes on

	source    *fakeSource
	publisher *fakePublisher

	captureHook func(ctx context.Context, batches []*Batch) (error, bool) // before a capture: its error, and whether it is written all the same
	capturing   bool                                                      // a capture is under way
	captures    [][]*Batch
	beginError  error
	claimHook   func(p int32) // after a claim, before anything else
	lookHook    func(ask int) // after the offsets were read, before they are told
	looks       int
	renewHook   func(ctx context.Context) error
	replaced    bool
	storeAway   bool // as far as it is asked who we are
	left        bool
	unowned     []int32 // partitions no member has
	rebalancing bool
}

type groupOffset struct {
	at   int64
	ours bool
}

// attempt is one call of Publish.
type attempt struct {
	items   []Item
	stamp   Stamp
	outcome Outcome
}

func newWorld(partitions int32, records int) *world {
	w := &world{
		logs: map[int32][]Record{}, logStart: map[int32]int64{}, rows: map[int32]*fakeRow{}, offsets: map[int32]groupOffset{}, owned: map[int32]bool{},
		out: map[int32][]outbox.Message{}, ids: map[string]string{"in": "1", "out": "2", "dlq": "3"},
	}
	for p := range partitions {
		w.append(p, records)
		w.rows[p] = &fakeRow{}
	}
	w.source = &fakeSource{w: w, calls: make(chan func(Listener)), errs: make(chan error, 8), pos: map[int32]int64{}, paused: map[int32]bool{}, wake: make(chan struct{}, 1)}
	w.publisher = &fakePublisher{w: w, entered: make(chan attempt), decide: make(chan Outcome)}
	return w
}

// append produces n records to a partition of the input.
func (w *world) append(p int32, n int) {
	for range n {
		o := int64(len(w.logs[p]))
		w.logs[p] = append(w.logs[p], Record{Partition: p, Offset: o, LeaderEpoch: 0, TimestampMs: 1000 + o, Key: []byte("k"), Value: fmt.Appendf(nil, "%d/%d", p, o)})
	}
}

func (w *world) produce(p int32, n int) {
	w.mu.Lock()
	w.append(p, n)
	w.mu.Unlock()
	select {
	case w.source.wake <- struct{}{}:
	default:
	}
}

func (w *world) say(format string, a ...any) { w.trace = append(w.trace, fmt.Sprintf(format, a...)) }

func (w *world) blame(format string, a ...any) {
	w.wrong = append(w.wrong, fmt.Sprintf(format, a...))
}

// fakeSource is a group member: one goroutine polls, rebalances happen inside Poll, records come by position.
type fakeSource struct {
	w        *world
	listener Listener
	calls    chan func(Listener)
	errs     chan error
	wake     chan struct{}
	pos      map[int32]int64 // of partitions that were sought
	paused   map[int32]bool
	seeks    []string
	pauses   int
	resumes  int
	closed   bool
	max      int // records in one poll; 0: as many as asked for
	polled   time.Time
	longest  time.Duration // between two polls
}

func (s *fakeSource) Poll(buf []Record, n int, wait time.Duration) ([]Record, error) {
	s.w.mu.Lock()
	if !s.polled.IsZero() {
		s.longest = max(s.longest, time.Since(s.polled))
	}
	s.polled = time.Now()
	s.w.mu.Unlock()
	select {
	case f := <-s.calls:
		s.invoke(f)
		return buf, nil
	case err := <-s.errs:
		return buf, err
	default:
	}
	if s.max > 0 {
		n = min(n, s.max)
	}
	if buf = s.read(buf, n); len(buf) > 0 {
		return buf, nil
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case f := <-s.calls:
		s.invoke(f)
	case err := <-s.errs:
		return buf, err
	case <-s.wake:
	case <-t.C:
	}
	return s.read(buf, n), nil
}

// invoke runs a callback inside the poll. One that never returns is left behind when the test is over, or it could not fail.
func (s *fakeSource) invoke(f func(Listener)) {
	done := make(chan struct{})
	go func() { f(s.listener); close(done) }()
	s.w.block(done)
}

func (s *fakeSource) read(buf []Record, n int) []Record {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	for p := int32(0); int(p) < len(s.w.logs); p++ {
		at, ok := s.pos[p]
		if !ok || s.paused[p] || !s.w.owned[p] {
			continue
		}
		for n > 0 && at < int64(len(s.w.logs[p])) {
			buf = append(buf, s.w.logs[p][at])
			at++
			n--
		}
		s.pos[p] = at
	}
	return buf
}

func (s *fakeSource) Seek(p int32, offset int64) error {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if !s.w.owned[p] {
		return errors.New("erroneous state")
	}
	s.pos[p] = offset
	delete(s.paused, p)
	s.seeks = append(s.seeks, fmt.Sprintf("%d to %d", p, offset))
	return nil
}

func (s *fakeSource) Pause(ps []int32) error {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.pauses++
	for _, p := range ps {
		s.paused[p] = true
	}
	return nil
}

func (s *fakeSource) Resume(ps []int32) error {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.resumes++
	for _, p := range ps {
		delete(s.paused, p)
	}
	return nil
}

// Close gives up what is owned through the listener, as a member that leaves does.
func (s *fakeSource) Close() error {
	s.w.mu.Lock()
	s.closed = true
	var ps []int32
	for p := range s.w.owned {
		ps = append(ps, p)
	}
	slices.Sort(ps)
	s.w.mu.Unlock()
	if len(ps) > 0 {
		s.invoke(func(l Listener) { l.Revoked(ps, "closing") })
	}
	s.w.mu.Lock()
	clear(s.w.owned)
	s.w.mu.Unlock()
	return nil
}

// fakePublisher is the Kafka transaction. With hold set, each call reports on entered and waits for its outcome on decide; cancelled is
// asked after that, as before a commit.
type fakePublisher struct {
	w       *world
	hold    bool
	entered chan attempt
	decide  chan Outcome
	accepts func(Stamp) bool // the broker's view of member and generation; nil: any
	outcome func([]Item) (o Outcome, written bool, takes time.Duration)
	up      bool
	busy    bool // a call is under way
	closes  int
}

func (p *fakePublisher) Publish(items []Item, s Stamp, cancelled func() bool) (Outcome, error) {
	p.w.mu.Lock()
	if !p.up {
		p.w.blame("publish without a producer")
	}
	p.busy = true
	hold := p.hold
	p.w.mu.Unlock()
	o, written := Committed, false
	if p.outcome != nil {
		var d time.Duration
		p.w.mu.Lock()
		o, written, d = p.outcome(items)
		p.w.mu.Unlock()
		time.Sleep(d)
	}
	if hold {
		o = p.held(attempt{items: slices.Clone(items), stamp: s})
	}
	if o == Committed && cancelled() {
		o = Aborted
	}
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.busy = false
	if o == Committed && p.accepts != nil && !p.accepts(s) {
		o = StaleStamp
	}
	p.w.attempts = append(p.w.attempts, attempt{slices.Clone(items), s, o})
	p.w.say("publish %s", o)
	if o == Committed || o == Lost && written && !cancelled() {
		for i := range items {
			p.w.commit(&items[i])
		}
	}
	if o == Committed {
		return o, nil
	}
	return o, errors.New(o.String())
}

func (p *fakePublisher) held(a attempt) Outcome {
	select {
	case p.entered <- a:
	case <-p.w.over:
		return Lost
	}
	select {
	case o := <-p.decide:
		return o
	case <-p.w.over:
		return Lost
	}
}

// block waits for c, or for the test's end.
func (w *world) block(c <-chan struct{}) {
	select {
	case <-c:
	case <-w.over:
	}
}

// commit is what the broker does, with the checks a broker can't make.
func (w *world) commit(it *Item) {
	r := w.rows[it.Partition]
	if !w.owned[it.Partition] {
		w.blame("partition %d: committed to %d after it was given up", it.Partition, it.To)
	}
	if it.To > r.next {
		w.blame("partition %d: Kafka is ahead, %d > %d", it.Partition, it.To, r.next)
	}
	if g := w.offsets[it.Partition]; it.To < g.at {
		w.blame("partition %d: group offset goes back from %d to %d", it.Partition, g.at, it.To)
	}
	w.offsets[it.Partition] = groupOffset{it.To, true}
	w.out[it.Partition] = append(w.out[it.Partition], it.Messages...)
}

func (p *fakePublisher) Renew(ctx context.Context) error {
	p.w.mu.Lock()
	hook := p.w.renewHook
	if p.busy {
		p.w.blame("renewed while a call was under way")
	}
	p.busy = true
	p.w.mu.Unlock()
	var err error
	if hook != nil {
		err = hook(ctx)
	}
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.busy = false
	if err == nil {
		p.up = true
		p.w.say("renew")
	}
	return err
}

func (p *fakePublisher) Close() {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	if p.busy {
		p.w.blame("closed while a call was under way")
	}
	p.up = false
	p.closes++
}
