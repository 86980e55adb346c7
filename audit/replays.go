package audit

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/outbox"
)

// mostReplayed bounds what is kept of other sources' events; what is beyond it is called unexplained.
const mostReplayed = 1_000_000

// replays are the dead letters that were handed in again: their events name a pointer as their source, not a record of the input. There are few, so each is
// kept by itself.
type replays struct {
	mu     sync.Mutex
	id     int16
	topic  string
	floors map[int32]int64 // stable group offsets of its partitions as the snapshot has them, stored ones if all is settled
	seen   map[string][]replayed
}

type replayed struct {
	sink  Sink
	at    At
	value []byte
	key   []byte
}

// openReplays finds the source of pointers; there is none before the first replay.
func (r *run) openReplays(ctx context.Context) error {
	r.replays = &replays{seen: map[string][]replayed{}, floors: map[int32]int64{}}
	rows, _ := r.pg.main.Query(ctx, `SELECT source_partition, CASE WHEN $2 THEN next_offset ELSE published_at_least END FROM partition_offsets JOIN sources USING (source_id)
		WHERE group_id = $1 AND retired_at IS NULL`, r.opts.Group+"-replay", r.opts.Settled)
	var n int32
	var floor int64
	_, err := pgx.ForEachRow(rows, []any{&n, &floor}, func() error {
		r.replays.floors[n] = floor
		return nil
	})
	return err
}

// other takes an event that is not of the input; false: it must be said to be unexplained now.
func (p *replays) other(at *At, sink Sink, m *outbox.Message) bool {
	v := header(m.Headers, sourceHeader)
	topic, _, ok := strings.Cut(v, "/")
	if _, why := sourceOf(topic, m.Headers); !ok || why != "" {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen) >= mostReplayed {
		return false
	}
	p.seen[v] = append(p.seen[v], replayed{sink, *at, bytes.Clone(m.Value), bytes.Clone(m.Key)})
	return true
}

// A capture of a pointer is one row or one dead letter, which has what the first one had; below the group offset there is one event of it, in the right
// topic, with the key that was sent.
const replaysSQL = `SELECT c.source_partition, c.source_offset, c.of_partition, c.of_offset, (SELECT count(*) FROM enriched_clicks e
		WHERE (e.source_id, e.source_partition, e.source_offset) = (c.source_id, c.source_partition, c.source_offset)),
		(SELECT count(*) FROM dead_letters d WHERE (d.source_id, d.source_partition, d.source_offset) = (c.source_id, c.source_partition, c.source_offset)),
		f.key, f.value, f.source_id IS NOT NULL, coalesce((f.key, f.value, f.headers) IS NOT DISTINCT FROM (a.key, a.value, a.headers) OR a.source_id IS NULL OR f.source_id IS NULL OR f.key IS NULL AND f.value IS NULL, true)
	FROM replay_captures c
	LEFT JOIN dead_letters f ON (f.source_id, f.source_partition, f.source_offset) = (c.of_source_id, c.of_partition, c.of_offset)
	LEFT JOIN dead_letters a ON (a.source_id, a.source_partition, a.source_offset) = (c.source_id, c.source_partition, c.source_offset)
	WHERE c.source_id = $1`

