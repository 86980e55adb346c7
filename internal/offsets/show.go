package offsets

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/exactly-pipeline/exactly/internal/admin"
)

// Report is what `offsets show` shows.
type Report struct {
	ClusterID  string     `json:"cluster_id"`
	Group      string     `json:"group"`
	SourceID   int16      `json:"source_id"`
	Topic      string     `json:"topic"`
	TopicID    string     `json:"topic_id"`
	Notes      []string   `json:"notes,omitempty"` // about all of it
	Partitions []Position `json:"partitions"`
}

// Position is where one source partition is. What does not exist, or is not known, is null.
type Position struct {
	Partition   int32      `json:"partition"`
	Stored      *int64     `json:"stored_offset"`
	Group       *int64     `json:"group_offset"`
	Pending     bool       `json:"group_offset_pending"`        // in an open transaction
	Last        *int64     `json:"group_offset_last,omitempty"` // while it is pending: the one committed last
	Ours        bool       `json:"group_offset_ours"`           // it carries our metadata
	Gap         *int64     `json:"gap_records"`                 // stored - group: what Kafka is owed
	LogStart    *int64     `json:"log_start"`
	StableEnd   *int64     `json:"stable_end"`  // last stable offset of the input
	Lag         *int64     `json:"lag_records"` // stable end - stored
	Floor       *int64     `json:"published_at_least"`
	Owner       string     `json:"owner"`               // who drained the gap last
	Assigned    string     `json:"assigned"`            // whom the group has assigned it now
	Claimants   []string   `json:"claimants,omitempty"` // who claimed since: none once the gap is closed
	Epoch       *int64     `json:"epoch"`
	LeaderEpoch *int32     `json:"leader_epoch"` // of the record before the stored offset; -1 unknown
	State       string     `json:"state"`        // open, held; empty: not started
	HeldBy      string     `json:"held_by,omitempty"`
	HeldWhy     string     `json:"held_why,omitempty"`
	HeldSince   *time.Time `json:"held_since,omitempty"`
	Notes       []string   `json:"notes,omitempty"`
}

// Show looks at every partition of the input. It changes nothing and waits for nothing.
func (d *Desk) Show(ctx context.Context) (*Report, error) {
	rep := &Report{Group: d.cfg.Group, SourceID: d.source.ID, Topic: d.cfg.Topics.Input, TopicID: d.source.TopicIDs[d.cfg.Topics.Input]}
	var err error
	if rep.ClusterID, err = d.adm.Cluster(ctx); err != nil {
		return nil, err
	}
	if err := d.meet(ctx); err != nil {
		rep.Notes = append(rep.Notes, err.Error())
	}
	starts, err := d.listed(ctx, "start", d.adm.Kadm().ListStartOffsets)
	if err != nil {
		return nil, err
	}
	ids := slices.Sorted(maps.Keys(starts))
	// The group before the rows: no honest group offset is above a stored offset that was read later.
	group, err := d.adm.GroupOffsets(ctx, ids)
	if err != nil {
		return nil, err
	}
	var pending []int32
	for p, g := range group {
		if g.Pending {
			pending = append(pending, p)
		}
	}
	last := map[int32]admin.GroupOffset{}
	if len(pending) > 0 {
		if last, err = d.adm.LastGroupOffsets(ctx, pending); err != nil {
			return nil, err
		}
	}
	assigned, err := d.adm.Assigned(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := d.rows(ctx, d.db, nil, false)
	if err != nil {
		return nil, err
	}
	// Last, for the same reason: only a truncated log ends below a stored offset.
	ends, err := d.listed(ctx, "stable end", d.adm.Kadm().ListCommittedOffsets)
	if err != nil {
		return nil, err
	}
	stored := map[int32]*row{}
	for _, r := range rows {
		stored[r.partition] = r
		if _, there := starts[r.partition]; !there {
			ids = append(ids, r.partition)
		}
	}
	for _, id := range ids {
		p := Position{Partition: id, Assigned: assigned[id]}
		if s, ok := starts[id]; ok {
			p.LogStart = &s
		}
		if e, ok := ends[id]; ok {
			p.StableEnd = &e
		}
		if l := last[id]; l.Has {
			p.Last = &l.Offset
		}
		p.add(group[id], stored[id])
		rep.Partitions = append(rep.Partitions, p)
	}
	return rep, nil
}

func (d *Desk) listed(ctx context.Context, what string, list func(context.Context, ...string) (kadm.ListedOffsets, error)) (map[int32]int64, error) {
	topic := d.cfg.Topics.Input
	l, err := list(ctx, topic)
	if err == nil {
		err = l.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ask kafka for the %s of %s: %w", what, topic, err)
	}
	out := map[int32]int64{}
	l.Each(func(o kadm.ListedOffset) { out[o.Partition] = o.Offset })
	return out, nil
}

// add fills in what the group and Postgres say, and what is odd about it.
func (p *Position) add(g admin.GroupOffset, r *row) {
	note := func(format string, a ...any) { p.Notes = append(p.Notes, fmt.Sprintf(format, a...)) }
	p.Pending = g.Pending
	if g.Has {
		p.Group, p.Ours = &g.Offset, g.Ours
		if !g.Ours {
			note("group offset not ours")
		}
	}
	if r == nil {
		if g.Has {
			note("no stored offset although there is a group offset")
		}
		return
	}
	p.Stored, p.Epoch, p.LeaderEpoch, p.Floor, p.Owner, p.State = &r.next, &r.epoch, &r.leaderEpoch, &r.floor, r.worker, "open"
	if len(r.claimants) > 0 {
		p.Claimants = r.claimants
	}
	if r.held {
		p.State, p.HeldBy, p.HeldWhy = "held", r.heldBy, r.heldWhy
		since := r.heldSince.UTC()
		p.HeldSince = &since
		note("held by %s since %s: %s", r.heldBy, since.Format(time.RFC3339), r.heldWhy)
	}
	if r.care.On(r.next) {
		note("handled with care up to %d: a worker was gone in the middle of its records (%d over the next one alone)", r.care.To, r.care.Attempts)
	}
	if p.StableEnd != nil {
		lag := *p.StableEnd - r.next
		p.Lag = &lag
	}
	if p.LogStart != nil && r.next < *p.LogStart {
		note("%d records expired unread", *p.LogStart-r.next)
	}
	switch {
	case g.Pending:
	case !g.Has && r.captured:
		note("group offset gone")
	case g.Has:
		gap := r.next - g.Offset
		p.Gap = &gap
		if gap < 0 {
			note("group offset above the stored one")
		}
		if g.Offset < r.floor {
			note("group offset was already seen at %d", r.floor)
		}
	}
}
