package audit

import (
	"context"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/outbox"
)

const (
	mostReplayKeys = 1_000_000 // of replays' events whose keys are held against their letters'
	mostStrangers  = 100_000   // events that name no source of the snapshot; what is beyond is called unexplained at once
)

// replays are the dead letters that were handed in again: their events name a pointer as their source, not a record of the input. Pointers are a source of
// their own, which is audited as the input's is, on the same snapshot and in the same reading of the topics, but for the input: rows, dead letters, outbox,
// events, ledger and heads against each other.
type replays struct {
	*run  // of the pointers' source; nil: there is none in the snapshot
	heads map[int32]*headsOf

	mu        sync.Mutex
	keys      map[source]uint64 // of clicks' events, by pointer
	strangers []stranger
}

// stranger is an event of no source that the snapshot has. The first replay of all may have come after it.
type stranger struct {
	source
	topic string
	sink  Sink
	at    At
}

// openReplays finds the source of pointers, and adds up what Postgres has of it.
func (r *run) openReplays(ctx context.Context) error {
	r.replays = &replays{keys: map[source]uint64{}, heads: map[int32]*headsOf{}}
	var id int16
	opts := r.opts
	opts.Group, opts.Partition, opts.Since, opts.Until, opts.Progress, opts.Watch = r.opts.Group+"-replay", nil, time.Time{}, time.Time{}, nil, nil
	err := r.pg.main.QueryRow(ctx, `SELECT coalesce(max(source_id), 0), coalesce(max(topic), '') FROM sources WHERE group_id = $1 AND retired_at IS NULL`, opts.Group).Scan(&id, &opts.Input)
	if err != nil || id == 0 {
		return err
	}
	s := newRun(opts)
	s.hash, s.kafka, s.pg, s.dec, s.source, s.sources, s.noInput, s.replays = r.hash, r.kafka, r.pg, r.dec, id, r.sources, true, &replays{}
	// Listed once more, behind the snapshot: what it says is published is below.
	ends, err := r.kafka.offsets(ctx, "end offsets", r.kafka.adm.ListEndOffsets, r.opts.Output, r.opts.DLQ)
	if err != nil {
		return err
	}
	s.outputs = map[string]*output{}
	for topic, o := range r.outputs {
		s.outputs[topic] = &output{topic: topic, sink: o.sink, parts: map[int32]*outputPart{}}
		for n, op := range o.parts {
			op.twin = &outputPart{id: n, decidedAt: ends[topic][n], seen: map[int32]seen{}}
			s.outputs[topic].parts[n] = op.twin
		}
	}
	if topics, err := r.kafka.adm.ListTopics(ctx, s.opts.Input); err == nil && topics.Error() == nil {
		for n := range topics[s.opts.Input].Partitions {
			s.part(n)
		}
	}
	rows, _ := r.pg.main.Query(ctx, `SELECT source_partition, next_offset, CASE WHEN $2 THEN next_offset ELSE published_at_least END, ledger_seq, ledger_head
		FROM partition_offsets WHERE source_id = $1`, id, r.opts.Settled)
	var n int32
	var next, floor, seq int64
	var head []byte
	if _, err = pgx.ForEachRow(rows, []any{&n, &next, &floor, &seq, &head}, func() error {
		p := s.part(n)
		p.stored, p.group, p.groupAgain, p.seq, p.head = next, floor, floor, seq, append([]byte{}, head...)
		return nil
	}); err != nil {
		return fmt.Errorf("partition_offsets: %w", err)
	}
	r.replays.run = s
	steps := []func(context.Context) error{s.readArchives, s.readLedger, s.readFacts}
	if r.replaysWhole() {
		steps = append(steps, s.sumDeadLetters, s.sumRows)
	}
	for _, do := range steps {
		if err := do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// replaysWhole says whether replays are looked at record by record: whenever everything is.
func (r *run) replaysWhole() bool { return r.whole() && r.opts.Partition == nil }

// take takes an event that is not of the input. False: it must be said to be unexplained now.
func (w *summer) take(ctx context.Context, o *output, op *outputPart, rec *kgo.Record, m *outbox.Message, at *At) (bool, error) {
	v := header(m.Headers, sourceHeader)
	topic, _, ok := strings.Cut(v, "/")
	src, why := sourceOf(topic, m.Headers)
	if !ok || why != "" {
		return false, nil
	}
	p := w.replays
	if p.run != nil && topic == p.run.opts.Input {
		if w.replaying == nil {
			w.replaying = &summer{worker: p.run.newWorker()}
		}
		p.mu.Lock()
		if o.sink == Events && len(p.keys) < mostReplayKeys {
			p.keys[src] = maphash.Bytes(w.seed, m.Key)
		}
		p.mu.Unlock()
		return true, w.replaying.event(ctx, p.run.outputs[o.topic], op.twin, rec)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run != nil || len(p.strangers) >= mostStrangers {
		return false, nil
	}
	p.strangers = append(p.strangers, stranger{src, topic, o.sink, *at})
	return true, nil
}

// checkReplays settles the pointers' source, then holds each capture of a pointer against the letter it is of.
func (r *run) checkReplays(ctx context.Context) error {
	stored, err := r.replaysStored(ctx)
	if err != nil {
		return err
	}
	for _, x := range r.replays.strangers {
		if next, ok := stored[x.topic][x.partition]; ok && x.offset < next {
			r.totals.Later++
			continue
		}
		r.found(Unexplained, x.sink, -1, -1, &x.at, "%s: the %s header \"%s/%d/%d\" is not %s/<partition>/<offset>, nor a replay's", &x.at, sourceHeader, x.topic, x.partition, x.offset, r.opts.Input)
	}
	s := r.replays.run
	if s == nil {
		return nil
	}
	for n, next := range stored[s.opts.Input] {
		s.part(n).storedAgain = next
	}
	if err := s.settleReplays(ctx, r.replays.heads, r.replaysWhole()); err != nil {
		return err
	}
	return r.checkPointers(ctx, s)
}

// replaysStored are the stored offsets of pointers now, which cover every event that was read. It reads no table that is partitioned by time: it would
// have to wait for whoever makes or drops a time partition, and who waits for the snapshot.
func (r *run) replaysStored(ctx context.Context) (map[string]map[int32]int64, error) {
	conn, err := pgx.Connect(ctx, r.opts.DSN)
	if err != nil {
		return nil, fmt.Errorf("connect to postgres: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, _ := conn.Query(ctx, `SELECT topic, source_partition, next_offset FROM partition_offsets JOIN sources USING (source_id) WHERE group_id = $1 AND retired_at IS NULL`, r.opts.Group+"-replay")
	stored := map[string]map[int32]int64{}
	var topic string
	var n int32
	var next int64
	_, err = pgx.ForEachRow(rows, []any{&topic, &n, &next}, func() error {
		if stored[topic] == nil {
			stored[topic] = map[int32]int64{}
		}
		stored[topic][n] = next
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("partition_offsets: %w", err)
	}
	return stored, nil
}

// settleReplays does for the pointers' source what is left to do once the topics are read.
func (s *run) settleReplays(ctx context.Context, heads map[int32]*headsOf, whole bool) error {
	for _, p := range s.sorted() {
		if h := heads[p.id]; h != nil {
			if err := s.checkHeads(ctx, p, h.all); err != nil {
				return err
			}
		}
		if !whole {
			s.settleLater(p)
		}
	}
	if !whole {
		return nil
	}
	if err := s.sumOutbox(ctx); err != nil {
		return err
	}
	return s.settle(ctx)
}
