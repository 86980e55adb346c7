package sim

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/exactly-pipeline/exactly/outbox"
)

// truth is what nobody in the world knows: who claimed last, what Kafka's transactions have decided, and which outbox row that was. Each
// capture and each commit is held against it as it happens.
type truth struct {
	s       *sim
	parts   []partTruth
	changed bool             // something was captured or published: look whether all is done
	ahead   bool             // a backup was restored: Kafka may have what Postgres lacks
	alone   map[[2]int64]int // how often a record was begun alone, by partition and offset
	repeats bool             // one was restored without a new timeline: epochs are given a second time, and nobody can tell
}

type partTruth struct {
	claimer   *worker // the latest, whatever a backup says
	epoch     int64
	published int64 // decided group offset
	events    int   // of the outbox, published
	lastEvent int64 // source offset of the last event published; -1
	out       []bool
	ghosts    map[string]bool // published, but no longer in Postgres; true: by a worker that had not met the restored database yet
}

func newTruth(s *sim) truth {
	t := truth{s: s, parts: make([]partTruth, s.p.partitions), changed: true, alone: map[[2]int64]int{}}
	for p := range t.parts {
		t.parts[p].lastEvent = -1
	}
	return t
}

func (t *truth) claimed(w *worker, p int32, epoch int64) {
	t.parts[p].claimer, t.parts[p].epoch = w, epoch
}

// captured checks one partition of a capture that commits: the latest claimer's, from where the stored offset stands, each record of the
// input once.
func (t *truth) captured(w *worker, r *row, b *copied) {
	s, pt, p := t.s, &t.parts[b.Partition], b.Partition
	t.changed = true
	if pt.claimer != w && (!t.repeats || b.Epoch != pt.epoch) {
		s.broke("old epoch", "partition %d: captured by %s, claimed since by %s", p, w.name(), pt.claimer.name())
	}
	if b.From != r.next || b.To <= b.From {
		s.broke("rows", "partition %d: captured [%d,%d), stored offset %d", p, b.From, b.To, r.next)
		return
	}
	var want []int64
	for i := range s.k.in[p].records {
		if o := s.k.in[p].records[i].Offset; o >= b.From && o < b.To {
			want = append(want, o)
		}
	}
	if !slices.Equal(want, b.offsets) && !s.k.in[p].replaced(b.From, b.To) {
		s.broke("rows", "partition %d: captured [%d,%d) with records %v, the input has %v", p, b.From, b.To, b.offsets, want)
	}
	for i := range b.Messages {
		if pt.ghosts[ghostOf(&b.Messages[i])] {
			s.broke(knownHole, "partition %d: captured again, though an owner that had not met the restored database has published it", p)
			return
		}
	}
	t.quarantine(b)
	if n := len(s.pg.tables[p].ledger); n > 0 && r.seq > 1 && s.pg.tables[p].ledger[n-1].seq != r.seq {
		s.broke("ledger", "partition %d: entry %d follows %d", p, r.seq+1, s.pg.tables[p].ledger[n-1].seq)
	}
}

// source reads the exactly-source header, in/<partition>/<offset>.
func source(m *outbox.Message) (int32, int64, bool) {
	for _, h := range m.Headers {
		if h.Key == "exactly-source" {
			var p int32
			var o int64
			rest := h.Value[len("in/"):]
			slash := bytes.IndexByte(rest, '/')
			for _, c := range rest[:slash] {
				p = p*10 + int32(c-'0')
			}
			for _, c := range rest[slash+1:] {
				o = o*10 + int64(c-'0')
			}
			return p, o, true
		}
	}
	return 0, 0, false
}

// published checks a Kafka transaction that is decided to be committed: bytes of the outbox, once each, together with the group offset
// that says so, and never beyond what Postgres holds.
func (t *truth) published(tx *transaction) {
	s := t.s
	t.changed = true
	stale := t.ahead && tx.met < s.pg.server // sent by a worker that had not met the restored database yet
	var touched parts
	for i := range tx.messages {
		m := &tx.messages[i]
		p, o, is := source(m)
		if !is {
			s.broke("bytes", "an event without exactly-source")
			return
		}
		touched |= 1 << p
		t.event(p, o, m, stale)
	}
	for _, o := range tx.offsets {
		p := o.Partition
		pt := &t.parts[p]
		touched |= 1 << p
		next := int64(0)
		if r := s.pg.rows[p]; r != nil {
			next = r.next
		}
		if o.Offset > next && !stale {
			s.broke("kafka ahead", "partition %d: group offset %d, stored offset %d", p, o.Offset, next)
		}
		if o.Offset < pt.published {
			s.broke("group offset back", "partition %d: from %d to %d", p, pt.published, o.Offset)
		}
		pt.published = o.Offset
	}
	for _, p := range touched.list() {
		t.prefix(p)
	}
}

