// Package retention owns how what was captured goes again: whole time partitions for their age (Prune), one person's data on request (EraseUser).
//
// It promises that a day goes only when it is past its retention and everything in it is below the group offset, as read stable at that moment
// and noted as the floor that no group offset may go back below; that each drop is noted in the transaction that drops (table pruned); and that a capture
// waits for it no longer than a fraction of a second. That an
// erasure leaves coordinates and salted hashes, so that the ledger still verifies. It never deletes row by row, and never drops or blanks what Kafka is or may be owed.
package retention

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/heads"
	"github.com/exactly-pipeline/exactly/internal/progress"
	"github.com/exactly-pipeline/exactly/migrations"
)

// Options say how a prune is done.
type Options struct {
	DryRun bool          // only say what would be dropped
	Wait   time.Duration // how long locks are tried for, in all
	By     string        // who, for the record
	Why    string        // likewise: what asked for it
	Build  string        // of the program, likewise
	Log    *zap.Logger
}

// State is what became of a time partition.
type State string

// The states there are.
const (
	Dropped   State = "dropped"
	WouldDrop State = "would be dropped"
	Kept      State = "kept"
)

// Partition is one time partition that is past its retention, or a default one with rows in it.
type Partition struct {
	Table   string    `json:"table"`
	Name    string    `json:"time_partition"`
	State   State     `json:"state"`
	Why     string    `json:"why,omitempty"` // it was kept
	Records int64     `json:"records"`       // -1: not counted
	From    time.Time `json:"first_at"`      // capture times of what is in it, or of the day
	To      time.Time `json:"last_at"`
	Extents []Extent  `json:"partitions,omitempty"`

	suffix string
}

func (p *Partition) String() string {
	s := fmt.Sprintf("%s: %s", p.Name, p.State)
	if p.Records >= 0 {
		s += fmt.Sprintf(", %d rows", p.Records)
	}
	if p.Records > 0 {
		s += fmt.Sprintf(", captured from %s to %s", p.From.UTC().Format(time.RFC3339), p.To.UTC().Format(time.RFC3339))
	}
	if p.Why != "" {
		s += ": " + p.Why
	}
	return s
}

// Extent is what a time partition has of one source partition: source offsets in [From, To).
type Extent struct {
	SourceID  int16     `json:"source_id"`
	Partition int32     `json:"source_partition"`
	From      int64     `json:"from_offset"`
	To        int64     `json:"to_offset"`
	Records   int64     `json:"records"`
	FirstAt   time.Time `json:"first_at"`
	LastAt    time.Time `json:"last_at"`
	Published *int64    `json:"published"`  // the group offset; null: the source is retired, nothing is owed any more
	LedgerSeq *int64    `json:"ledger_seq"` // the ledger's entry; null in a dry run, and of a retired source
}

// Report is what a prune did, or would do.
type Report struct {
	DryRun     bool        `json:"dry_run,omitempty"`
	Partitions []Partition `json:"time_partitions"`
}

// busyError says that the locks of a drop could not be had.
type busyError struct{ name string }

func (e *busyError) Error() string {
	return fmt.Sprintf("%s may go, but is in use: something reads it, or its parent, all the time (an audit, a backup, a long query?): run it again later, or with a longer --wait", e.name)
}

// ErrRunning says that another prune, or an erasure, is at it in this database.
var ErrRunning = errors.New("another prune or erasure is running in this database")

// Prune drops what may go. What is past its retention and must stay is in the report, with the reason; so are rows in a default partition.
func Prune(ctx context.Context, c *config.Config, o Options) (*Report, error) {
	dsn, err := c.Postgres.CurrentDSN()
	if err != nil {
		return nil, err
	}
	conn, err := connect(ctx, dsn, c.Group)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // ends the lock, too
	if err := alone(ctx, conn); err != nil {
		return nil, fmt.Errorf("prune: %w", err)
	}
	p := &pruner{cfg: c, o: o, conn: conn, until: time.Now().Add(o.Wait), kafka: newKafka(c, o.Log)}
	r := &Report{DryRun: o.DryRun, Partitions: []Partition{}}
	if p.sources, err = readSources(ctx, conn); err != nil {
		return r, fmt.Errorf("prune: %w", err)
	}
	due, err := p.due(ctx)
	if err != nil {
		return r, fmt.Errorf("prune: %w", err)
	}
	var failed []error
	for i, t := range due {
		progress.Of(ctx).At("reading days past their retention", int64(i), int64(len(due)))
		err := p.one(ctx, &t)
		var busy *busyError
		if errors.As(err, &busy) {
			failed = append(failed, err)
			t.State, t.Why, err = Kept, "in use", nil
		}
		if err != nil {
			return r, fmt.Errorf("prune %s: %w", t.Name, explained(err))
		}
		if t.suffix != "default" || t.Records > 0 {
			r.Partitions = append(r.Partitions, t)
		}
	}
	p.tell(ctx, r)
	return r, errors.Join(failed...)
}

