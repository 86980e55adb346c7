package audit

import (
	"context"
	"fmt"
	"sort"

	"github.com/jackc/pgx/v5"
)

// cell is what the second pass keeps of one input offset. Counts stop at 255.
type cell struct {
	kv                              uint64 // the input's key and value
	text                            uint64 // the input's click, address as text; with decodes only
	plain                           uint64 // the input's click as a row's columns; with decodes only
	row                             uint64 // the row's columns; of a dead letter, its failure
	msg                             uint64 // the outbox message
	target                          int16  // output partition it is owed to; -1 unknown
	rows, outbox, dead, events, dlq uint8
	flags                           uint8
}

const (
	inInput    = 1 << iota // a committed input record is there
	decodes                // and is a click
	toDLQ                  // the outbox message goes to the DLQ
	pruned                 // the outbox's time partition of that capture was dropped
	rowDiffers             // already reported: say it once
)

func (c *cell) has(flag uint8) bool { return c.flags&flag != 0 }

func inc(n *uint8) uint8 {
	if *n < 255 {
		*n++
	}
	return *n
}

// window is a run of suspicious stretches, a cell an offset.
type window struct {
	from  int64
	cells []cell
}

func (w *window) to() int64 { return w.from + int64(len(w.cells)) }

// open makes cells for the offsets, which are above all that is open already.
func (p *partition) open(from, to int64) {
	cells := make([]cell, to-from)
	for i := range cells {
		cells[i].target = -1
	}
	if n := len(p.wins); n > 0 && p.wins[n-1].to() == from {
		p.wins[n-1].cells = append(p.wins[n-1].cells, cells...)
		return
	}
	p.wins = append(p.wins, window{from, cells})
}

// at is the offset's cell, or nil and why there can be none; nil and "" if it is not looked at.
func (p *partition) at(offset int64) (*cell, string) {
	i := sort.Search(len(p.wins), func(i int) bool { return p.wins[i].to() > offset })
	if i == len(p.wins) || p.wins[i].from > offset {
		return nil, ""
	}
	c := &p.wins[i].cells[offset-p.wins[i].from]
	if !c.has(inInput) && offset >= p.from {
		return nil, fmt.Sprintf("the input has no committed record at offset %d", offset)
	}
	return c, ""
}

// lost says whether the offset was given up by a person (ledger entry accept_loss).
func (p *partition) lost(offset int64) bool {
	s := p.stretchAt(offset)
	return s != nil && s.lost
}

// clickExpected decides whether the offset is owed a row and an event or a dead letter and its record, by what most of the
// evidence says. A wrong guess would only name the wrong sink: something is missing either way.
func (c *cell) clickExpected() bool {
	switch {
	case c.rows > 0:
		return true
	case c.dead > 0:
		return false
	case c.outbox > 0:
		return !c.has(toDLQ)
	case c.events > 0 || c.dlq > 0:
		return c.events > 0
	}
	return c.has(decodes)
}

// ledgerCounts holds the counts of the entries within the windows against what is there.
func (r *run) ledgerCounts(ctx context.Context, p *partition) error {
	for i := range p.wins {
		w := &p.wins[i]
		rows, _ := r.pg.main.Query(ctx, `SELECT seq, from_offset, to_offset, records, rows, dead_letters, events FROM offset_ledger
			WHERE source_id = $1 AND source_partition = $2 AND to_offset > $3 AND from_offset >= $3 AND to_offset <= $4
			AND (kind NOT IN ('start', 'accept_loss', 'restore', 'reset', 'hold', 'release', 'replay', 'heal', 'erase', 'archive', 'prune') OR seq = ANY($5)) ORDER BY seq`,
			r.source, p.id, w.from, w.to(), p.healed)
		var seq, from, to int64
		var says [4]int64
		_, err := pgx.ForEachRow(rows, []any{&seq, &from, &to, &says[ofRecords], &says[ofRows], &says[ofDead], &says[ofMessages]}, func() error {
			if to <= from {
				return nil
			}
			var counts [4]int64
			for _, c := range w.cells[from-w.from : to-w.from] {
				if c.has(inInput) {
					counts[ofRecords]++
				}
				counts[ofRows] += int64(c.rows)
				counts[ofDead] += int64(c.dead)
				counts[ofMessages] += int64(c.outbox)
			}
			r.countsDiffer(p, seq, from, to, says, counts)
			return nil
		})
		if err != nil {
			return fmt.Errorf("offset_ledger: %w", err)
		}
	}
	return nil
}

func (r *run) countsDiffer(p *partition, seq, from, to int64, says, counts [4]int64) {
	if p.miscounted[seq] { // an entry in pieces is looked at as a whole, and piece by piece
		return
	}
	of := p.ofEntry(from, to, counts)
	not := [4]bool{ofRecords: of.noInput, ofRows: of.noRows, ofDead: of.noDead, ofMessages: of.noOutbox}
	for kind, what := range [4]string{"records", "rows", "dead letters", "outbox messages"} {
		if says[kind] != counts[kind] && !not[kind] {
			p.miscounted[seq] = true
			r.mark(p.id, from)
			r.ledgerFound(LedgerGap, p.id, seq, "seq %d says %d %s in [%d,%d), there are %d", seq, says[kind], what, from, to, counts[kind])
		}
	}
}