// event notes one event.
func (t *truth) event(p int32, o int64, m *outbox.Message, stale bool) {
	s, pt := t.s, &t.parts[p]
	box := s.pg.tables[p].outbox
	i, is := slices.BinarySearchFunc(box, m, func(a outbox.Message, b *outbox.Message) int {
		if a.SourceOffset != b.SourceOffset {
			return int(a.SourceOffset - b.SourceOffset)
		}
		return int(a.Seq) - int(b.Seq)
	})
	_, ghost := pt.ghosts[ghostOf(m)]
	switch {
	case ghost:
		s.broke("twice", "partition %d: event of offset %d, also published before a backup was restored", p, o)
	case !is && stale:
		pt.ghost(ghostOf(m), true)
	case !is:
		s.broke("kafka ahead", "partition %d: event of offset %d, which is not captured", p, o)
	case !same(&box[i], m) && stale:
		s.broke(knownHole, "partition %d: published by an owner that had not met the restored database, though it was captured again", p)
	case !same(&box[i], m):
		s.broke("bytes", "partition %d: event of offset %d is %q, the outbox has %q", p, o, m.Value, box[i].Value)
	default:
		for len(pt.out) < len(box) {
			pt.out = append(pt.out, false)
		}
		if pt.out[i] {
			s.broke("twice", "partition %d: event of offset %d", p, o)
		}
		pt.out[i] = true
		pt.events++
	}
	pt.lastEvent = max(pt.lastEvent, o)
}

// knownHole is the first of those in doc/protocol.md, "What is not covered": Postgres is restored while workers run, and a former owner captures again
// what the owner has in memory and publishes. The seed ends there, and counts as played.
const knownHole = "known hole"

func (pt *partTruth) ghost(key string, stale bool) {
	if pt.ghosts == nil {
		pt.ghosts = map[string]bool{}
	}
	pt.ghosts[key] = stale
}

func same(a, b *outbox.Message) bool {
	if a.Topic != b.Topic || a.Partition != b.Partition || a.TimestampMs != b.TimestampMs || !bytes.Equal(a.Key, b.Key) || !bytes.Equal(a.Value, b.Value) ||
		len(a.Headers) != len(b.Headers) {
		return false
	}
	for i := range a.Headers {
		if a.Headers[i].Key != b.Headers[i].Key || !bytes.Equal(a.Headers[i].Value, b.Headers[i].Value) {
			return false
		}
	}
	return true
}

// prefix: the events are exactly those of the outbox below the group offset.
func (t *truth) prefix(p int32) {
	pt, box := &t.parts[p], t.s.pg.tables[p].outbox
	below := len(box)
	for below > 0 && box[below-1].SourceOffset >= pt.published {
		below--
	}
	switch {
	case t.s.failure != nil:
	case pt.events < below:
		t.s.broke("lost", "partition %d: group offset %d, %d events of %d published", p, pt.published, pt.events, below)
	case pt.events > below:
		t.s.broke("events without their offset", "partition %d: group offset %d, %d events published, %d owed up to there", p, pt.published, pt.events, below)
	}
}

// complete: all has arrived, so each record of the input has, with the content it has now, where nothing waits for a person.
func (t *truth) complete() {
	for p, l := range t.s.k.in {
		if t.s.stopped(int32(p)) {
			continue
		}
		box := t.s.pg.tables[p].outbox
		for i := range l.records {
			r := &l.records[i]
			j, is := slices.BinarySearchFunc(box, r.Offset, func(m outbox.Message, o int64) int { return int(m.SourceOffset - o) })
			if r.Offset >= l.start && (!is || !bytes.HasPrefix(box[j].Value, r.Value)) {
				t.s.broke("lost", "partition %d: the record at offset %d, %q, was never captured", p, r.Offset, r.Value)
				return
			}
		}
	}
}

// restoring: what was published and will no longer be in Postgres is remembered by name.
func (t *truth) restoring(b *backup) {
	t.ahead, t.changed = true, true
	for p := range t.parts {
		pt, box := &t.parts[p], t.s.pg.tables[p].outbox
		for i := b.outbox[p]; i < len(pt.out); i++ {
			if pt.out[i] {
				pt.events--
				pt.ghost(ghostOf(&box[i]), false)
			}
		}
		pt.out = pt.out[:min(len(pt.out), b.outbox[p])]
	}
}

func ghostOf(m *outbox.Message) string { return fmt.Sprintf("%d/%d", m.SourceOffset, m.Seq) }

// initialised: a producer was made. One that was told that it is replaced must not be.
func (t *truth) initialised(w *worker) {
	if w.replaced {
		t.s.broke("turns", "%s was told that another process runs under its id, and fences it", w.name())
	}
}
