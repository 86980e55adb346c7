package audit

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
)

// Class is what is wrong.
type Class string

// The classes of findings.
const (
	Missing      Class = "missing"       // owed to a sink and not there
	Duplicate    Class = "duplicate"     // there more than once
	Different    Class = "different"     // two stores disagree about it
	Unexplained  Class = "unexplained"   // there without an input, or without a readable exactly-source
	OutOfOrder   Class = "out_of_order"  // an output partition has a source partition's events in another order
	Undecodable  Class = "undecodable"   // an event that is no enriched click
	Undecided    Class = "undecided"     // an open transaction hides whether it is there
	GroupAhead   Class = "group_ahead"   // the group offset is above the stored offset
	GroupBehind  Class = "group_behind"  // the group offset is below what it once was
	LedgerGap    Class = "ledger_gap"    // the ledger's entries do not add up
	LedgerChain  Class = "ledger_chain"  // the ledger's hashes do not
	LedgerDigest Class = "ledger_digest" // the outbox's messages are not those an entry was made of
	Miscounted   Class = "miscounted"    // click_counts does not say how many rows there are
	Gap          Class = "gap"           // settled was asked for, and something is owed or waiting
)

// Classes lists them all, in the order of a report.
var Classes = []Class{Missing, Duplicate, Different, Unexplained, OutOfOrder, Undecodable, Undecided, GroupAhead, GroupBehind, LedgerGap, LedgerChain, LedgerDigest, Miscounted, Gap}

// Sink is where.
type Sink string

// The sinks.
const (
	Rows        Sink = "rows"         // Postgres enriched_clicks
	DeadLetters Sink = "dead_letters" // Postgres dead_letters
	Outbox      Sink = "outbox"       // Postgres outbox
	Ledger      Sink = "ledger"       // Postgres offset_ledger
	Events      Sink = "events"       // the output topic
	DLQ         Sink = "dlq"          // the DLQ topic
	Input       Sink = "input"        // the input topic
	Heads       Sink = "heads"        // the ledger's heads, in Kafka or an anchor file
	Counts      Sink = "counts"       // Postgres click_counts
	Group       Sink = "group"        // the consumer group's offsets
)

// Sinks lists them all, in the order of a report.
var Sinks = []Sink{Rows, DeadLetters, Outbox, Ledger, Events, DLQ, Input, Heads, Counts, Group}

// At is a place in a topic.
type At struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

func (a At) String() string { return fmt.Sprintf("%s/%d@%d", a.Topic, a.Partition, a.Offset) }

// Finding is one thing wrong with one coordinate.
type Finding struct {
	Class     Class  `json:"class"`
	Sink      Sink   `json:"sink"`
	Partition int32  `json:"partition"`     // source partition; -1 unknown
	Offset    int64  `json:"offset"`        // source offset; -1 unknown or not about one
	Seq       int64  `json:"seq,omitempty"` // ledger entry
	At        *At    `json:"at,omitempty"`  // the record in the output topic
	Says      string `json:"says"`          // for people; never a value that could be personal
}

// Coordinate is what the finding is about: source partition and offset, ledger entry, or the record if that is all there is.
func (f *Finding) Coordinate() string {
	switch {
	case f.Partition < 0 && f.At != nil:
		return f.At.String()
	case f.Sink == Ledger || f.Sink == Heads:
		return fmt.Sprintf("%d#%d", f.Partition, f.Seq)
	}
	return fmt.Sprintf("%d@%d", f.Partition, f.Offset)
}

// collector counts every finding and keeps some of each class, so that a flood of one does not hide another.
type collector struct {
	mu     sync.Mutex
	keep   int
	kept   map[Class][]Finding
	counts map[Class]map[Sink]int64
	byPart map[int32]int64
	low    map[int32]int64 // lowest source offset that something was found at; of what is not about one, 0
}

func newCollector(keep int) *collector {
	return &collector{keep: keep, kept: map[Class][]Finding{}, counts: map[Class]map[Sink]int64{}, byPart: map[int32]int64{}, low: map[int32]int64{}}
}

func (c *collector) add(f Finding) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts[f.Class] == nil {
		c.counts[f.Class] = map[Sink]int64{}
	}
	c.counts[f.Class][f.Sink]++
	c.byPart[f.Partition]++
	if low, ok := c.low[f.Partition]; f.Class != Gap && (!ok || f.Offset < low) {
		c.low[f.Partition] = max(0, f.Offset)
	}
	if len(c.kept[f.Class]) < c.keep {
		c.kept[f.Class] = append(c.kept[f.Class], f)
	}
}

// more counts n that are not kept.
func (c *collector) more(class Class, sink Sink, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > 0 {
		if c.counts[class] == nil {
			c.counts[class] = map[Sink]int64{}
		}
		c.counts[class][sink] += n
	}
}

// has says whether something that was found and kept is about the coordinate.
func (c *collector) has(at source) bool {
	for _, fs := range c.kept {
		if slices.ContainsFunc(fs, func(f Finding) bool { return f.Partition == at.partition && f.Offset == at.offset }) {
			return true
		}
	}
	return false
}

func (r *run) found(class Class, sink Sink, partition int32, offset int64, at *At, format string, a ...any) {
	r.findings.add(Finding{Class: class, Sink: sink, Partition: partition, Offset: offset, At: at, Says: fmt.Sprintf(format, a...)})
	if class != Gap {
		r.mark(partition, offset)
	}
}

// mark marks the offset's stretch as one that something was found in.
func (r *run) mark(partition int32, offset int64) {
	if p := r.parts[partition]; p != nil {
		if s := p.stretchAt(offset); s != nil {
			r.findings.mu.Lock()
			s.found = true
			r.findings.mu.Unlock()
		}
	}
}

// lowest is the lowest source offset that something was found at; end if nothing was.
func (c *collector) lowest(partition int32, end int64) int64 {
	if low, ok := c.low[partition]; ok {
		return low
	}
	return end
}

func (c *collector) total(class Class) (n int64) {
	for _, v := range c.counts[class] {
		n += v
	}
	return n
}

// some takes keep findings, in turns from each class, in the order of coordinates.
func (c *collector) some() []Finding {
	var out []Finding
	for _, fs := range c.kept {
		slices.SortFunc(fs, byCoordinate)
	}
	for i := 0; len(out) < c.keep; i++ {
		before := len(out)
		for _, class := range Classes {
			if fs := c.kept[class]; i < len(fs) && len(out) < c.keep {
				out = append(out, fs[i])
			}
		}
		if len(out) == before {
			break
		}
	}
	slices.SortFunc(out, byCoordinate)
	return out
}

func byCoordinate(a, b Finding) int {
	return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Seq, b.Seq),
		slices.Index(Classes, a.Class)-slices.Index(Classes, b.Class), cmp.Compare(a.Sink, b.Sink), cmp.Compare(a.Says, b.Says))
}
