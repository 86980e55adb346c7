package conformance

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/confluent"
)

// member is a worker's consumer, with a poll loop of its own in place of the engine's. Partitions it is given are read from offset 0,
// once; those it keeps are not touched.
type member struct {
	w      *world
	src    *confluent.Source
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
	jobs      []func()
	onRevoke  func(partitions []int32, s engine.Stamp)
}

// join starts a member under an instance id.
func (w *world) join(id string) *member {
	w.t.Helper()
	cfg := w.cfg
	cfg.Worker.ID = id
	m := &member{w: w, closed: make(chan struct{}), stop: make(chan struct{})}
	var err error
	m.src, err = confluent.NewSource(&cfg, m, zap.NewNop())
	require.NoError(w.t, err)
	go m.loop()
	w.t.Cleanup(m.close)
	return m
}

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
		for _, p := range fresh {
			if err := m.src.Seek(p, 0); err != nil {
				m.mu.Lock()
				m.err = errors.Join(m.err, err)
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
	done := make(chan error, 1)
	m.mu.Lock()
	m.jobs = append(m.jobs, func() { done <- m.src.Seek(partition, offset) })
	m.mu.Unlock()
	require.NoError(m.w.t, <-done)
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

// fails waits for the member's error, and is the client's name for it.
func (m *member) fails() string {
	m.w.t.Helper()
	var err error
	m.w.until("the member reports an error", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		err = m.err
		return err != nil
	})
	return clientName(err)
}

// hears says whether the client has reported an error of that kind, be it one that passes.
func (m *member) hears(c kafka.ErrorCode) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.heard, func(err error) bool {
		var ke kafka.Error
		return errors.As(err, &ke) && ke.Code() == c
	})
}

// clientName is an error of librdkafka's by its code.
func clientName(err error) string {
	var ke kafka.Error
	if errors.As(err, &ke) {
		return ke.Code().String()
	}
	return name(err)
}

func (m *member) hook() func([]int32, engine.Stamp) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.onRevoke
}
