package sim

import (
	"fmt"
	"time"
)

// cheats take out what stands in the models rather than in engine or txn: parts of guards that the real clients and SQL implement.
type cheats struct {
	eager         bool // a client that joins again before the callback that tells of a loss has returned: no guard is out
	freshMetadata bool // 2: group metadata as the client has it when offsets are sent, not the callback's
	noGeneration  bool // 2: none: no member, generation -1
	unstable      bool // 4: the group offset is read although a transaction is about to change it
	reEnrich      bool // 5: a drain enriches again
	sameProducer  bool // 8: a lost producer goes on under its old epoch
	staleClaim    bool // 9: a claim reads what was there before it waited for the row's lock
	unmarked      bool // no process says what it begins, though there is a record that ends it
}

// profile is what a seed draws once: how big, how bad. Each seed has only some kinds of faults, so that some have many of one kind.
type profile struct {
	partitions, workers, records                 int
	maxRecords, maxInFlight, drainRecords, fetch int
	connections                                  int           // sessions that share out a capture
	quarantine                                   int           // deaths over a record, until it is not handled again; 0: never
	length                                       time.Duration // of the time with faults
	every                                        time.Duration // between two of them, about

	slow, lost, late, answerLost, abortable, transient int // per thousand
	kinds                                              []fault
	disaster                                           func(*sim)    // what only a person can mend; nil: none
	takeover                                           bool          // kill one when all is quiet
	quit                                               bool          // stop in order at the end
	killer                                             time.Duration // when a record comes that ends whoever handles it; 0: none

	cuts []cutOff
}

func newProfile(s *sim) profile {
	r := s.rng
	pick := func(of ...int) int { return of[r.IntN(len(of))] }
	p := profile{
		partitions: 2 + r.IntN(5), workers: 2 + r.IntN(3), records: 6 + r.IntN(26),
		maxRecords: pick(1, 2, 4, 50), maxInFlight: pick(1<<20, 1<<20, 1<<20, 900), drainRecords: pick(1, 2, 3, 100), fetch: pick(1, 3, 8),
		connections: pick(1, 1, 2, 3),
		length:      s.between(4*time.Second, 24*time.Second), every: s.between(300*time.Millisecond, 4*time.Second),
		slow: pick(0, 10, 60), lost: pick(0, 0, 5, 30), late: pick(0, 0, 5, 30), answerLost: pick(0, 0, 10, 40), abortable: pick(0, 0, 20, 80),
		transient: pick(0, 0, 30), takeover: r.IntN(3) == 0, quit: r.IntN(2) == 0,
	}
	for i := range faults {
		if r.IntN(3) == 0 {
			p.kinds = append(p.kinds, faults[i])
		}
	}
	if r.IntN(3) == 0 {
		d := disasters[r.IntN(len(disasters))]
		p.disaster = d.strike
		if d.long {
			p.length = s.between(24*time.Second, 34*time.Second)
		}
	}
	p.quarantine = pick(0, 1, 2, 2)
	if p.quarantine > 0 && r.IntN(2) == 0 {
		p.killer = s.between(0, p.length)
		if s.cheat.unmarked {
			p.quarantine = 0
		}
	}
	return p
}

// live is the life of one seed's world: faults for a while, then none, and then everything has to arrive.
func (s *sim) live() {
	s.letGo = true
	s.settle()
	s.faulty, s.lagging = true, true
	for i := range s.p.workers {
		s.at(s.between(0, 300*time.Millisecond), nil, nil, func() { s.spawn(workerID(i)) })
	}
	for range s.p.records {
		s.at(s.between(0, s.p.length), nil, nil, func() { s.k.append(int32(s.rng.IntN(s.p.partitions))) })
	}
	s.at(s.between(0, 2*s.p.every), nil, nil, s.nemesis)
	if s.p.killer > 0 {
		s.at(s.p.killer, nil, nil, func() {
			s.killers++
			s.k.append(int32(s.rng.IntN(s.p.partitions)))
		})
	}
	if s.p.disaster != nil {
		s.at(s.between(0, s.p.length*3/4), nil, nil, func() { s.p.disaster(s) })
	}
	s.run(s.p.length, never)
	s.heal()
	s.arrive("stuck", healBound)
	if s.failure == nil && s.repair() {
		s.arrive("stuck after a repair", healBound)
	}
	if s.failure == nil && s.p.takeover {
		s.takeOver()
	}
	if s.failure == nil && s.p.quit {
		s.quitAll()
	}
}

