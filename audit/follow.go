package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// Follower audits again and again beside workers, each time from where everything was proven before: a round costs what has come since. What
// was proven may be damaged later, so every Whole a round looks at everything once more.
//
// A round that found something proves nothing: the next one begins where it began, and finds the same for as long as it is there.
type Follower struct {
	Options Options
	Whole   time.Duration // how often everything is looked at; 0: only in the first round

	at    *position // nil: nothing is proven yet
	whole time.Time // when everything was looked at last
}

// Next makes one round. Its report is about what it has looked at; verified_through tells how far everything is proven.
func (f *Follower) Next(ctx context.Context) (*Report, error) {
	from, opts, now := f.at, f.Options, time.Now()
	if f.Whole > 0 && now.Sub(f.whole) >= f.Whole {
		from = nil
	}
	if from != nil {
		opts.Anchor = "" // it is checked and written when everything is looked at
	}
	rep, to, err := runFrom(ctx, opts, from, true)
	if err == nil && from != nil && rep.Found[LedgerChain]+rep.Found[LedgerGap] > 0 { // the chain is another than the one that was proven: restored and healed, or bent
		from = nil
		rep, to, err = runFrom(ctx, f.Options, nil, true)
	}
	if err != nil {
		return nil, err
	}
	if from == nil {
		f.whole, f.at = now, nil
	}
	if rep.Clean() {
		f.at = to
	}
	return rep, nil
}

// position is up to where everything is proven: where the next round begins to read.
type position struct {
	parts   map[int32]proven
	outputs map[string]map[int32]outputPosition
	heads   map[int32]int64
}

// proven is a source partition's. Everything below the offset is in both sinks once, and the ledger's chain is sound up to the entry that ends there.
type proven struct {
	offset, begin, seq int64
	hash               []byte
}

// outputPosition is where an output partition is read from: no event of an offset that is not proven stands before it. seen is what of each source
// partition does.
type outputPosition struct {
	at   int64
	seen map[int32]seen
}

// waypoint is the place of an event in an output partition.
type waypoint struct{ source, at int64 }

// waypointEvery is how many source offsets lie between two waypoints of one output partition: what may be read once more.
const waypointEvery = 512

// position is what the round that is at its end has proven.
func (r *run) position(ctx context.Context) (*position, error) {
	to := &position{parts: map[int32]proven{}, outputs: map[string]map[int32]outputPosition{}, heads: r.headsRead}
	for _, p := range r.sorted() {
		before, known := r.earlier.part(p.id)
		now := proven{begin: p.begin, offset: p.verified(r.findings.lowest(p.id, p.stored))}
		err := pgx.ErrNoRows
		if now.offset > p.begin && now.offset > before.offset {
			var ends int64
			err = r.pg.main.QueryRow(ctx, `SELECT seq, to_offset, hash FROM offset_ledger WHERE source_id = $1 AND source_partition = $2 AND to_offset <= $3 ORDER BY seq DESC LIMIT 1`,
				r.source, p.id, now.offset).Scan(&now.seq, &ends, &now.hash)
			if err == nil && ends != now.offset { // within an entry: its counts and digest could not be checked from there
				err = pgx.ErrNoRows
			}
		}
		switch {
		case err == nil:
			to.parts[p.id] = now
		case !errors.Is(err, pgx.ErrNoRows):
			return nil, fmt.Errorf("offset_ledger: %w", err)
		case known:
			to.parts[p.id] = before
		}
	}
	for topic, o := range r.outputs {
		to.outputs[topic] = map[int32]outputPosition{}
		for n, op := range o.parts {
			to.outputs[topic][n] = op.position(to)
		}
	}
	return to, nil
}

// part is a source partition's position; false: it has none.
func (at *position) part(n int32) (proven, bool) {
	if at == nil {
		return proven{}, false
	}
	p, ok := at.parts[n]
	p.hash = bytes.Clone(p.hash)
	return p, ok
}

// position is where the output partition must be read from for what is not proven.
func (op *outputPart) position(to *position) outputPosition {
	out := outputPosition{at: op.next, seen: map[int32]seen{}}
	for source, s := range op.seen {
		p, _ := to.part(source)
		if s.last < p.offset {
			continue
		}
		at := op.first
		for _, m := range op.waypoints[source] {
			if m.source <= p.offset {
				at = max(at, m.at)
			}
		}
		out.at = min(out.at, at)
	}
	for source, s := range op.seen {
		if out.at == op.next {
			out.seen[source] = s
			continue
		}
		last := int64(-1)
		for _, m := range op.waypoints[source] {
			if m.at < out.at {
				last = max(last, m.source)
			}
		}
		if last >= 0 {
			out.seen[source] = seen{s.first, last}
		}
	}
	return out
}

// begin sets where the partition is read from: the log's start, or what an earlier round has not proven.
func (op *outputPart) begin(start int64, from *position, topic string) {
	op.start, op.first, op.waypoints = start, start, map[int32][]waypoint{}
	if from != nil {
		if at, ok := from.outputs[topic][op.id]; ok && at.at >= start { // retention has taken nothing that is to be read
			op.start, op.first, op.known = 0, at.at, at.seen
		}
	}
	op.rewind()
	for source, s := range op.known {
		op.waypoints[source] = []waypoint{{s.last, op.first - 1}}
	}
}

// remember notes the place of an event now and then.
func (op *outputPart) remember(source int32, offset, at int64) {
	ms := op.waypoints[source]
	if len(ms) == 0 || offset >= ms[len(ms)-1].source+waypointEvery {
		op.waypoints[source] = append(ms, waypoint{offset, at})
	}
}
