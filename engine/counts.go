package engine

import (
	"cmp"
	"slices"
	"time"
)

// Counts is a table in which a handler's rows are counted: by window of event time, a label and the source partition. Its columns are window_start (timestamptz), the
// label's, source_id, source_partition, and the amount (bigint); the first four are its key. Nobody but a partition's owner writes its rows, so that captures never wait
// for each other; what a window comes to is the sum over the partitions.
type Counts struct {
	Table         string
	Label, Amount string        // columns
	Window        time.Duration // whole seconds, a divisor of 24 hours. Windows begin at the Unix epoch
}

// Counting is a Handler whose rows are counted. It is asked once, before middleware is put around it; nil: nothing is counted.
type Counting interface{ Counts() *Counts }

// CountsOf is the table that a handler's rows are counted in; nil: none.
func CountsOf(h Handler) *Counts {
	if c, ok := h.(Counting); ok {
		return c.Counts()
	}
	return nil
}

// Cell is one window and label.
type Cell struct {
	StartMs int64 // of the window, since the Unix epoch
	Label   string
}

// Cell is the one that something of that time, in milliseconds since the Unix epoch, counts in.
func (c *Counts) Cell(atMs int64, label string) Cell {
	w := c.Window.Milliseconds()
	into := atMs % w
	if into < 0 { // before the epoch
		into += w
	}
	return Cell{atMs - into, label}
}

// Count counts one row of the record's in its window. Like all it makes, it is taken back if the record becomes a dead letter.
func (o *Out) Count(c Cell) { o.b.counting = append(o.b.counting, c) }

// counted adds what a record's rows count for to the batch's counts, once the record is settled.
func (b *Batch) counted() {
	if len(b.counting) == 0 {
		return
	}
	if b.Counts == nil {
		b.Counts = map[Cell]int64{}
	}
	for _, c := range b.counting {
		b.Counts[c]++
	}
	b.counting = b.counting[:0]
}

// Cells are those of the batch's counts, by window and label.
func (b *Batch) Cells() []Cell {
	cells := make([]Cell, 0, len(b.Counts))
	for c := range b.Counts {
		cells = append(cells, c)
	}
	slices.SortFunc(cells, func(a, b Cell) int { return cmp.Or(cmp.Compare(a.StartMs, b.StartMs), cmp.Compare(a.Label, b.Label)) })
	return cells
}