func never() bool { return false }

func workerID(i int) string { return string(rune('a' + i)) }

// What must be over when, in simulated time, once the faults stop.
const (
	// healBound is for whatever the faults left: a frozen worker's session, then its transaction at the broker's next sweep, locks, back-offs.
	healBound = 60 * time.Second
	// takeoverBound is for one worker killed in a quiet world, beyond the session timeout: a heartbeat of the others, the stable timeout,
	// a lock timeout, two rebalances.
	takeoverBound = 8 * time.Second
)

// arrive waits until every record has arrived, or waits for a person.
func (s *sim) arrive(kind string, bound time.Duration) {
	for p := range s.p.partitions {
		s.k.append(int32(p))
	}
	s.truth.changed, s.halted = true, 0
	alive := len(s.alive())
	arrived := s.run(s.now+bound, s.settled)
	if !arrived && s.failure == nil && len(s.alive()) < alive {
		// A registration of a dead process under the same id arrived late, and whoever lives under it was told that it is not the one: it ends, for its supervisor
		// to start it again, and is waited for like any other.
		arrived = s.run(s.now+sessionTimeout+takeoverBound, s.settled)
	}
	if !arrived && s.failure == nil {
		s.broke(kind, "%s", s.missing())
	}
	if s.failure == nil {
		s.truth.complete()
	}
}

// settled says whether all has arrived.
func (s *sim) settled() bool {
	if !s.truth.changed {
		return false
	}
	s.truth.changed = false
	return s.missing() == ""
}

// missing says what has not arrived, and should have.
func (s *sim) missing() string {
	for p := range int32(s.p.partitions) {
		l, pt := s.k.in[p], &s.truth.parts[p]
		cause, must := s.cause(p)
		if cause != "" && s.stopped(p) {
			continue
		}
		last := int64(0)
		if n := len(l.records); n > 0 {
			last = l.records[n-1].Offset + 1
		}
		next := int64(-1)
		if r := s.pg.rows[p]; r != nil {
			next = r.next
		}
		if must || next < last || pt.published < last {
			return fmt.Sprintf("partition %d: log ends at %d, stored offset %d, published up to %d, states %s; stops for %q", p, last, next, pt.published, s.states(p), cause)
		}
	}
	return ""
}

func (s *sim) states(p int32) string {
	out := ""
	for _, w := range s.workers {
		if !w.dead && w.states[p] != "" {
			out += w.name() + " " + string(w.states[p]) + " "
		}
	}
	return out
}

// takeOver kills one worker in the middle of its work. The others have its partitions within the session timeout and a bound. It waits
// until the group is quiet: whoever dies while a rebalance waits for another dead member counts as alive until that one's session is over,
// and only then begins its own (ClassicGroup takes who waits in a join for alive).
func (s *sim) takeOver() {
	if !s.run(s.now+healBound, s.k.group.quiet) {
		if s.failure == nil {
			s.broke("stuck", "the group does not come to rest")
		}
		return
	}
	alive := s.alive()
	if len(alive) < 2 {
		return
	}
	for range 3 * s.p.partitions {
		s.at(s.between(0, 300*time.Millisecond), nil, nil, func() { s.k.append(int32(s.rng.IntN(s.p.partitions))) })
	}
	s.run(s.now+s.between(0, 350*time.Millisecond), never)
	s.say(nil, "take-over", 0, 0)
	if alive = s.alive(); len(alive) < 2 {
		return
	}
	s.strikeDead(alive[s.rng.IntN(len(alive))], s.chance(300))
	s.arrive("take-over", sessionTimeout+takeoverBound)
}

// quitAll stops all workers in order: each ends without an error, in time.
func (s *sim) quitAll() {
	s.closing = true
	for _, w := range s.alive() {
		w.quits = true
		w.quit()
	}
	if !s.run(s.now+stopTimeout+10*time.Second, func() bool { return len(s.alive()) == 0 }) && s.failure == nil {
		s.broke("stop", "%d workers do not end", len(s.alive()))
	}
}

func (s *sim) alive() []*worker {
	var out []*worker
	for _, w := range s.workers {
		if !w.dead {
			out = append(out, w)
		}
	}
	return out
}
