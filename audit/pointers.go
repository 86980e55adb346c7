package audit

import (
	"context"
	"fmt"
	"hash/maphash"

	"github.com/jackc/pgx/v5"
)

// A capture of a pointer is one row or one dead letter, which has what the first one had, and its event has the letter's key.
const pointersSQL = `SELECT c.source_partition, c.source_offset, c.of_partition, c.of_offset, (SELECT count(*) FROM enriched_clicks e
		WHERE (e.source_id, e.source_partition, e.source_offset) = (c.source_id, c.source_partition, c.source_offset)),
		(SELECT count(*) FROM dead_letters d WHERE (d.source_id, d.source_partition, d.source_offset) = (c.source_id, c.source_partition, c.source_offset)),
		f.key, f.source_id IS NOT NULL AND (f.key IS NOT NULL OR f.value IS NOT NULL), coalesce((f.key, f.value, f.headers) IS NOT DISTINCT FROM (a.key, a.value, a.headers) OR a.source_id IS NULL OR f.source_id IS NULL OR f.key IS NULL AND f.value IS NULL, true)
	FROM replay_captures c
	LEFT JOIN dead_letters f ON (f.source_id, f.source_partition, f.source_offset) = (c.of_source_id, c.of_partition, c.of_offset)
	LEFT JOIN dead_letters a ON (a.source_id, a.source_partition, a.source_offset) = (c.source_id, c.source_partition, c.source_offset)
	WHERE c.source_id = $1`

// checkPointers holds what pointers were captured as against their letters, and says by the letters' coordinates what was found of the pointers' source.
func (r *run) checkPointers(ctx context.Context, s *run) error {
	of := map[source]source{} // of what something was found of
	for _, fs := range s.findings.kept {
		for i := range fs {
			of[source{fs[i].Partition, fs[i].Offset}] = source{-1, -1}
		}
	}
	var at, first source
	var clicks, dead int64
	var key []byte
	var whole, same bool
	rows, _ := r.pg.main.Query(ctx, pointersSQL, s.source)
	if _, err := pgx.ForEachRow(rows, []any{&at.partition, &at.offset, &first.partition, &first.offset, &clicks, &dead, &key, &whole, &same}, func() error {
		if _, found := of[at]; found {
			of[at] = first
		}
		name := fmt.Sprintf("%s/%d/%d", s.opts.Input, at.partition, at.offset)
		p := s.part(at.partition)
		sum, published := r.replays.keys[at]
		switch {
		case clicks+dead == 0 && !p.pruned.rows.has(at.offset) && !p.pruned.dead.has(at.offset):
			if !s.findings.has(at) {
				r.found(Missing, Rows, first.partition, first.offset, nil, "its replay %s is captured and has neither row nor dead letter", name)
			}
		case !same:
			r.found(Different, DeadLetters, first.partition, first.offset, nil, "its replay %s is a dead letter with another content", name)
		case published && dead == 0 && whole && !p.erased.has(at.offset) && maphash.Bytes(r.hash.seed, key) != sum:
			r.found(Different, Events, first.partition, first.offset, nil, "what is published of its replay %s has another key than the dead letter", name)
		}
		return nil
	}); err != nil {
		return fmt.Errorf("replay_captures: %w", err)
	}
	if err := r.lostReplays(ctx, s); err != nil {
		return err
	}
	r.takeOver(s, of)
	r.notes = append(r.notes, s.notes...)
	return nil
}

// lostReplays are rows of the pointers' source that no capture of a pointer vouches for.
func (r *run) lostReplays(ctx context.Context, s *run) error {
	var lost int64
	err := r.pg.main.QueryRow(ctx, `SELECT count(*) FROM enriched_clicks e WHERE source_id = $1 AND NOT EXISTS (SELECT FROM replay_captures c
		WHERE (c.source_id, c.source_partition, c.source_offset) = (e.source_id, e.source_partition, e.source_offset))`, s.source).Scan(&lost)
	if err != nil {
		return fmt.Errorf("enriched_clicks: %w", err)
	}
	if lost > 0 {
		r.found(Unexplained, Rows, -1, -1, nil, "%d rows of replays that no capture of a pointer vouches for", lost)
	}
	return nil
}

// takeOver adds what was found of the pointers' source to what was found.
func (r *run) takeOver(s *run, of map[source]source) {
	for class, fs := range s.findings.kept {
		more := map[Sink]int64{}
		for sink, n := range s.findings.counts[class] {
			more[sink] = n
		}
		for _, f := range fs {
			more[f.Sink]--
			at := source{f.Partition, f.Offset}
			says := fmt.Sprintf("replays, %s/%d: %s", s.opts.Input, at.partition, f.Says)
			if at.offset >= 0 {
				says = fmt.Sprintf("its replay %s/%d/%d: %s", s.opts.Input, at.partition, at.offset, f.Says)
			}
			first, ok := of[at]
			if !ok {
				first = source{-1, -1}
			}
			if f.At == nil && first.partition < 0 && at.offset >= 0 {
				f.At = &At{s.opts.Input, at.partition, at.offset}
			}
			f.Partition, f.Offset, f.Says = first.partition, first.offset, says
			r.findings.add(f)
			if class != Gap {
				r.mark(f.Partition, f.Offset)
			}
		}
		for sink, n := range more {
			r.findings.more(class, sink, n)
		}
	}
}
