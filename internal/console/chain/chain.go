// Package chain owns how the console looks at the ledger: its chains over time, people's deeds in them, pages of entries, and whether Kafka's heads
// agree.
//
// It promises that what it reads is by an index and bounded, however long the chains are, and that each entry it shows was hashed anew. It never
// says of a chain that it holds: only a verification, which reads all of it, does.
package chain

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/ledger"
)

// DB is a pgx pool.
type DB interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Line is one partition's chain in a stretch of time.
type Line struct {
	Partition int32
	First     int64 // seq of the first entry that is here: what is before it was archived
	Seq       int64 // of the newest
	Head      []byte
	To        int64 // the stored offset
	Points    []Point
	Deeds     []Deed
}

// Point is an entry of those that were looked at.
type Point struct {
	At     time.Time
	Seq    int64
	Offset int64 // it ends at
}

// Deed is an entry that is no capture.
type Deed struct {
	ledger.Entry
	At time.Time
}

// Loss says whether records were given up.
func (d *Deed) Loss() bool { return d.Kind == ledger.AcceptLoss || d.Kind == ledger.Reset }

// Overview is the ledger over a stretch of time.
type Overview struct {
	From, To time.Time
	Lines    []Line
	Deeds    []Deed // the newest first, of all time
	Entries  int64  // of all chains
}

const (
	samples   = 48  // entries looked at of each chain
	mostDeeds = 200 // shown
)

// Look reads what a page shows of all chains: about samples entries of each since a time (zero: all there is), evenly apart.
func Look(ctx context.Context, db DB, sourceID int16, since time.Time) (*Overview, error) {
	what := func(err error) error { return fmt.Errorf("read the ledger: %w", err) }
	archived, err := ledger.Archived(ctx, db, sourceID)
	if err != nil {
		return nil, err
	}
	o := &Overview{From: since, To: time.Now().UTC()}
	rows, _ := db.Query(ctx, `SELECT source_partition, ledger_seq, ledger_head, next_offset FROM partition_offsets WHERE source_id = $1 ORDER BY 1`, sourceID)
	o.Lines, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (l Line, err error) {
		err = row.Scan(&l.Partition, &l.Seq, &l.Head, &l.To)
		l.First = 1
		if a, ok := archived[l.Partition]; ok {
			l.First = a.ToSeq + 1
		}
		return l, err
	})
	if err != nil {
		return nil, what(err)
	}
	from, err := search(ctx, db, sourceID, o.Lines, since)
	if err != nil {
		return nil, what(err)
	}
	if err := sample(ctx, db, sourceID, o, from); err != nil {
		return nil, what(err)
	}
	rows, _ = db.Query(ctx, `SELECT `+ledger.Columns+`, captured_at FROM offset_ledger WHERE source_id = $1 AND kind <> 'capture' ORDER BY captured_at DESC LIMIT $2`, sourceID, mostDeeds)
	o.Deeds, err = pgx.CollectRows(rows, scanDeed)
	if err != nil {
		return nil, what(err)
	}
	for i := range o.Lines {
		o.Entries += o.Lines[i].Seq
		for _, d := range o.Deeds {
			if d.Partition == o.Lines[i].Partition {
				o.Lines[i].Deeds = append(o.Lines[i].Deeds, d)
			}
		}
	}
	return o, nil
}

func scanDeed(row pgx.CollectableRow) (d Deed, err error) {
	var at time.Time
	_, err = d.Scan(behind{row, &at})
	d.At = at
	return d, err
}

// behind scans one column more than is asked for.
type behind struct {
	row  pgx.CollectableRow
	last any
}

func (b behind) Scan(dest ...any) error { return b.row.Scan(append(dest, b.last)...) }

const atSQL = `SELECT u.i, l.seq, l.captured_at, l.to_offset FROM unnest($2::int[], $3::bigint[]) WITH ORDINALITY u (p, s, i)
	CROSS JOIN LATERAL (SELECT seq, captured_at, to_offset FROM offset_ledger WHERE source_id = $1 AND source_partition = u.p AND seq = u.s) l ORDER BY u.i`

