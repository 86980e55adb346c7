package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// counts are how far all is, in clicks. Clicks are not produced in transactions, so that offsets count them.
type counts struct{ sent, stored, published int64 }

func (c counts) done() bool { return c.stored == c.sent && c.published == c.sent }

func (c counts) String() string {
	return fmt.Sprintf("clicks sent %7s     in Postgres %7s     in Kafka %7s", number(c.sent), number(c.stored), number(c.published))
}

// position is one source partition's, in both stores.
type position struct {
	stored, epoch int64
	worker        string
	published     int64
}

// positions reads the group's offsets, then Postgres: in this order the first are never above the second.
func (d *demo) positions(ctx context.Context) (map[int32]position, error) {
	published, err := d.published(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := d.db.Query(ctx, `SELECT source_partition, next_offset, epoch, worker FROM partition_offsets`)
	if err != nil {
		return nil, fmt.Errorf("read the stored offsets: %w", err)
	}
	defer rows.Close()
	out := map[int32]position{}
	for rows.Next() {
		var id int32
		var p position
		if err := rows.Scan(&id, &p.stored, &p.epoch, &p.worker); err != nil {
			return nil, fmt.Errorf("read the stored offsets: %w", err)
		}
		p.published = published[id]
		out[id] = p
	}
	return out, rows.Err()
}

// published are the group's committed offsets. What an open transaction holds is no part of them.
func (d *demo) published(ctx context.Context) (map[int32]int64, error) {
	out := map[int32]int64{}
	res, err := d.adm.Kadm().FetchOffsets(ctx, d.cfg.Group)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return out, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the group's offsets: %w", err)
	}
	for p, o := range res[d.cfg.Topics.Input] {
		out[p] = max(o.At, 0)
	}
	return out, nil
}

func (d *demo) counts(ctx context.Context) (counts, error) {
	var c counts
	ps, err := d.positions(ctx)
	if err != nil {
		return c, err
	}
	for _, p := range ps {
		c.stored += p.stored
		c.published += p.published
	}
	ends, err := d.adm.Kadm().ListEndOffsets(ctx, d.cfg.Topics.Input)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return c, fmt.Errorf("read the input's ends: %w", err)
	}
	for _, e := range ends[d.cfg.Topics.Input] {
		c.sent += e.Offset
	}
	return c, nil
}

// owners is which worker has which partitions, as the group's coordinator says.
func (d *demo) owners(ctx context.Context) (map[string][]int32, error) {
	ds, err := d.adm.Kadm().DescribeGroups(ctx, d.cfg.Group)
	if err != nil {
		return nil, fmt.Errorf("ask who has which partitions: %w", err)
	}
	out := map[string][]int32{}
	for _, m := range ds[d.cfg.Group].Members {
		a, ok := m.Assigned.AsConsumer()
		if !ok || m.InstanceID == nil {
			continue
		}
		for _, t := range a.Topics {
			if t.Topic == d.cfg.Topics.Input {
				out[*m.InstanceID] = append(out[*m.InstanceID], t.Partitions...)
			}
		}
	}
	for _, ps := range out {
		slices.Sort(ps)
	}
	return out, nil
}

// shared says whether each of the workers has its share of the partitions, and works on them.
func (d *demo) shared(ctx context.Context, ids ...string) (bool, error) {
	own, err := d.owners(ctx)
	if err != nil {
		return false, err
	}
	ps, err := d.positions(ctx)
	if err != nil {
		return false, err
	}
	n := 0
	for _, id := range ids {
		if len(own[id]) < d.cfg.Topics.Partitions/len(ids) {
			return false, nil
		}
		for _, p := range own[id] {
			if ps[p].worker != id { // written when a claimed partition owes nothing any more
				return false, nil
			}
			n++
		}
	}
	return n == d.cfg.Topics.Partitions, nil
}

// until looks at the stores, shows how far they are, and returns when done says so. It fails if nothing moves for too long, and at
// once if a worker, the stack or the generator does.
func (d *demo) until(ctx context.Context, every time.Duration, doing string, done func(counts) (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last counts
	moved, shown := time.Now(), time.Time{}
	for {
		c, err := d.counts(ctx)
		if err != nil {
			return err
		}
		ok, err := done(c)
		if err != nil || ok {
			return err
		}
		if time.Since(shown) >= 100*time.Millisecond {
			d.screen.progress(c.String() + doing)
			shown = time.Now()
		}
		if c != last {
			last, moved = c, time.Now()
		} else if time.Since(moved) > patience {
			return fmt.Errorf("nothing moved for %v%s: %v", patience, doing, c)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.stack.Failed():
			return d.stack.Err()
		case <-tick.C:
		}
		if d.source.failed() != nil {
			return d.source.failed()
		}
		for _, w := range d.workers {
			if w.ended() && !w.mayDie {
				return fmt.Errorf("%s ended by itself: %v", w.id, w.cmd.ProcessState)
			}
		}
	}
}
