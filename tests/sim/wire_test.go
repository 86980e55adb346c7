package sim

import "time"

// side is a server a worker talks to.
type side int

const (
	toKafka side = iota
	toPostgres
)

// cutOff is a network between one worker, or all, and a server that carries nothing until a time.
type cutOff struct {
	w     *worker // nil: everybody's
	to    side
	until time.Duration
}

func (s *sim) cut(w *worker, to side) bool {
	for i := range s.p.cuts {
		c := &s.p.cuts[i]
		if c.to == to && (c.w == nil || c.w == w) && s.now < c.until {
			return true
		}
	}
	return false
}

// lag is how long a message takes.
func (s *sim) lag() time.Duration {
	if s.lagging && s.chance(s.p.slow) {
		return s.between(5*time.Millisecond, 800*time.Millisecond)
	}
	return s.between(100*time.Microsecond, 2*time.Millisecond)
}

// fate is what becomes of one request.
type fate struct {
	lost, late bool // late: it arrives long after its connection broke
	answerLost bool
	lag        time.Duration
}

func (s *sim) fate(w *worker, to side) fate {
	f := fate{lag: s.lag()}
	switch {
	case s.cut(w, to):
		f.lost = true
	case !s.faulty:
	case s.chance(s.p.lost):
		f.lost = true
	case s.chance(s.p.late):
		f.late = true
		f.lag = s.between(200*time.Millisecond, 14*time.Second)
	case s.chance(s.p.answerLost):
		f.answerLost = true
	}
	return f
}

// noticed is how long a client takes to find out that its connection broke.
func (s *sim) noticed() time.Duration { return s.between(time.Millisecond, 400*time.Millisecond) }

// send carries a request to a server. serve runs there, if it arrives, and answers when it will; back runs at the worker, once, with
// whether an answer came: if not, the connection broke. c is the call it belongs to, nil for none.
func (s *sim) send(w *worker, c *call, to side, serve func(reply func()), back func(answered bool)) {
	s.deliver(w, c, to, s.fate(w, to), nil, serve, back)
}

// deliver is send with its fate drawn. stray, if there is one, calls off what arrives late.
func (s *sim) deliver(w *worker, c *call, to side, f fate, stray *over, serve func(reply func()), back func(answered bool)) {
	var o *over
	if c != nil {
		o = &c.over
	}
	told := false
	tell := func(answered bool) {
		if !told {
			told = true
			back(answered)
		}
	}
	if f.lost || f.late || f.answerLost {
		d := s.noticed()
		if f.answerLost {
			d += f.lag
		}
		s.at(d, w, o, func() { tell(false) })
	}
	if f.lost {
		return
	}
	s.at(f.lag, nil, stray, func() {
		if f.late {
			s.say(w, "a request arrives late", 0, 0)
		}
		serve(func() {
			if f.late || f.answerLost {
				return
			}
			if s.cut(w, to) {
				s.at(s.noticed(), w, o, func() { tell(false) })
				return
			}
			s.at(s.lag(), w, o, func() { tell(true) })
		})
	})
}
