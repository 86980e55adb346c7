package chaos

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

// lookEvery is how fine recovery times are.
const lookEvery = 250 * time.Millisecond

// Position is one source partition's.
type Position struct {
	End, Stored, Published int64  // the input's end, the stored offset, the group offset
	Epoch                  int64  // of its last claim
	Worker                 string // whose it is; empty: nobody's, or not known
}

// State is where everything was at one time.
type State struct {
	At        time.Time
	Positions map[int32]Position
}

// Sums are the offsets of all partitions, added up: of the inputs' ends, stored, published.
func (s State) Sums() (sent, stored, published int64) {
	for _, p := range s.Positions {
		sent, stored, published = sent+p.End, stored+p.Stored, published+p.Published
	}
	return sent, stored, published
}

// watch looks at the stores for as long as the run lasts. What cannot be asked keeps its last value; a look in which nothing could be asked
// leaves none.
type watch struct {
	c *Chaos

	mu      sync.Mutex
	states  []State
	more    chan struct{} // closed at the next one
	moved   time.Time     // when something was captured or published last
	longest time.Duration // without that, though there was work
}

func newWatch(c *Chaos) *watch {
	return &watch{c: c, more: make(chan struct{}), moved: time.Now()}
}

func (w *watch) run(ctx context.Context) {
	for {
		w.look(ctx)
		if wait.For(ctx, lookEvery) != nil {
			return
		}
	}
}

// look reads the ends last, so that no position is above its end; a group offset that is pending is what it was.
func (w *watch) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	now := State{At: time.Now(), Positions: map[int32]Position{}}
	var ids []int32
	for p, at := range w.last().Positions {
		now.Positions[p] = at
		ids = append(ids, p)
	}
	asked := false
	if len(ids) > 0 {
		if offsets, err := w.c.adm.GroupOffsets(ctx, ids); err == nil {
			asked = true
			for p, o := range offsets {
				if !o.Pending && o.Has {
					at := now.Positions[p]
					at.Published = max(at.Published, o.Offset)
					now.Positions[p] = at
				}
			}
		}
	}
	asked = w.stored(ctx, now) || asked
	if ends, err := w.c.adm.Kadm().ListEndOffsets(ctx, w.c.cfg.Topics.Input); err == nil && ends.Error() == nil {
		asked = true
		for p, e := range ends[w.c.cfg.Topics.Input] {
			at := now.Positions[p]
			at.End = e.Offset
			now.Positions[p] = at
		}
	}
	if asked {
		w.add(now)
	}
}

func (w *watch) stored(ctx context.Context, now State) bool {
	// The row's worker is who drained last. Who has claimed since is among the claimants, and if they are several, nobody can say which of them last.
	rows, err := w.c.db.Query(ctx, `SELECT o.source_partition, o.next_offset, o.epoch,
		CASE cardinality(o.claimants) WHEN 0 THEN o.worker WHEN 1 THEN o.claimants[1] ELSE '' END FROM partition_offsets o JOIN sources s USING (source_id)
		WHERE s.topic = $1 AND s.group_id = $2 AND s.retired_at IS NULL`, w.c.cfg.Topics.Input, w.c.cfg.Group)
	if err != nil {
		return false
	}
	defer rows.Close()
	for rows.Next() {
		var id int32
		var p Position
		if rows.Scan(&id, &p.Stored, &p.Epoch, &p.Worker) != nil {
			return false
		}
		was := now.Positions[id]
		p.End, p.Published = was.End, was.Published
		now.Positions[id] = p
	}
	return rows.Err() == nil
}

func (w *watch) add(s State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var was State
	if n := len(w.states); n > 0 {
		was = w.states[n-1]
	}
	sent, stored, published := s.Sums()
	_, storedWas, publishedWas := was.Sums()
	if stored > storedWas || published > publishedWas || published == sent {
		w.moved = s.At
	}
	w.longest = max(w.longest, s.At.Sub(w.moved))
	w.states = append(w.states, s)
	close(w.more)
	w.more = make(chan struct{})
}

