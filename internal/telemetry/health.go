package telemetry

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/exactly-pipeline/exactly/engine"
)

// Health answers whether the worker has started, is alive, and is ready. Not alive means that a restart may help: the program itself stands still.
// A store that is away, or a partition that waits for a person, never makes it so, for a restart would mend neither; then it is not ready.
type Health struct {
	stuckAfter time.Duration
	now        func() time.Time

	mu       sync.Mutex
	waitsFor string // at the start
	started  bool   // it has been a member of the group
	joined   bool
	beat     time.Time // when the engine's loop went round last; zero: it does not run yet
	poll     time.Time // when the source was polled last; zero: likewise
	troubled time.Time // when anything went wrong last that the worker tells of
	away     map[string]string
	parts    map[int32]*vital
}

// vital is what is known of one partition.
type vital struct {
	state         engine.State
	moved         time.Time // it has got on
	stored, group int64
	buffered      int
	waiting       string // the reason of a transient failure, until it is at work again
}

const (
	defaultStuckAfter = 2 * time.Minute
	storePostgres     = "postgres"
	storeKafka        = "kafka"
)

func newHealth(stuckAfter time.Duration) *Health {
	return &Health{stuckAfter: cmp.Or(stuckAfter, defaultStuckAfter), now: time.Now, waitsFor: "its first step", away: map[string]string{}, parts: map[int32]*vital{}}
}

// Starting says what the start waits for now.
func (h *Health) Starting(what string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waitsFor = what
}

// Postgres takes what a look at the database found; "": it is reachable and has this program's migrations.
func (h *Health) Postgres(trouble string) { h.store(storePostgres, trouble) }

func (h *Health) kafka(there bool) {
	trouble := "it does not tell where the input ends"
	if there {
		trouble = ""
	}
	h.store(storeKafka, trouble)
}

func (h *Health) store(name, trouble string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if trouble == "" {
		delete(h.away, name)
		return
	}
	h.away[name], h.troubled = trouble, h.now()
}

func (h *Health) beats() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.beat = h.now()
}

func (h *Health) polled(ago time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.poll = h.now().Add(-ago)
}

func (h *Health) trouble() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.troubled = h.now()
}

func (h *Health) rebalanced(k engine.EventKind) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.joined = k != engine.EvLost
	h.started = h.started || h.joined
}

func (h *Health) state(partition int32, s engine.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s == engine.Unassigned {
		delete(h.parts, partition)
		return
	}
	v := h.known(partition)
	v.state, v.moved = s, h.now()
	if s == engine.Consuming {
		v.waiting = ""
	} else {
		v.buffered = 0
	}
}

func (h *Health) known(partition int32) *vital {
	v := h.parts[partition]
	if v == nil {
		v = &vital{moved: h.now()}
		h.parts[partition] = v
	}
	return v
}

func (h *Health) offsets(partition int32, stored, group int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.known(partition)
	v.stored, v.group, v.moved = stored, group, h.now()
}

// pulse: a partition that had nothing to do begins to be late only now.
func (h *Health) pulse(partition int32, buffered int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.known(partition)
	if !v.works() {
		v.moved = h.now()
	}
	v.buffered = buffered
}

func (h *Health) failed(partition int32, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.known(partition).waiting = reason
	h.troubled = h.now()
}

// standing is each partition's state, and what those wait for that wait.
func (h *Health) standing() (states map[int32]engine.State, waiting map[int32]string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	states, waiting = map[int32]engine.State{}, map[int32]string{}
	for id, v := range h.parts {
		if v.state == "" {
			continue
		}
		states[id] = v.state
		if v.waiting != "" {
			waiting[id] = v.waiting
		}
	}
	return states, waiting
}

// works says whether there is something to be done. The log's end is no part of it: what lies before it may be markers of transactions only, which
// are never read.
func (v *vital) works() bool {
	switch v.state {
	case engine.Consuming:
		return v.buffered > 0 || v.stored > v.group
	case engine.Held, engine.Stopped, engine.NoProducer, engine.Waiting, engine.Unassigned, "":
		return false
	default:
		return true
	}
}

// Live is "" or why the program itself stands still.
func (h *Health) Live() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.live()
}

func (h *Health) live() string {
	now := h.now()
	late := func(last time.Time) bool { return !last.IsZero() && now.Sub(last) > h.stuckAfter }
	if late(h.beat) {
		return fmt.Sprintf("the worker's loop has not gone round for %v", now.Sub(h.beat).Round(time.Second))
	}
	if len(h.away) > 0 || !h.troubled.IsZero() && now.Sub(h.troubled) <= h.stuckAfter {
		return "" // it has a reason, and says so
	}
	if late(h.poll) {
		return fmt.Sprintf("the input has not been polled for %v", now.Sub(h.poll).Round(time.Second))
	}
	for _, id := range slices.Sorted(maps.Keys(h.parts)) {
		if v := h.parts[id]; v.works() && v.waiting == "" && now.Sub(v.moved) > h.stuckAfter {
			return fmt.Sprintf("partition %d is %s, has work, and has not got on for %v", id, v.state, now.Sub(v.moved).Round(time.Second))
		}
	}
	return ""
}

// Ready is "" or why the worker is not at work, or not at all of it.
func (h *Health) Ready() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.started {
		return "starting: waits for " + h.waitsFor
	}
	if why := h.live(); why != "" {
		return why
	}
	for _, store := range []string{storePostgres, storeKafka} { // before what follows from it
		if why := h.away[store]; why != "" {
			return store + ": " + why
		}
	}
	if !h.joined {
		return "no member of the group"
	}
	for _, id := range slices.Sorted(maps.Keys(h.parts)) {
		switch v := h.parts[id]; {
		case v.state == engine.Stopped || v.state == engine.Held:
			return fmt.Sprintf("partition %d is %s", id, v.state)
		case v.waiting != "":
			return fmt.Sprintf("partition %d waits: %s", id, v.waiting)
		}
	}
	return ""
}

// Started is "" once the worker has been a member of the group, for good.
func (h *Health) Started() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.started {
		return ""
	}
	return "waits for " + h.waitsFor
}
