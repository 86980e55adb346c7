package audit

import (
	"slices"
	"sort"
	"time"
)

const (
	longStretch   = 1 << 16 // offsets; an entry that covers more is cut
	shortStretch  = 512     // offsets that are worth a stretch of their own
	mostStretches = 20_000  // about, over all partitions: what decides how much memory an audit takes
)

// stretch is a run of source offsets that is looked at as one: of whole ledger entries, or of offsets that no entry covers. Of its records
// only sums are kept. Where those of two stores differ, a second pass looks at its records one by one (see cells.go).
type stretch struct {
	from, to int64
	ends     []uint32 // where its entries end, relative to from; the highest bit: the entry's counts are not for checking. None: it is coarse
	messages []uint32 // and how many messages each has
	big      int32    // the partition's entry that this is a piece of; -1: it is not one
	day      int32    // its captures were of this UTC day, since 1970
	lost     bool     // accepted as lost: nothing is owed for it
	owed     bool     // at or above the group offset: events may be there, or not yet
	coarse   bool     // of its entries no more is kept than what they add up to: their outbox messages are said to be pruned
	suspect  bool     // something is wrong in it, whatever the sums say
	found    bool     // something was found

	inRows, inText wide // the input's clicks that are no dead letters, as rows and as on the wire
	input          int64
	inDead         sum  // the input's records that dead letters are of
	rows           sum  // as clicks
	rowsFull       wide // with country and geo build
	dead           sum
	outbox         sum   // messages whose records must be in Kafka's topics
	held           int64 // messages whose records are owed to them, or were removed there by retention
	pruned         int64 // rows and dead letters whose outbox messages retention removed
	events         sum   // of both topics
	clicks         int64 // events, and held messages, that are enriched clicks
	text, full     wide
	dlq            sum   // records, and held messages, of the DLQ: key and value
	early          int64 // owed, and in Kafka already
	deadWhy        wide  // what dead letters say of their failures
	dlqWhy         wide  // what the DLQ's records, and held messages, do

	digest, saysDigest wide // of its entries that are whole in it

	says, counts [4]uint64 // per kind of count the entries' own, and what was counted, each times the entry's weight
}

// kinds of counts an entry has
const (
	ofRecords = iota
	ofRows
	ofDead
	ofMessages
)

// bigEntry is an entry that more than one stretch is a piece of.
type bigEntry struct {
	seq          int64
	from, to     int64
	says, counts [4]int64
	unchecked    bool
}

const unchecked = 1 << 31

// layer lays a partition's offsets out in stretches, entry by entry.
type layer struct {
	scratch
	p      *partition
	lo, hi int64 // offsets asked for and captured
	at     int64
	length int64 // a stretch this long takes no more entries

	since, until time.Time // captures of this time only; zero: of any
}

func dayOf(at time.Time) int32 { return int32(at.Unix() / 86400) }

// begin says where the partition was started.
func (l *layer) begin(at int64) { l.lo, l.at = max(l.lo, at), max(l.at, at) }

// finish lays out what no entry covered.
func (l *layer) finish() {
	l.bare(l.hi)
	l.p.lo, l.p.hi = l.lo, max(l.hi, l.lo)
}

// back takes back what was given up from an offset on: a person went back there, and it is owed again.
func (l *layer) back(to int64) {
	for s := l.last(); s != nil && s.lost && s.to > to; s = l.last() {
		if s.from < to {
			s.to, s.suspect = to, true // its entries are not what they say any more
			break
		}
		l.p.stretches = l.p.stretches[:len(l.p.stretches)-1]
	}
	if s := l.last(); s != nil {
		l.at = max(l.lo, min(l.at, max(to, s.to)))
	} else {
		l.at = l.lo
	}
}