// at reads entries by partition and seq; what is not there is left out. The first result is the place in the arguments.
func at(ctx context.Context, db DB, sourceID int16, partitions []int32, seqs []int64) (map[int]Point, error) {
	rows, _ := db.Query(ctx, atSQL, sourceID, partitions, seqs)
	out := map[int]Point{}
	var i int
	var p Point
	_, err := pgx.ForEachRow(rows, []any{&i, &p.Seq, &p.At, &p.Offset}, func() error { out[i-1] = p; return nil })
	return out, err
}

// search finds the first entry of each chain that is not before since, by halving, all chains at once.
func search(ctx context.Context, db DB, sourceID int16, lines []Line, since time.Time) ([]int64, error) {
	lo, hi := make([]int64, len(lines)), make([]int64, len(lines))
	for i := range lines {
		lo[i], hi[i] = lines[i].First, lines[i].Seq
		if since.IsZero() {
			hi[i] = lo[i]
		}
	}
	for {
		var ps []int32
		var seqs []int64
		var of []int
		for i := range lines {
			if lo[i] < hi[i] {
				ps, seqs, of = append(ps, lines[i].Partition), append(seqs, lo[i]+(hi[i]-lo[i])/2), append(of, i)
			}
		}
		if len(of) == 0 {
			return lo, nil
		}
		found, err := at(ctx, db, sourceID, ps, seqs)
		if err != nil {
			return nil, err
		}
		for j, i := range of {
			if p, ok := found[j]; ok && !p.At.Before(since) {
				hi[i] = seqs[j]
			} else {
				lo[i] = seqs[j] + 1
			}
		}
	}
}

// sample reads entries of each chain from a seq on.
func sample(ctx context.Context, db DB, sourceID int16, o *Overview, from []int64) error {
	var ps []int32
	var seqs []int64
	var of []int
	for i := range o.Lines {
		l := &o.Lines[i]
		first := max(l.First, from[i]-1) // the one before, for what it began with
		n := min(samples, l.Seq-first+1)
		for k := range n {
			seq := l.Seq
			if n > 1 {
				seq = first + (l.Seq-first)*k/(n-1)
			}
			ps, seqs, of = append(ps, l.Partition), append(seqs, seq), append(of, i)
		}
	}
	found, err := at(ctx, db, sourceID, ps, seqs)
	if err != nil {
		return err
	}
	for j, i := range of {
		if p, ok := found[j]; ok {
			o.Lines[i].Points = append(o.Lines[i].Points, p)
		}
	}
	for i := range o.Lines {
		if ps := o.Lines[i].Points; o.From.IsZero() && len(ps) > 0 {
			o.From = ps[0].At
		}
	}
	for i := range o.Lines {
		if ps := o.Lines[i].Points; len(ps) > 0 && ps[0].At.Before(o.From) && len(from) > 0 && from[i] <= o.Lines[i].First {
			o.From = ps[0].At
		}
	}
	return nil
}

// Entry is one of a page, checked in its place.
type Entry struct {
	ledger.Entry
	Hash     ledger.Hex
	Sound    bool   // its fields make its hash, and it follows the one before
	Wrong    string // why not
	Unproven bool   // the one before was not read
}

// Page is entries of one chain, the newest first.
type Page struct {
	Partition int32
	Entries   []Entry
	Older     int64 // seq to go on from; 0: these are the oldest
	Newer     int64
	Newest    int64
}

const perPage = 40

