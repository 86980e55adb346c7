package retention

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/wait"
	"github.com/exactly-pipeline/exactly/ledger"
)

// lockTimeout is how long one try waits for the locks of a drop: captures that come meanwhile queue behind it, so it is all they ever wait.
const lockTimeout = 100 * time.Millisecond

// pruner is one prune under way.
type pruner struct {
	cfg     *config.Config
	o       Options
	conn    *pgx.Conn
	kafka   *kafka
	sources map[int16]source
	until   time.Time
	now     time.Time
	keep    map[string]time.Duration
}

// one decides on a time partition, and drops it, in one transaction. What is in it can't change between: see exactly_prune_extent.
func (p *pruner) one(ctx context.Context, t *Partition) error {
	return pgx.BeginFunc(ctx, p.conn, func(tx pgx.Tx) error {
		// Only writers of a day that is over, and autovacuum, are in this lock's way: nobody waits behind it.
		if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '5s'; SET LOCAL idle_in_transaction_session_timeout = '60s'`); err != nil {
			return err
		}
		if err := p.extents(ctx, tx, t); err != nil {
			if locked(err) {
				return &busyError{t.Name}
			}
			return err
		}
		if t.suffix == "default" {
			if t.Records == 0 {
				return nil
			}
			if k := p.keep[t.Table]; k == 0 || p.now.Before(t.To.Add(max(k, 24*time.Hour))) {
				t.State, t.Why = Kept, "there was no time partition for its day when they were captured, and they are within their retention"
				return nil
			}
		}
		why, err := p.owed(ctx, t)
		if err != nil {
			return err
		}
		if why != "" {
			t.State, t.Why = Kept, why
			return nil
		}
		if t.State = WouldDrop; p.o.DryRun {
			return nil
		}
		return p.drop(ctx, tx, t)
	})
}

func (p *pruner) extents(ctx context.Context, tx pgx.Tx, t *Partition) error {
	rows, err := tx.Query(ctx, `SELECT source, partition, from_offset, to_offset, records, first_at, last_at FROM exactly_prune_extent($1, $2)`, t.Table, t.suffix)
	if err != nil {
		return err
	}
	t.Records = 0
	t.Extents, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (e Extent, err error) {
		err = row.Scan(&e.SourceID, &e.Partition, &e.From, &e.To, &e.Records, &e.FirstAt, &e.LastAt)
		if t.Records == 0 || e.FirstAt.Before(t.From) {
			t.From = e.FirstAt
		}
		if t.Records == 0 || e.LastAt.After(t.To) {
			t.To = e.LastAt
		}
		t.Records += e.Records
		return e, err
	})
	return err
}

// owed says why the time partition must stay: something in it is not known to be in Kafka. Empty: nothing is owed.
func (p *pruner) owed(ctx context.Context, t *Partition) (string, error) {
	for i := range t.Extents {
		e := &t.Extents[i]
		s, ok := p.sources[e.SourceID]
		if !ok {
			return fmt.Sprintf("it has rows of source %d, which there is not: run exactly audit", e.SourceID), nil
		}
		if s.retired {
			continue
		}
		at, why, err := p.kafka.published(ctx, s, e.Partition)
		if err != nil || why != "" {
			return why, err
		}
		if e.To > at {
			return fmt.Sprintf("source %d (%s, group %s), partition %d: it reaches up to offset %d, the group offset is %d, so Kafka is owed some of it: "+
				"a worker publishes it; exactly offsets show", s.id, s.topic, s.group, e.Partition, e.To-1, at), nil
		}
		e.Published = &at
	}
	return "", nil
}

// drop tries until it has the locks, each time for no longer than captures may wait.
func (p *pruner) drop(ctx context.Context, tx pgx.Tx, t *Partition) error {
	// Were this process stopped now, captures would wait for it.
	if _, err := tx.Exec(ctx, fmt.Sprintf(`SET LOCAL lock_timeout = %d; SET LOCAL idle_in_transaction_session_timeout = '2s'`, lockTimeout.Milliseconds())); err != nil {
		return err
	}
	for {
		err := pgx.BeginFunc(ctx, tx, func(tx pgx.Tx) error { return p.tryDrop(ctx, tx, t) })
		if !locked(err) {
			return err
		}
		if time.Now().After(p.until) {
			return &busyError{t.Name}
		}
		if err := wait.For(ctx, 200*time.Millisecond+rand.N(300*time.Millisecond)); err != nil {
			return err
		}
	}
}

// tryDrop takes its locks in the order that captures do: the offsets rows first, then the table.
func (p *pruner) tryDrop(ctx context.Context, tx pgx.Tx, t *Partition) error {
	for i := range t.Extents { // in the order of locks
		e := &t.Extents[i]
		if e.Published == nil {
			continue
		}
		// The floor: were the group offset set back below it, a worker would refuse the partition instead of looking for what is gone.
		tag, err := tx.Exec(ctx, `UPDATE partition_offsets SET published_at_least = greatest(published_at_least, $3), updated_at = now()
			WHERE source_id = $1 AND source_partition = $2 AND next_offset >= $3`, e.SourceID, e.Partition, *e.Published)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return fmt.Errorf("source %d, partition %d: the group offset %d is above the stored offset: Postgres has gone back in time; exactly offsets show", e.SourceID, e.Partition, *e.Published)
		}
		entry, err := ledger.AppendDeed(ctx, tx, ledger.Deed{
			SourceID: e.SourceID, Partition: e.Partition, Kind: ledger.Prune, Digest: e.digest(t.Name), Who: p.o.By, Build: p.o.Build,
			Why: fmt.Sprintf("%s: %s dropped, %d rows of offsets [%d,%d), published up to %d", p.o.Why, t.Name, e.Records, e.From, e.To, *e.Published),
		})
		if err != nil {
			return err
		}
		e.LedgerSeq = &entry.Seq
	}
	facts, err := json.Marshal(t.Extents)
	if err != nil {
		return err
	}
	if t.Extents == nil {
		facts = []byte("[]")
	}
	if _, err = tx.Exec(ctx, `SELECT exactly_prune_drop($1, $2, $3, $4, $5::text::jsonb)`, t.Table, t.suffix, p.o.By, p.o.Why, string(facts)); err != nil {
		return err
	}
	t.State = Dropped
	return nil
}

// digest is what the ledger's entry has of a row of pruned: see its migration.
func (e *Extent) digest(name string) []byte {
	d := sha256.Sum256(fmt.Appendf(nil, "%s %d %d %d %d %d %d", name, e.SourceID, e.Partition, e.From, e.To, e.Records, *e.Published))
	return d[:]
}

func locked(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && (pe.Code == "55P03" || pe.Code == "40P01") // lock_not_available, deadlock_detected
}
