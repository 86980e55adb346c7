package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// ErrNoSource is matched (errors.Is) when Postgres knows no such topic and group: nothing was ever captured, or the settings are wrong.
var ErrNoSource = errors.New("no source in Postgres for this topic and group: `exactly setup` or a first `exactly run` makes it; or the settings are not the workers'")

// groupOffsets reads the committed offsets of the input. Where a transaction holds one for longer than StableWait, its last stable
// value is taken: it is as true, only older.
func (r *run) groupOffsets(ctx context.Context) (offsets map[int32]int64, unstable map[int32]bool, err error) {
	fetch := func(ctx context.Context) (map[int32]int64, error) {
		resp, err := r.kafka.adm.FetchOffsets(ctx, r.opts.Group)
		if errors.Is(err, kerr.GroupIDNotFound) {
			return map[int32]int64{}, nil
		}
		if err != nil {
			return nil, fmt.Errorf("group %s: %w", r.opts.Group, err)
		}
		out := map[int32]int64{}
		for p, o := range resp[r.opts.Input] {
			if o.Err != nil {
				return nil, fmt.Errorf("group %s, %s/%d: %w", r.opts.Group, r.opts.Input, p, o.Err)
			}
			out[p] = o.At
		}
		return out, nil
	}
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 5*time.Millisecond, 100*time.Millisecond
	offsets, err = backoff.Retry(ctx, func() (map[int32]int64, error) {
		got, err := fetch(kadm.RequireStable(ctx))
		if err != nil && !errors.Is(err, kerr.UnstableOffsetCommit) {
			err = backoff.Permanent(err)
		}
		return got, err
	}, backoff.WithBackOff(b), backoff.WithMaxElapsedTime(r.opts.StableWait))
	unstable = map[int32]bool{}
	if errors.Is(err, kerr.UnstableOffsetCommit) {
		if offsets, err = fetch(ctx); err == nil {
			for p := range offsets {
				unstable[p] = true
			}
		}
	}
	return offsets, unstable, err
}

// readGroup is the first thing read: what was published by now must be found later. The ends of the output topics are listed right
// behind it: the records of every transaction that a group offset tells of are below them, decided or not.
func (r *run) readGroup(ctx context.Context) error {
	group, unstable, err := r.groupOffsets(ctx)
	if err != nil {
		return err
	}
	r.unstable = unstable
	for n := range r.kafka.topics[r.opts.Input].Partitions {
		if r.wants(n) {
			r.part(n).inTopic = true
		}
	}
	for n, at := range group {
		if r.wants(n) {
			r.part(n).group = at
		}
	}
	r.outputs = map[string]*output{}
	ends, err := r.kafka.offsets(ctx, "end offsets", r.kafka.adm.ListEndOffsets, r.opts.Output, r.opts.DLQ)
	if err != nil {
		return err
	}
	for topic, sink := range map[string]Sink{r.opts.Output: Events, r.opts.DLQ: DLQ} {
		o := &output{topic: topic, sink: sink, parts: map[int32]*outputPart{}}
		for n, end := range ends[topic] {
			o.parts[n] = &outputPart{id: n, decidedAt: end, seen: map[int32]seen{}}
		}
		r.outputs[topic] = o
	}
	if r.opts.Partition != nil && !r.part(*r.opts.Partition).inTopic {
		return fmt.Errorf("topic %s has no partition %d", r.opts.Input, *r.opts.Partition)
	}
	return nil
}

// part is the source partition, made when first heard of.
func (r *run) part(n int32) *partition {
	p := r.parts[n]
	if p == nil {
		p = &partition{id: n, group: -1, groupAgain: -1, dead: bitmap{}, erased: bitmap{}, early: map[int64]uint64{}, miscounted: map[int64]bool{}}
		r.parts[n] = p
	}
	return p
}

// openSnapshot reads the stored offsets, in the transaction that all tables will be read in.
func (r *run) openSnapshot(ctx context.Context) error {
	var err error
	if r.pg, err = openSnapshot(ctx, r.opts.DSN); err != nil {
		return err
	}
	r.sources = map[int16]bool{}
	rows, _ := r.pg.main.Query(ctx, `SELECT source_id, topic_id, topic = $1 AND group_id = $2 AND retired_at IS NULL FROM sources`, r.opts.Input, r.opts.Group)
	var id int16
	var topicID kadm.TopicID
	var raw [16]byte
	var ours bool
	_, err = pgx.ForEachRow(rows, []any{&id, &raw, &ours}, func() error {
		r.sources[id] = true
		if ours {
			r.source, topicID = id, kadm.TopicID(raw)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("sources: %w", err)
	}
	if r.source == 0 {
		return ErrNoSource
	}
	if got := r.kafka.topics[r.opts.Input].ID; got != topicID {
		return fmt.Errorf("topic %s has another id (%s) than the one that was captured (%s): it was made anew, and offsets of the two can't be compared", r.opts.Input, got, topicID)
	}
	rows, _ = r.pg.main.Query(ctx, `SELECT source_partition, next_offset, published_at_least, ledger_seq, ledger_head FROM partition_offsets WHERE source_id = $1`, r.source)
	var n int32
	var next, floor, seq int64
	var head []byte
	_, err = pgx.ForEachRow(rows, []any{&n, &next, &floor, &seq, &head}, func() error {
		if r.wants(n) {
			p := r.part(n)
			p.stored, p.floor, p.seq, p.head = next, floor, seq, append([]byte{}, head...)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("partition_offsets: %w", err)
	}
	for _, p := range r.sorted() {
		if p.group > p.stored { // read before, and stored offsets only grow
			r.found(GroupAhead, Group, p.id, p.group, nil, "the group offset %d is above the stored offset %d: Kafka has what Postgres has lost", p.group, p.stored)
		}
	}
	return nil
}

// readAgain reads the positions once more, to judge what was captured or published after the first look.
func (r *run) readAgain(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, r.opts.DSN) // not on the snapshot: this is about now
	if err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, _ := conn.Query(ctx, `SELECT source_partition, next_offset FROM partition_offsets WHERE source_id = $1`, r.source)
	var n int32
	var next int64
	_, err = pgx.ForEachRow(rows, []any{&n, &next}, func() error {
		if p := r.parts[n]; p != nil {
			p.storedAgain = next
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("partition_offsets: %w", err)
	}
	for until := time.Now().Add(r.opts.UndecidedIn); ; {
		group, unstable, err := r.groupOffsets(ctx)
		if err != nil {
			return err
		}
		wait := false
		for n, at := range group {
			if p := r.parts[n]; p != nil {
				p.groupAgain, p.pending = at, unstable[n]
				wait = wait || p.pending && p.behind()
			}
		}
		// The last stable value may be older than what a worker has noted: its commit was answered, and is not applied everywhere yet.
		if !wait || time.Now().After(until) {
			return nil
		}
	}
}

// behind says whether the group offset is below what it once was.
func (p *partition) behind() bool { return p.groupAgain < max(p.floor, p.group) }