// checkReplays looks at what is captured now, which covers every event that was read; missing is only what was published when the audit began.
func (r *run) checkReplays(ctx context.Context) error {
	p := r.replays
	conn, err := pgx.Connect(ctx, r.opts.DSN)
	if err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	err = conn.QueryRow(ctx, `SELECT coalesce(max(source_id), 0), coalesce(max(topic), '') FROM sources WHERE group_id = $1 AND retired_at IS NULL`, r.opts.Group+"-replay").Scan(&p.id, &p.topic)
	if err != nil || p.id == 0 {
		r.strangers()
		return err
	}
	letters := map[string]bool{} // dead letters of pointers that lead nowhere
	rows, _ := conn.Query(ctx, `SELECT source_partition, source_offset FROM dead_letters d WHERE source_id = $1 AND NOT EXISTS (SELECT FROM replay_captures c
		WHERE (c.source_id, c.source_partition, c.source_offset) = (d.source_id, d.source_partition, d.source_offset))`, p.id)
	var n, of int32
	var at, ofOffset int64
	if _, err := pgx.ForEachRow(rows, []any{&n, &at}, func() error {
		letters[fmt.Sprintf("%s/%d/%d", p.topic, n, at)] = true
		return nil
	}); err != nil {
		return err
	}
	var clicks, dead int64
	var key, value []byte
	var first, same bool
	rows, _ = conn.Query(ctx, replaysSQL, p.id)
	if _, err := pgx.ForEachRow(rows, []any{&n, &at, &of, &ofOffset, &clicks, &dead, &key, &value, &first, &same}, func() error {
		name := fmt.Sprintf("%s/%d/%d", p.topic, n, at)
		events := p.seen[name]
		delete(p.seen, name)
		sink, in := Events, Rows
		if dead > 0 {
			sink, in = DLQ, DeadLetters
		}
		switch {
		case clicks+dead == 0:
			r.found(Missing, Rows, of, ofOffset, nil, "its replay %s is captured and has neither row nor dead letter", name)
		case clicks+dead > 1:
			r.found(Duplicate, in, of, ofOffset, nil, "its replay %s has %d rows and %d dead letters", name, clicks, dead)
		case !same:
			r.found(Different, DeadLetters, of, ofOffset, nil, "its replay %s is a dead letter with another content", name)
		}
		switch floor, known := p.floors[n]; {
		case len(events) == 0 && known && at < floor && r.readWhole(sink):
			r.found(Missing, sink, of, ofOffset, nil, "nothing is published of its replay %s", name)
		case len(events) > 1:
			r.found(Duplicate, sink, of, ofOffset, &events[1].at, "its replay %s is published %d times", name, len(events))
		case len(events) == 1 && (events[0].sink != sink || first && key != nil && !bytes.Equal(events[0].key, key) || first && value != nil && sink == DLQ && !bytes.Equal(events[0].value, value)): // both are NULL once erased
			r.found(Different, sink, of, ofOffset, &events[0].at, "what is published of its replay %s is not what was captured", name)
		}
		return nil
	}); err != nil {
		return err
	}
	var lost int64 // rows of the replay's source that no capture of a pointer vouches for
	err = conn.QueryRow(ctx, `SELECT count(*) FROM enriched_clicks e WHERE source_id = $1 AND NOT EXISTS (SELECT FROM replay_captures c
		WHERE (c.source_id, c.source_partition, c.source_offset) = (e.source_id, e.source_partition, e.source_offset))`, p.id).Scan(&lost)
	if lost > 0 {
		r.found(Unexplained, Rows, -1, -1, nil, "%d rows of replays that no capture of a pointer vouches for", lost)
	}
	for name := range p.seen {
		if letters[name] && len(p.seen[name]) == 1 && p.seen[name][0].sink == DLQ {
			delete(p.seen, name)
		}
	}
	r.strangers()
	return err
}

// readWhole says whether the sink's topic was read from its first record on, and has lost none to retention.
func (r *run) readWhole(sink Sink) bool {
	if r.earlier != nil || !r.opts.Since.IsZero() || !r.opts.Until.IsZero() || r.opts.Partition != nil {
		return false
	}
	for _, o := range r.outputs {
		for _, op := range o.parts {
			if o.sink == sink && op.start > 0 {
				return false
			}
		}
	}
	return true
}

// strangers are events that no source there is accounts for.
func (r *run) strangers() {
	for name, events := range r.replays.seen {
		for i := range events {
			r.found(Unexplained, events[i].sink, -1, -1, &events[i].at, "%s: the %s header %.80q is not %s/<partition>/<offset>, nor a replay's", &events[i].at, sourceHeader, name, r.opts.Input)
		}
	}
}
