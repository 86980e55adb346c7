package offsets

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/txn"
)

// Healing is what the reason of a heal's hold begins with (package heal).
const Healing = "heal "

// Partition is where a source partition stands in Postgres, for deeds of other rooms.
type Partition struct {
	ID       int32
	Next     int64 // stored offset
	Epoch    int64
	Floor    int64 // published_at_least
	Begin    int64 // where it was first started: below it nothing was ever owed
	Captured bool
	Held     bool
	HeldWhy  string
}

// Partitions reads all that have a stored offset.
func (d *Desk) Partitions(ctx context.Context) (map[int32]Partition, error) {
	rows, err := d.rows(ctx, d.db, nil, false)
	if err != nil {
		return nil, err
	}
	out := map[int32]Partition{}
	for _, r := range rows {
		out[r.partition] = Partition{ID: r.partition, Next: r.next, Epoch: r.epoch, Floor: r.floor, Begin: r.begin, Captured: r.captured, Held: r.held, HeldWhy: r.heldWhy}
	}
	return out, nil
}

// Admin asks the brokers, under a name that is no worker's.
func (d *Desk) Admin() *admin.Admin { return d.adm }

// DB is the database, a few sessions of it.
func (d *Desk) DB() *pgxpool.Pool { return d.db }

// Source is the source as it was when the desk was opened.
func (d *Desk) Source() txn.Source { return d.source }

// Meet refuses to go on with another cluster, or with recreated topics (*txn.ErrSourceChanged).
func (d *Desk) Meet(ctx context.Context) error { return d.meet(ctx) }

// Stable reads group offsets once no open transaction is about to change them, whether the partitions have stored offsets or not. With fence, what
// workers that are gone have left open is aborted first.
func (d *Desk) Stable(ctx context.Context, ids []int32, fence bool) (map[int32]admin.GroupOffset, error) {
	rows, err := d.rows(ctx, d.db, nil, false)
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(r *row) bool { return !slices.Contains(ids, r.partition) })
	for _, id := range ids {
		if !slices.ContainsFunc(rows, func(r *row) bool { return r.partition == id }) {
			rows = append(rows, &row{partition: id})
		}
	}
	if fence {
		if err := d.fence(ctx, rows); err != nil {
			return nil, err
		}
	}
	return d.stable(ctx, rows, fence)
}

// Held is a partition that is held for a deed of another room.
type Held struct {
	d *Desk
	r *row
}

// Seize holds a partition for a heal: deed and reason are what the hold says. Its epoch is raised above its own and the one given. What another
// heal has left held is taken over, whoever's it was: that it has ended is the caller's to know. A person's own hold stays when the deed is done.
func (d *Desk) Seize(ctx context.Context, id int32, deed, reason string, above int64) (*Held, error) {
	h := &Held{d: d}
	err := pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		rows, err := d.rows(ctx, tx, []int32{id}, true)
		if err != nil {
			return err
		}
		h.r = rows[0]
		why := Healing + deed + ": " + reason
		if h.r.held && !strings.HasPrefix(h.r.heldWhy, Healing) {
			if err := d.mine(h.r, "hold"); err != nil {
				return err
			}
			h.r.keep, why = true, h.r.heldWhy
		}
		err = tx.QueryRow(ctx, `UPDATE partition_offsets SET state = 'held', held_by = $3, held_why = $4, held_since = coalesce(held_since, now()),
			epoch = greatest(epoch, $5) + 1, updated_at = now() WHERE source_id = $1 AND source_partition = $2 RETURNING epoch`,
			d.source.ID, id, d.By, why, above).Scan(&h.r.epoch)
		h.r.held = true
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("hold partition %d: %w", id, err)
	}
	return h, nil
}

// Next is the stored offset.
func (h *Held) Next() int64 { return h.r.next }

// Kept says that the hold is a person's own and stays.
func (h *Held) Kept() bool { return h.r.keep }

// Do runs f with the row locked, after making sure that the hold is still ours.
func (h *Held) Do(ctx context.Context, f func(pgx.Tx) error) error {
	return h.d.underHold(ctx, []*row{h.r}, f)
}

// DoAll is Do for several partitions, in one transaction.
func (d *Desk) DoAll(ctx context.Context, held []*Held, f func(pgx.Tx) error) error {
	rows := make([]*row, len(held))
	for i, h := range held {
		rows[i] = h.r
	}
	return d.underHold(ctx, rows, f)
}

// Append adds a deed to the partition's ledger, inside of Do or Advance.
func (h *Held) Append(ctx context.Context, tx pgx.Tx, deed ledger.Deed) error {
	return h.d.append(ctx, tx, h.r, deed)
}

// Advance is Do, and the stored offset is to from then on. The leader epoch of the record before is not known.
func (h *Held) Advance(ctx context.Context, to int64, f func(pgx.Tx) error) error {
	err := h.Do(ctx, func(tx pgx.Tx) error {
		if err := f(tx); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE partition_offsets SET next_offset = $3, leader_epoch = -1, published_at_least = greatest(published_at_least, $3), updated_at = now()
			WHERE source_id = $1 AND source_partition = $2`, h.d.source.ID, h.r.partition, to)
		return err
	})
	if err == nil {
		h.r.next = to
	}
	return err
}

// letGoTimeout bounds the end of a hold, which is tried also when whoever placed it was told to stop.
const letGoTimeout = 10 * time.Second

// LetGo ends the hold, unless a person had placed it before.
func (h *Held) LetGo(ctx context.Context) error {
	if h.r.keep {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), letGoTimeout)
	defer cancel()
	return h.Do(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, openSQL, h.d.source.ID, h.r.partition)
		return err
	})
}
