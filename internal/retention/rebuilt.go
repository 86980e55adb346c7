package retention

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/heads"
	"github.com/exactly-pipeline/exactly/txn"
)

// Erasures are the records of one source whose data was erased, by all that the table erasures and the heads topic know: for a heal, which rebuilds
// from events that Kafka still has.
type Erasures struct {
	Notes []string // what is left out, and why

	source  int16
	id      string // of the erasures that are made again
	of      offsets
	touched map[string]bool
}

// ReadErasures reads what was erased. The table may have gone back in time with the database, so Kafka is asked, too.
func ReadErasures(ctx context.Context, c *config.Config, db heads.Querier, src *txn.Source) (*Erasures, error) {
	out := &Erasures{source: src.ID, id: uuid.NewString(), touched: map[string]bool{}}
	var err error
	if out.of, err = inTable(ctx, db, src.ID); err != nil {
		return nil, fmt.Errorf("read what was erased: %w", err)
	}
	known, notes, err := inKafka(ctx, c, src, nil)
	if err != nil {
		return nil, fmt.Errorf("read what was erased: %w", err)
	}
	for i := range known {
		out.of.add(known[i].Entry.Partition, known[i].Offsets)
	}
	out.Notes = notes
	return out, nil
}

// Again blanks what was erased of the records [from, to), in the transaction that has rebuilt them, and appends the entry that says so. It returns how
// many records that were. That Kafka is told is EraseAgain's to see to.
func (k *Erasures) Again(ctx context.Context, tx pgx.Tx, partition int32, from, to int64, o Erase) (int64, error) {
	var list []int64
	for at := range k.of[partition] {
		if at >= from && at < to {
			list = append(list, at)
		}
	}
	slices.Sort(list)
	for part := range slices.Chunk(list, entryOffsets) {
		e := Erased{SourceID: k.source, Partition: partition, Records: int64(len(part)), offsets: part}
		if err := e.within(ctx, tx, k.id, &o); err != nil {
			return 0, fmt.Errorf("erase again: %w", explained(err))
		}
		for _, t := range e.touched {
			k.touched[t] = true
		}
	}
	return int64(len(list)), nil
}

// Vacuum removes what was written and blanked from the tables' files.
func (k *Erasures) Vacuum(ctx context.Context, db *pgxpool.Pool) error {
	var failed []error
	for _, t := range slices.Sorted(maps.Keys(k.touched)) {
		if _, err := db.Exec(ctx, "VACUUM "+t); err != nil {
			failed = append(failed, fmt.Errorf("VACUUM %s: %w: run it, or what was blanked stays in the table's file", t, err))
		}
	}
	k.touched = map[string]bool{}
	return errors.Join(failed...)
}

// RepostErasures tells Kafka again of every erasure that the table knows and the heads topic does not: it was deleted, or has lost some.
func RepostErasures(ctx context.Context, c *config.Config, db heads.Querier, src *txn.Source) error {
	known, _, err := inKafka(ctx, c, src, nil)
	if err == nil {
		err = tellErasures(ctx, c, db, src, known)
	}
	if err != nil {
		return fmt.Errorf("tell kafka of the erasures again: %w", err)
	}
	return nil
}
