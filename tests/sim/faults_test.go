package sim

import (
	"slices"
	"time"
)

// fault is one kind of what may go wrong and mends by itself.
type fault struct {
	name   string
	strike func(*sim)
	long   bool // it needs time
}

// faults are what nemesis draws from.
var faults = []fault{
	{name: "kill", strike: func(s *sim) { s.killed(false) }},
	{name: "host gone", strike: func(s *sim) { s.killed(true) }},
	{name: "freeze", strike: func(s *sim) { s.frozen(100*time.Millisecond, 6*time.Second) }},
	{name: "freeze past the session timeout", strike: func(s *sim) { s.frozen(8*time.Second, 25*time.Second) }},
	{name: "poll held back", strike: func(s *sim) {
		if w := s.someone(); w != nil && w.client != nil {
			w.client.held = s.now + s.between(100*time.Millisecond, 12*time.Second)
		}
	}},
	{name: "Kafka cut off", strike: func(s *sim) { s.cutFor(toKafka, 500*time.Millisecond, 14*time.Second) }},
	{name: "Postgres cut off", strike: func(s *sim) { s.cutFor(toPostgres, 100*time.Millisecond, 8*time.Second) }},
	{name: "transaction coordinator moved", strike: func(s *sim) { s.k.moved[0] = s.now + s.between(10*time.Millisecond, 5*time.Second) }},
	{name: "group coordinator moved", strike: func(s *sim) { s.k.moved[1] = s.now + s.between(10*time.Millisecond, 5*time.Second) }},
	{name: "Postgres restarted", strike: func(s *sim) { s.pg.restart() }},
	{name: "Postgres away", strike: func(s *sim) {
		s.pg.restart()
		s.pg.down = true
		s.at(s.between(100*time.Millisecond, 6*time.Second), nil, nil, func() { s.pg.down = false })
	}},
	{name: "backend ended", strike: func(s *sim) {
		if n := len(s.pg.sessions); n > 0 {
			s.pg.sessions[s.rng.IntN(n)].terminate()
		}
	}},
	{name: "fenced by somebody", strike: func(s *sim) { s.k.initProducer(workerID(s.rng.IntN(s.p.workers)), nil) }},
	{name: "rebalance", strike: func(s *sim) {
		if g := &s.k.group; !g.preparing && len(g.members) > 0 {
			g.prepare()
		}
	}},
	{name: "stop and start", strike: func(s *sim) {
		if w := s.someone(); w != nil {
			w.quit()
			s.again(w.id, s.between(100*time.Millisecond, 12*time.Second))
		}
	}},
	{name: "commit in doubt", strike: func(s *sim) {
		if w := s.someone(); w != nil {
			w.doubted = true
		}
	}},
	{name: "started twice", strike: func(s *sim) {
		if w := s.someone(); w != nil {
			s.spawn(w.id)
		}
	}},
	{name: "one more", strike: func(s *sim) {
		if len(s.alive()) < 4 {
			s.spawn(workerID(s.p.workers + s.rng.IntN(2)))
		}
	}},
	{name: "held", strike: func(s *sim) {
		if r := s.pg.rows[s.rng.IntN(s.p.partitions)]; r != nil && r.holder == nil {
			r.held = true
			s.at(s.between(time.Second, 8*time.Second), nil, nil, func() { r.held = false })
		}
	}},
	{name: "group offset expired", strike: func(s *sim) {
		p := s.rng.IntN(s.p.partitions)
		if !s.k.pending(int32(p)) && !s.truth.ahead { // with a restored backup it could not be told from a first start
			s.k.group.offsets[p] = committed{expired: true}
		}
	}},
}

// nemesis strikes, and comes again.
func (s *sim) nemesis() {
	if !s.faulty {
		return
	}
	if len(s.p.kinds) > 0 {
		f := s.p.kinds[s.rng.IntN(len(s.p.kinds))]
		s.say(nil, "fault: "+f.name, 0, 0)
		f.strike(s)
	}
	if s.chance(150) {
		s.pg.backup()
	}
	s.at(s.between(s.p.every/2, 2*s.p.every), nil, nil, s.nemesis)
}

// someone is a worker that is neither dead nor frozen.
func (s *sim) someone() *worker {
	ws := slices.DeleteFunc(s.alive(), func(w *worker) bool { return w.frozen || !w.running })
	if len(ws) == 0 {
		return nil
	}
	return ws[s.rng.IntN(len(ws))]
}

func (s *sim) killed(silent bool) {
	w := s.someone()
	if w == nil {
		return
	}
	s.strikeDead(w, silent)
	id := w.id
	if s.chance(200) {
		id = workerID(s.rng.IntN(s.p.workers))
	}
	if s.chance(800) {
		s.again(id, s.between(20*time.Millisecond, 15*time.Second))
	}
}

// strikeDead kills a worker: silent, if nobody says so to Postgres.
func (s *sim) strikeDead(w *worker, silent bool) {
	s.say(w, "is killed", 0, 0)
	w.client.leave()
	w.kill()
	for _, sess := range slices.Clone(s.pg.sessions) {
		if sess.w == w {
			sess.hangUp(silent)
		}
	}
}

// runs says whether there is a process under an id.
func (s *sim) runs(id string) bool {
	return slices.ContainsFunc(s.alive(), func(w *worker) bool { return w.id == id })
}

// again starts a process under an id, unless there is one by then.
func (s *sim) again(id string, d time.Duration) {
	s.at(d, nil, nil, func() {
		if s.faulty && !s.runs(id) {
			s.spawn(id)
		}
	})
}

func (s *sim) frozen(from, to time.Duration) {
	if w := s.someone(); w != nil {
		w.freeze()
		s.at(s.between(from, to), nil, nil, w.thaw)
	}
}

func (s *sim) cutFor(to side, from, until time.Duration) {
	c := cutOff{to: to, until: s.now + s.between(from, until)}
	if w := s.someone(); w != nil && s.chance(700) {
		c.w = w
	}
	s.p.cuts = append(s.p.cuts, c)
	s.at(c.until-s.now, nil, nil, func() { // who fetches goes on
		for _, w := range s.alive() {
			if w.client != nil {
				w.client.offer()
			}
		}
	})
}

// heal ends all faults, and starts what is missing: at least one worker, most times all.
func (s *sim) heal() {
	if s.failure != nil {
		return
	}
	s.say(nil, "the faults are over", 0, 0)
	s.faulty, s.lagging = false, false
	s.p.cuts, s.k.moved, s.pg.down = nil, [2]time.Duration{}, false
	for _, r := range s.pg.rows {
		if r != nil {
			r.held = false
		}
	}
	for _, w := range s.alive() {
		w.thaw()
		if w.client != nil {
			w.client.held = 0
		}
	}
	for i := range s.p.workers {
		id := workerID(i)
		there := slices.ContainsFunc(s.alive(), func(w *worker) bool { return w.id == id && !w.ending })
		if !there && (i == 0 || s.chance(700)) {
			s.spawn(id)
		}
	}
}