// last is the present state.
func (w *watch) last() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.states) == 0 {
		return State{}
	}
	return w.states[len(w.states)-1]
}

// at is the last state before that time.
func (w *watch) at(t time.Time) State {
	w.mu.Lock()
	defer w.mu.Unlock()
	i, _ := slices.BinarySearchFunc(w.states, t, func(s State, t time.Time) int { return s.At.Compare(t) })
	if i == 0 {
		return State{At: t}
	}
	return w.states[i-1]
}

// next is the first state after that time; it waits for one.
func (w *watch) next(ctx context.Context, than time.Time) (State, bool) {
	for {
		w.mu.Lock()
		more := w.more
		i, there := slices.BinarySearchFunc(w.states, than, func(s State, t time.Time) int { return s.At.Compare(t) })
		if there {
			i++
		}
		if i < len(w.states) {
			s := w.states[i]
			w.mu.Unlock()
			return s, true
		}
		w.mu.Unlock()
		select {
		case <-ctx.Done():
			return w.last(), false
		case <-more:
		}
	}
}

// Last is where everything is now.
func (c *Chaos) Last() State { return c.watch.last() }

// Admin asks the brokers, by ways that nothing is done to.
func (c *Chaos) Admin() *admin.Admin { return c.adm }

// owned are the partitions that the worker had at that time.
func owned(s State, worker string) map[int32]Position {
	out := map[int32]Position{}
	for id, p := range s.Positions {
		if p.Worker == worker {
			out[id] = p
		}
	}
	return out
}

// awaitRecovery measures how long it takes until the partitions of a struck worker are claimed anew, and until what was owed is published
// and every partition that had work has gone on. One that does not come about within the limit is a failure of its own: stuck.
func (c *Chaos) awaitRecovery(ctx context.Context, f *Fault) {
	ctx, cancel := context.WithTimeout(ctx, c.opt.Limit)
	defer cancel()
	s, from := State{At: f.at}, f.before
	if f.Standstill { // what happens to be done at the strike says nothing; what waits when it is over has to go on
		from = f.healed
		s.At = f.healed.At
	}
	for {
		var ok bool
		if s, ok = c.watch.next(ctx, s.At); !ok {
			f.fail("stuck: not recovered within %v: %s", c.opt.Limit, lagging(f.before, s))
			return
		}
		taken := true
		for id, p := range f.had {
			taken = taken && s.Positions[id].Epoch > p.Epoch
		}
		if taken && f.TakeoverMs == 0 && len(f.had) > 0 {
			f.TakeoverMs = s.At.Sub(f.at).Milliseconds()
		}
		if taken && lagging(f.before, s) == "" && lagging(from, s) == "" && moved(from, s) {
			break
		}
	}
	f.TookMs, f.Recovered, f.Partitions = s.At.Sub(f.at).Milliseconds(), true, len(f.had)
	_, stored, published := s.Sums()
	_, storedWas, publishedWas := f.before.Sums()
	f.Captured, f.Published = stored-storedWas, published-publishedWas
}

// moved says whether anything was captured and published since, or nothing is left to be.
func moved(before, now State) bool {
	sent, stored, published := now.Sums()
	_, storedWas, publishedWas := before.Sums()
	return stored > storedWas && published > publishedWas || published == sent
}

// lagging names a partition that has not recovered: it owes what it owed then, or had work and has not gone on.
func lagging(before, now State) string {
	for id, b := range before.Positions {
		n := now.Positions[id]
		switch {
		case n.Published < b.Stored:
			return "Kafka is still owed what was captured of partition " + itoa(id)
		case b.End > b.Stored && n.Stored <= b.Stored:
			return "partition " + itoa(id) + " does not go on"
		}
	}
	return ""
}