// entry adds a capture or an accepted loss.
func (l *layer) entry(e *entry, lost bool) {
	if e.capturedAt.Before(l.since) {
		l.begin(min(e.to, l.hi))
	}
	if !l.until.IsZero() && !e.capturedAt.Before(l.until) {
		l.hi = min(l.hi, max(e.from, l.at))
	}
	from, to := max(e.from, l.lo), min(e.to, l.hi)
	if to <= from {
		return
	}
	if from > l.at {
		l.bare(from)
	}
	overlaps := from < l.at
	from = max(from, l.at)
	if s := l.last(); overlaps && s != nil { // somebody's hand: let both be looked at
		s.suspect = true
	}
	if to <= from {
		return
	}
	exact := from == e.from && to == e.to && !lost
	coarse := exact && to <= l.p.coarseTo
	cut, start := l.p.published(), l.p.logStart
	if to-from > longStretch || from < cut && cut < to || from < start && start < to {
		l.p.big = append(l.p.big, bigEntry{seq: e.seq, from: e.from, to: e.to, says: [4]int64{e.records, e.rows, e.dead, e.events}, unchecked: !exact})
		l.pieces(to, func(s *stretch) {
			s.big, s.lost, s.day, s.suspect = int32(len(l.p.big)-1), lost, dayOf(e.capturedAt), overlaps
		})
		return
	}
	s := l.last()
	if s == nil || s.big >= 0 || s.lost != lost || s.coarse != coarse || s.from < start && start <= from || s.owed != (from >= cut) || s.day != dayOf(e.capturedAt) || s.to-s.from >= l.length || to-s.from > longStretch || overlaps {
		s = l.add(from)
		s.lost, s.day, s.suspect, s.coarse = lost, dayOf(e.capturedAt), overlaps, coarse
	}
	s.to = to
	l.at = to
	if coarse {
		for i, n := range [4]int64{e.records, e.rows, e.dead, e.events} {
			s.says[i] += uint64(n)
		}
		return
	}
	end := uint32(to - s.from)
	if exact {
		w := l.weight(to)
		for i, n := range [4]int64{e.records, e.rows, e.dead, e.events} {
			s.says[i] += w * uint64(n)
		}
		if e.events > 0 {
			s.saysDigest.plus(l.digestHash(to, e.digest))
		}
	} else {
		end |= unchecked
	}
	s.ends, s.messages = append(s.ends, end), append(s.messages, uint32(min(max(e.events, 0), int64(to-from)*8)))
}

// bare adds what no entry covers, up to an offset: as far as the input reaches. Below that there is nothing to hold it against.
func (l *layer) bare(to int64) {
	l.at = max(l.at, min(to, l.p.logStart))
	if to > l.at {
		l.p.big = append(l.p.big, bigEntry{unchecked: true})
		l.pieces(to, func(s *stretch) { s.big = int32(len(l.p.big) - 1) })
	}
}

// pieces adds up to an offset, cut where a stretch must be.
func (l *layer) pieces(to int64, set func(*stretch)) {
	for l.at < to {
		s := l.add(l.at)
		s.to = min(to, l.at+longStretch)
		for _, cut := range []int64{l.p.published(), l.p.logStart} {
			if s.from < cut {
				s.to = min(s.to, cut)
			}
		}
		set(s)
		l.at = s.to
	}
}

func (l *layer) add(from int64) *stretch {
	l.p.stretches = append(l.p.stretches, stretch{from: from, to: from, big: -1, owed: from >= l.p.published()})
	return l.last()
}

func (l *layer) last() *stretch {
	if len(l.p.stretches) == 0 {
		return nil
	}
	return &l.p.stretches[len(l.p.stretches)-1]
}

// stretchAt is the stretch of an offset that is laid out.
func (p *partition) stretchAt(offset int64) *stretch {
	i := sort.Search(len(p.stretches), func(i int) bool { return p.stretches[i].to > offset })
	if i == len(p.stretches) || p.stretches[i].from > offset {
		return nil
	}
	return &p.stretches[i]
}

// spot is where a goroutine's last record was: the next is most often of the same entry.
type spot struct {
	p        *partition
	s        *stretch
	from, to int64 // of the entry
	weight   uint64
	events   int // messages the entry says it has; 0 where they are not for checking
}

// messages is how many the entry has that its digest is made of.
func (t *spot) messages() int { return t.events }

// go to an offset. False: it is not laid out.
func (t *spot) move(h hasher, p *partition, offset int64) bool {
	if t.p == p && offset >= t.from && offset < t.to {
		return true
	}
	if t.p != p || t.s == nil || offset < t.s.from || offset >= t.s.to {
		t.p, t.s = p, p.stretchAt(offset)
	}
	s := t.s
	if s == nil {
		t.from, t.to = 0, 0
		return false
	}
	t.from, t.to, t.weight, t.events = s.from, s.to, 0, 0
	if s.coarse {
		t.weight = 1
	} else if s.big < 0 {
		rel := uint32(offset - s.from)
		i, _ := slices.BinarySearchFunc(s.ends, rel, func(end, at uint32) int {
			if end&^unchecked > at {
				return 1
			}
			return -1
		})
		if i > 0 {
			t.from = s.from + int64(s.ends[i-1]&^unchecked)
		}
		t.to = s.from + int64(s.ends[i]&^unchecked)
		if s.ends[i]&unchecked == 0 {
			t.weight, t.events = h.weight(t.to), int(s.messages[i])
		}
	}
	return true
}

// count counts one of a kind for the entry. The partition is locked.
func (t *spot) count(kind int) {
	t.s.counts[kind] += t.weight
	if t.s.big >= 0 {
		t.p.big[t.s.big].counts[kind]++
	}
}

// size is how many records the stretch has, by whoever has most of them.
func (s *stretch) size() int64 { return max(1, s.input, s.rows.n+s.dead.n, s.outbox.n+s.held) }
