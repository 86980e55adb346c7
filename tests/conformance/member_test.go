package conformance

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/confluent"
	"github.com/exactly-pipeline/exactly/internal/franz"
)

// member is a worker's consumer, with a poll loop of its own in place of the engine's. Partitions it is given are sought to
// one offset, once; those it keeps are not touched.
type member struct {
	w      *world
	src    engine.Source
	from   int64
	closed chan struct{}
	stop   chan struct{}
	once   sync.Once

	mu        sync.Mutex
	fresh     []int32 // assigned, not yet sought
	owned     []int32
	callbacks []string // each with the partitions it named, in order
	stamps    []engine.Stamp
	records   []engine.Record
	err       error   // the first that concerns a partition, or ends the membership
	heard     []error // all
	polls     int
	jobs      []func()
	onRevoke  func(partitions []int32, s engine.Stamp)
}

// joinFrom starts a member that reads from an offset.
func (w *world) joinFrom(id string, from int64) *member {
	w.t.Helper()
	cfg := w.cfg
	cfg.Worker.ID = id
	m := &member{w: w, from: from, closed: make(chan struct{}), stop: make(chan struct{})}
	w.clients = true
	var err error
	if w.client == "franz" {
		m.src, err = franz.NewSource(&cfg, m, zap.NewNop())
	} else {
		m.src, err = confluent.NewSource(&cfg, m, zap.NewNop())
	}
	require.NoError(w.t, err)
	go m.loop()
	w.t.Cleanup(m.close)
	return m
}

// join starts a member under an instance id, which reads what it is given from the first offset.
func (w *world) join(id string) *member { w.t.Helper(); return w.joinFrom(id, 0) }

// joined is a member that owns n partitions.
func (w *world) joined(id string, n int) *member {
	w.t.Helper()
	m := w.join(id)
	m.owns(n)
	return m
}

func (m *member) owns(n int) {
	m.w.t.Helper()
	m.w.until("the member owns its partitions", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return len(m.owned) == n
	})
}

func (m *member) loop() {
	defer close(m.closed)
	var buf []engine.Record
	for {
		select {
		case <-m.stop:
			_ = m.src.Close() // fenced members can't leave well
			return
		default:
		}
		var err error
		buf, err = m.src.Poll(buf[:0], 100, 20*time.Millisecond)
		m.mu.Lock()
		m.polls++
		m.records = append(m.records, slices.Clone(buf)...)
		var partition *engine.PartitionError
		var fatal *engine.FatalError
		if err != nil {
			m.heard = append(m.heard, err)
		}
		if m.err == nil && (errors.As(err, &partition) || errors.As(err, &fatal)) {
			m.err = err
		}
		fresh, jobs := m.fresh, m.jobs
		m.fresh, m.jobs = nil, nil
		m.mu.Unlock()
		for _, p := range fresh { // a client may take a moment to place it
			if m.src.Seek(p, m.from) != nil {
				m.mu.Lock()
				if slices.Contains(m.owned, p) {
					m.fresh = append(m.fresh, p)
				}
				m.mu.Unlock()
			}
		}
		for _, job := range jobs {
			job()
		}
	}
}

// close ends it as a worker that is stopped and means to come back: a static member says no goodbye.
func (m *member) close() {
	m.once.Do(func() { close(m.stop) })
	<-m.closed
}

// seek has the poll loop read a partition from somewhere else.
func (m *member) seek(partition int32, offset int64) {
	m.w.until("the partition is sought", func() bool {
		done := make(chan error, 1)
		m.mu.Lock()
		m.jobs = append(m.jobs, func() { done <- m.src.Seek(partition, offset) })
		m.mu.Unlock()
		return <-done == nil
	})
}

// Assigned implements engine.Listener.
func (m *member) Assigned(ps []int32, s engine.Stamp) { m.note("assigned", ps, s, nil) }

// Revoked implements engine.Listener.
func (m *member) Revoked(ps []int32, s engine.Stamp) { m.note("revoked", ps, s, m.hook()) }

// Lost implements engine.Listener.
func (m *member) Lost(ps []int32, s engine.Stamp) { m.note("lost", ps, s, nil) }

func (m *member) note(what string, ps []int32, s engine.Stamp, hook func([]int32, engine.Stamp)) {
	if hook != nil {
		hook(ps, s)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.callbacks = append(m.callbacks, what+" "+list32(ps))
	m.stamps = append(m.stamps, s)
	if what == "assigned" {
		m.fresh, m.owned = append(m.fresh, ps...), append(m.owned, ps...)
		return
	}
	m.owned = slices.DeleteFunc(m.owned, func(p int32) bool { return slices.Contains(ps, p) })
	m.fresh = slices.DeleteFunc(m.fresh, func(p int32) bool { return slices.Contains(ps, p) })
}

// stamp is the group metadata of the last callback.
func (m *member) stamp() engine.Stamp {
	m.mu.Lock()
	defer m.mu.Unlock()
	require.NotEmpty(m.w.t, m.stamps)
	return m.stamps[len(m.stamps)-1]
}

func (m *member) ownedNow() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(slices.Values(m.owned))
}

func (m *member) told() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.callbacks)
}

func (m *member) got() []engine.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.records)
}

// takes waits until the member has read n records.
func (m *member) takes(n int) []engine.Record {
	m.w.t.Helper()
	m.w.until("the member has read the records", func() bool { return len(m.got()) >= n })
	return m.got()
}

// fails waits for an error that the engine acts on, and says what it concerns.
func (m *member) fails() string {
	m.w.t.Helper()
	var err error
	m.w.until("the member reports an error", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		err = m.err
		return err != nil
	})
	var partition *engine.PartitionError
	if errors.As(err, &partition) {
		return "partition"
	}
	return "membership"
}

// polled says how often it has looked for records.
func (m *member) polled() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.polls
}

func (m *member) hook() func([]int32, engine.Stamp) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.onRevoke
}