// Read reads a page of one chain, from a seq down; 0: from the newest. Each entry is hashed anew, and held against the one before it.
func Read(ctx context.Context, db DB, sourceID int16, partition int32, seq int64) (*Page, error) {
	what := func(err error) error { return fmt.Errorf("read the ledger of partition %d: %w", partition, err) }
	p := &Page{Partition: partition}
	rows, _ := db.Query(ctx, `SELECT ledger_seq FROM partition_offsets WHERE source_id = $1 AND source_partition = $2`, sourceID, partition)
	newest, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil || len(newest) == 0 {
		return p, err
	}
	p.Newest = newest[0]
	if seq <= 0 || seq > p.Newest {
		seq = p.Newest
	}
	rows, _ = db.Query(ctx, `SELECT `+ledger.Columns+` FROM offset_ledger WHERE source_id = $1 AND source_partition = $2 AND seq <= $3 ORDER BY seq DESC LIMIT $4`,
		sourceID, partition, seq, perPage+1)
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e Entry, err error) {
		e.Hash, err = e.Scan(row)
		return e, err
	})
	if err != nil {
		return nil, what(err)
	}
	for i := range all {
		check(&all[i], all[i+1:])
	}
	if len(all) > perPage {
		p.Older = all[perPage].Seq
		all = all[:perPage]
	}
	if seq < p.Newest {
		p.Newer = min(p.Newest, seq+perPage)
	}
	p.Entries = all
	return p, nil
}

func check(e *Entry, before []Entry) {
	switch {
	case !bytes.Equal(e.Entry.Hash(), e.Hash):
		e.Wrong = "its fields do not make its hash"
	case len(before) == 0 && e.Seq > 1:
		e.Unproven = true
		return
	case len(before) > 0 && before[0].Seq != e.Seq-1:
		e.Wrong = fmt.Sprintf("entry %d is missing before it", e.Seq-1)
	case len(before) > 0 && !bytes.Equal(e.PrevHash, before[0].Hash):
		e.Wrong = "it does not have the hash of the entry before"
	case e.Kind == ledger.Capture && len(before) > 0 && before[0].Kind == ledger.Capture && before[0].To != e.From:
		e.Wrong = fmt.Sprintf("it begins at %d, the capture before ended at %d", e.From, before[0].To)
	}
	e.Sound = e.Wrong == ""
}

// Head is a chain's newest head in Kafka, and whether the ledger agrees.
type Head struct {
	Partition int32
	Seq       int64 // of the head; 0: there is none among the last
	At        string
	Signed    bool
	Newest    int64 // of the ledger
	Is        string
}

// Heads holds the newest heads against the ledger.
func Heads(ctx context.Context, db DB, sourceID int16, lines []Line, heads map[int32]ledger.Head) ([]Head, error) {
	var ps []int32
	var seqs []int64
	for p, h := range heads {
		ps, seqs = append(ps, p), append(seqs, h.Seq)
	}
	rows, _ := db.Query(ctx, `SELECT u.p, l.hash FROM unnest($2::int[], $3::bigint[]) u (p, s)
		CROSS JOIN LATERAL (SELECT hash FROM offset_ledger WHERE source_id = $1 AND source_partition = u.p AND seq = u.s) l`, sourceID, ps, seqs)
	have := map[int32][]byte{}
	var p int32
	var hash []byte
	if _, err := pgx.ForEachRow(rows, []any{&p, &hash}, func() error { have[p] = slices.Clone(hash); return nil }); err != nil {
		return nil, fmt.Errorf("hold heads against the ledger: %w", err)
	}
	var out []Head
	for _, l := range lines {
		h, ok := heads[l.Partition]
		v := Head{Partition: l.Partition, Newest: l.Seq, Seq: h.Seq, At: h.At, Signed: len(h.Sig) > 0}
		switch {
		case !ok:
			v.Is = "none among the last"
		case have[l.Partition] == nil && h.Seq < l.First:
			v.Is = "archived"
		case have[l.Partition] == nil:
			v.Is = "beyond the ledger"
		case bytes.Equal(have[l.Partition], h.Hash):
			v.Is = "agrees"
		default:
			v.Is = "differs"
		}
		out = append(out, v)
	}
	return out, nil
}
