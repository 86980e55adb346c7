package offsets

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/heads"
	"github.com/exactly-pipeline/exactly/ledger"
)

// row is a partition's row of partition_offsets.
type row struct {
	partition   int32
	next        int64 // stored offset
	leaderEpoch int32
	epoch       int64
	floor       int64 // published_at_least
	seq         int64
	head        []byte
	worker      string
	claimants   []string
	workers     []string // who may have left a transaction open
	held        bool
	heldBy      string
	heldWhy     string
	heldSince   time.Time
	begin       int64 // where the partition was first started: below it nothing was ever owed
	captured    bool
	care        engine.Care // what the next owner takes care of, or the present one does

	keep    bool // it was held by a person before our deed: it stays so
	resumed bool // it was held by a command of our kind that was killed
}

func partitions(rows []*row) []int32 {
	ids := make([]int32, len(rows))
	for i, r := range rows {
		ids[i] = r.partition
	}
	return ids
}

// rows reads the rows of the partitions given, all of them if nil, in the order that locks are taken in.
func (d *Desk) rows(ctx context.Context, db interface {
	Query(context.Context, string, ...any) (pgx.Rows, error)
}, ids []int32, lock bool) ([]*row, error) {
	sql := `SELECT source_partition, next_offset, leader_epoch, epoch, published_at_least, ledger_seq, ledger_head, worker, claimants,
		state = 'held', coalesce(held_by, ''), coalesce(held_why, ''), coalesce(held_since, 'epoch'),
		coalesce((SELECT l.to_offset FROM offset_ledger l WHERE l.source_id = p.source_id AND l.source_partition = p.source_partition AND l.seq = 1 AND l.kind = 'start'),
			(SELECT max(begun_at) FROM ledger_archives a WHERE a.source_id = p.source_id AND a.source_partition = p.source_partition), 0),
		EXISTS (SELECT FROM offset_ledger l WHERE l.source_id = p.source_id AND l.source_partition = p.source_partition AND l.kind IN ('capture', 'heal', 'archive') LIMIT 1),
		careful_to, careful_step, attempts
		FROM partition_offsets p WHERE source_id = $1 AND ($2::int[] IS NULL OR source_partition = ANY($2)) ORDER BY source_id, source_partition`
	if lock {
		sql += " FOR UPDATE OF p"
	}
	rs, err := db.Query(ctx, sql, d.source.ID, ids)
	if err != nil {
		return nil, fmt.Errorf("read stored offsets: %w", explained(err))
	}
	out, err := pgx.CollectRows(rs, func(rs pgx.CollectableRow) (*row, error) {
		r := &row{}
		err := rs.Scan(&r.partition, &r.next, &r.leaderEpoch, &r.epoch, &r.floor, &r.seq, &r.head, &r.worker, &r.claimants,
			&r.held, &r.heldBy, &r.heldWhy, &r.heldSince, &r.begin, &r.captured,
			&r.care.To, &r.care.Step, &r.care.Attempts)
		for _, w := range append([]string{r.worker}, r.claimants...) {
			if w != "" && !slices.Contains(r.workers, w) {
				r.workers = append(r.workers, w)
			}
		}
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("read stored offsets: %w", explained(err))
	}
	for _, id := range ids {
		if !slices.ContainsFunc(out, func(r *row) bool { return r.partition == id }) {
			return nil, refuse(id, "has no stored offset: no worker has started it yet, or the topic has no such partition")
		}
	}
	return out, nil
}

func explained(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == "55P03" { // lock_not_available
		return fmt.Errorf("a session holds an offsets row's lock and does not let go (a frozen worker?): %w", err)
	}
	return err
}

// holding is what a hold's reason begins with: which command placed it.
const holding = "offsets "

// mine says whether a deed may work on a held row: this person's own hold, or what a killed command of the same kind has left. Anybody
// else's, and another command's (a heal under way), is respected.
func (d *Desk) mine(r *row, deed string) error {
	if r.heldBy == d.By && (strings.HasPrefix(r.heldWhy, holding+"hold: ") || strings.HasPrefix(r.heldWhy, holding+deed+": ")) {
		return nil
	}
	return refuse(r.partition, "is held by %s since %s: %s; to end that: exactly offsets release --partition %d",
		r.heldBy, r.heldSince.UTC().Format(time.RFC3339), r.heldWhy, r.partition)
}

// seize holds the locked row for a deed and raises its epoch, so that a running owner loses it at its next capture at the latest. What
// a killed command of the same kind has left held is taken over; a person's own hold stays when the deed is done.
func (d *Desk) seize(ctx context.Context, tx pgx.Tx, r *row, deed, reason string) error {
	if r.held {
		if err := d.mine(r, deed); err != nil {
			return err
		}
		r.keep = strings.HasPrefix(r.heldWhy, holding+"hold: ")
		r.resumed = !r.keep
	}
	why := holding + deed + ": " + reason
	if r.keep {
		why = r.heldWhy
	}
	err := tx.QueryRow(ctx, `UPDATE partition_offsets SET state = 'held', held_by = $3, held_why = $4, held_since = coalesce(held_since, now()),
		epoch = epoch + 1, updated_at = now() WHERE source_id = $1 AND source_partition = $2 RETURNING epoch`,
		d.source.ID, r.partition, d.By, why).Scan(&r.epoch)
	if err != nil {
		return fmt.Errorf("hold partition %d: %w", r.partition, err)
	}
	r.held = true
	return nil
}

const openSQL = `UPDATE partition_offsets SET state = 'open', held_by = NULL, held_why = NULL, held_since = NULL, updated_at = now()
	WHERE source_id = $1 AND source_partition = $2`

// underHold runs f with the seized rows locked, after making sure that they are still ours: nobody released them, nobody seized them
// after us.
func (d *Desk) underHold(ctx context.Context, held []*row, f func(pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		now, err := d.rows(ctx, tx, partitions(held), true)
		if err != nil {
			return err
		}
		for i, r := range now {
			if !r.held || r.epoch != held[i].epoch || r.next != held[i].next {
				return refuse(r.partition, "the hold was ended by somebody else meanwhile")
			}
		}
		return f(tx)
	})
}

// append adds a deed's entry to the ledger and moves the locked row's head to it, in the caller's transaction.
func (d *Desk) append(ctx context.Context, tx pgx.Tx, r *row, deed ledger.Deed) error {
	deed.SourceID, deed.Partition, deed.Who, deed.Build = d.source.ID, r.partition, d.By, d.Build
	e, err := ledger.AppendDeed(ctx, tx, deed)
	if err != nil {
		return err
	}
	r.seq, r.head = e.Seq, e.Hash()
	return nil
}

// publishHeads publishes the heads of partitions whose deed is committed. That it could not is said and is no error: the next publish of the
// partition carries a head that vouches for this one too.
func (d *Desk) publishHeads(ctx context.Context, partitions ...int32) (says string) {
	if len(partitions) == 0 || d.cfg.Ledger.HeadsTopic == "" {
		return ""
	}
	if err := heads.PostNewest(ctx, &d.cfg, d.db, d.source.Stream(), partitions); err != nil {
		return fmt.Sprintf("; its ledger head is not in Kafka yet (%v)", err)
	}
	return ""
}
