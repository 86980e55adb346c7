package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/exactly-pipeline/exactly/engine"
)

// disasters are what only a person can mend: guard 10 stops the partition, or guard 11 drops what is remembered.
var disasters = []fault{
	{name: "expired", strike: func(s *sim) {
		p := int32(s.rng.IntN(s.p.partitions))
		l := s.k.in[p]
		if n := len(l.records); n > 0 {
			l.start = max(l.start, l.records[s.rng.IntN(n)].Offset+1)
			s.say(nil, "disaster: expired", int64(p), l.start)
		}
	}},
	{name: "truncated", strike: func(s *sim) { s.truncated(int32(s.rng.IntN(s.p.partitions)), 0) }},
	{name: "truncated and grown again behind a look", strike: func(s *sim) { s.regrow = true }},
	{name: "offset reset", strike: func(s *sim) {
		p := s.rng.IntN(s.p.partitions)
		if at := s.k.group.offsets[p].at; at > 0 {
			s.k.group.offsets[p] = committed{has: true, at: s.rng.Int64N(at)}
			s.say(nil, "disaster: offset reset", int64(p), s.k.group.offsets[p].at)
		}
	}},
	{name: "commits lost", strike: func(s *sim) {
		p := s.rng.IntN(s.p.partitions)
		if r := s.pg.rows[p]; r != nil && r.floor > 0 && s.k.group.offsets[p].has {
			s.k.group.offsets[p].at = s.rng.Int64N(r.floor)
			s.say(nil, "disaster: commits lost", int64(p), s.k.group.offsets[p].at)
		}
	}},
	{name: "topic recreated", strike: func(s *sim) {
		topic := []string{"in", "out", "dlq"}[s.rng.IntN(3)]
		s.k.ids[topic] = "9"
		s.say(nil, "disaster: recreated "+topic, 0, 0)
	}},
	{name: "postgres restored", strike: func(s *sim) { s.restored() }},
	{name: "postgres restored behind a frozen worker", strike: func(s *sim) { s.trap = true }, long: true},
}

// trapped freezes a worker that has claimed, and is about to capture for the first time. While it is frozen its partitions get another
// owner, and Postgres then goes back to where they had not: only its identity tells (guard 11).
func (s *sim) trapped(w *worker) {
	if !s.trap || !s.faulty || w.store.capture[0] != nil || len(s.alive()) < 2 {
		return
	}
	s.trap = false
	s.pg.backup()
	b := s.pg.backups[len(s.pg.backups)-1]
	w.freeze()
	for p := range s.p.partitions {
		s.k.append(int32(p))
	}
	d := s.between(sessionTimeout, 2*sessionTimeout)
	s.at(d, nil, nil, func() {
		if s.faulty && !s.expired() {
			s.pg.restore(b, true)
		}
	})
	s.at(d+s.between(time.Millisecond, 100*time.Millisecond), nil, nil, w.thaw)
}

// restored puts a backup back, while somebody is perhaps frozen.
func (s *sim) restored() {
	if s.expired() {
		return
	}
	b := s.pg.backups[s.rng.IntN(len(s.pg.backups))]
	if s.chance(500) {
		b = s.pg.backups[len(s.pg.backups)-1]
	}
	s.pg.restore(b, s.chance(700))
}

// expired says whether a group offset has gone: together with a restored backup that can't be told from a first start.
func (s *sim) expired() bool {
	return slices.ContainsFunc(s.k.group.offsets, func(o committed) bool { return o.expired })
}

// drains: somebody has looked at the partition, and not yet sought. Its log is truncated, and grows again at once.
func (s *sim) drains(p int32) {
	if s.regrow && s.faulty {
		s.regrow = false
		s.at(s.between(0, 2*time.Millisecond), nil, nil, func() { s.truncated(p, 1+s.rng.IntN(4)) })
	}
}

// truncated takes the end of a partition's log away, and lets the next leader append some records at once.
func (s *sim) truncated(p int32, grown int) {
	l := s.k.in[p]
	n := len(l.records)
	if n == 0 {
		return
	}
	l.truncate(max(l.start, l.records[n-1-s.rng.IntN(min(n, 3))].Offset))
	s.say(nil, "disaster: truncated", int64(p), l.end)
	for _, w := range s.alive() {
		if w.client != nil {
			w.client.truncated(p, l.end)
		}
	}
	for range grown {
		s.k.append(p)
	}
}

// truncate takes the end of a log away, as an unclean leader election does; the next leader has another epoch.
func (l *inputLog) truncate(to int64) {
	for len(l.records) > 0 && l.records[len(l.records)-1].Offset >= to {
		l.records = l.records[:len(l.records)-1]
	}
	l.lost = append(l.lost, [2]int64{to, l.end})
	l.end = to
	l.ends = append(l.ends, to)
	l.epoch++
}

// replaced says whether records of a range were once others.
func (l *inputLog) replaced(from, to int64) bool {
	for _, r := range l.lost {
		if from < r[1] && r[0] < to {
			return true
		}
	}
	return false
}

// truncated: the client finds that its position is beyond where its leader epoch ended (KIP-320).
func (c *consumer) truncated(p int32, end int64) {
	if (c.owned & c.sought).has(p) && c.at[p] > end { // paused or not
		c.sought &^= 1 << p
		c.errs = append(c.errs, &engine.PartitionError{Partition: p, Err: fmt.Errorf("log truncated at %d", end)})
		c.offer()
	}
}

// cause is why a partition may wait for a person, as the world stands; must: it may not go on as if nothing were.
func (s *sim) cause(p int32) (cause string, must bool) {
	r, o, l := s.pg.rows[p], &s.k.group.offsets[p], s.k.in[p]
	switch {
	case s.k.ids["in"] != "1" || s.k.ids["out"] != "2" || s.k.ids["dlq"] != "3":
		return "recreated", true
	case r == nil && o.has:
		return "no row", true
	case r == nil:
		return "", false
	case r.next < l.start:
		return "expired", true
	case r.next > l.end, r.leaderEpoch >= 0 && l.endOf(r.leaderEpoch) < r.next:
		return "truncated", true
	case o.at > r.next:
		return "ahead", true
	case o.has && !o.ours():
		return "reset", false
	case o.has && o.at < r.floor:
		return "below the floor", false
	}
	return "", false
}

// stopped says whether a worker has stopped the partition, or had since what is waited for began: it looks again now and then, and may be at it.
func (s *sim) stopped(p int32) bool {
	if s.halted.has(p) {
		return true
	}
	for _, w := range s.workers {
		if !w.dead && w.states[p] == engine.Stopped {
			return true
		}
	}
	return false
}

// repair does what a person would: offsets restore, offsets accept-loss, the right topic again. What has no remedy yet stays.
func (s *sim) repair() bool {
	repaired := false
	for p := range int32(s.p.partitions) {
		r, o, l, pt := s.pg.rows[p], &s.k.group.offsets[p], s.k.in[p], &s.truth.parts[p]
		switch cause, _ := s.cause(p); cause {
		case "recreated":
			s.k.ids = map[string]string{"in": "1", "out": "2", "dlq": "3"}
		case "expired":
			if o.at == r.next {
				o.at, pt.published = l.start, l.start
			}
			r.seq++
			t := &s.pg.tables[p]
			t.ledger = append(t.ledger, entry{r.seq, r.next, l.start, len(t.outbox)})
			r.next = l.start
		case "reset", "below the floor":
			*o = committed{has: true, at: pt.published, metadata: "exactly/1 0 0"}
		default:
			continue
		}
		repaired = true
		s.say(nil, "repaired", int64(p), 0)
	}
	return repaired
}
