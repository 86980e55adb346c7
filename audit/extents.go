package audit

import (
	"cmp"
	"slices"
	"sort"
)

// extents are runs of source offsets of one partition, in order, none touching another.
type extents []part

// takenOut is what was dropped of the time-partitioned tables, by prunes that the ledger vouches for.
type takenOut struct{ rows, dead, outbox extents }

// of is the table's; nil: of no table that is audited.
func (p *takenOut) of(table string) *extents {
	return map[string]*extents{"enriched_clicks": &p.rows, "dead_letters": &p.dead, "outbox": &p.outbox}[table]
}

// add adds [from, to).
func (e *extents) add(from, to int64) {
	all := append(*e, part{from: from, to: to})
	slices.SortFunc(all, func(a, b part) int { return cmp.Compare(a.from, b.from) })
	merged := all[:1]
	for _, x := range all[1:] {
		if last := &merged[len(merged)-1]; x.from <= last.to {
			last.to = max(last.to, x.to)
		} else {
			merged = append(merged, x)
		}
	}
	*e = merged
}

// overlap says whether they have an offset of [from, to).
func (e extents) overlap(from, to int64) bool {
	i := sort.Search(len(e), func(i int) bool { return e[i].to > from })
	return i < len(e) && e[i].from < to
}

// has says whether they have the offset.
func (e extents) has(offset int64) bool { return e.overlap(offset, offset+1) }

// end is where the last ends; 0: there is none.
func (e extents) end() int64 {
	if len(e) == 0 {
		return 0
	}
	return e[len(e)-1].to
}