// tell publishes the heads of what was noted. If that fails, the next capture of each partition publishes a later one.
func (p *pruner) tell(ctx context.Context, r *Report) {
	changed := map[int16][]int32{}
	for i := range r.Partitions {
		for _, e := range r.Partitions[i].Extents {
			if e.LedgerSeq != nil && r.Partitions[i].State == Dropped && !slices.Contains(changed[e.SourceID], e.Partition) {
				changed[e.SourceID] = append(changed[e.SourceID], e.Partition)
			}
		}
	}
	for id, partitions := range changed {
		s := p.sources[id].stream()
		hs, err := heads.Newest(ctx, p.conn, s, partitions)
		if err == nil {
			err = heads.Post(ctx, p.cfg, hs)
		}
		if err != nil {
			p.o.Log.Warn("what was pruned is in the ledger, and its heads are not in Kafka yet", zap.Error(err))
		}
	}
}

func connect(ctx context.Context, dsn, group string) (*pgx.Conn, error) {
	if err := migrations.Check(ctx, dsn); err != nil {
		return nil, err
	}
	pc, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("read postgres.dsn: %w", err)
	}
	pc.RuntimeParams["application_name"] = "exactly/" + group + "/prune"
	pc.RuntimeParams["timezone"] = "UTC"
	pc.RuntimeParams["datestyle"] = "ISO"
	pc.ConnectTimeout = 5 * time.Second
	conn, err := pgx.ConnectConfig(ctx, pc)
	if err != nil {
		return nil, fmt.Errorf("connect to postgres: %w", err)
	}
	return conn, nil
}

// Grant is the SQL that lets workers prune. They may not at first: whoever may drop may destroy evidence, so somebody has to say so.
const Grant = "GRANT EXECUTE ON FUNCTION exactly_prune_extent(text, text), exactly_prune_drop(text, text, text, text, jsonb) TO exactly_worker;"

func explained(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == "42501" { // insufficient_privilege
		return fmt.Errorf("%w: run exactly prune as a member of exactly_setup; or, for workers to do it (retention.prune), let an administrator say: %s", err, Grant)
	}
	return err
}

// due lists the time partitions whose retention is over, oldest first, and the default ones last.
func (p *pruner) due(ctx context.Context) ([]Partition, error) {
	keep := map[string]time.Duration{"outbox": p.cfg.Retention.Outbox, "enriched_clicks": p.cfg.Retention.Rows, "dead_letters": p.cfg.Retention.DeadLetters}
	rows, err := p.conn.Query(ctx, `SELECT p.relname::text, substr(c.relname::text, length(p.relname::text) + 2), now() FROM pg_inherits i
		JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
		WHERE i.inhparent = ANY (ARRAY['outbox'::regclass, 'enriched_clicks'::regclass, 'dead_letters'::regclass]) ORDER BY c.relname`)
	if err != nil {
		return nil, err
	}
	var out []Partition
	var table, suffix string
	var now time.Time
	_, err = pgx.ForEachRow(rows, []any{&table, &suffix, &now}, func() error {
		t := Partition{Table: table, Name: table + "_" + suffix, Records: -1, suffix: suffix}
		if suffix == "default" {
			out = append(out, t)
			return nil
		}
		day, err := time.Parse("20060102", suffix)
		if err != nil { // somebody's own; it is not ours to drop
			return nil //nolint:nilerr // likewise
		}
		t.From, t.To = day, day.AddDate(0, 0, 1)
		if k := keep[table]; k > 0 && !now.Before(t.To.Add(k)) {
			out = append(out, t)
		}
		return nil
	})
	slices.SortStableFunc(out, func(a, b Partition) int { return strings.Compare(a.suffix, b.suffix) }) // digits before letters
	p.now, p.keep = now, keep
	return out, err
}
