// Package heal owns the way back of a store that has gone back in time or lost what it had: Postgres rebuilt from the output topics, the output
// topics from the outbox.
//
// It promises that what it writes are the very bytes that the other store has, each once, whatever kills it and however often it is run; that
// nobody works on a partition meanwhile; and that the ledger says what it did, and for whom. It never enriches a record again, and what it can't
// know it refuses: it never guesses.
package heal

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/heads"
	"github.com/exactly-pipeline/exactly/internal/offsets"
	"github.com/exactly-pipeline/exactly/internal/wait"
	"github.com/exactly-pipeline/exactly/ledger"
)

// Options say what to heal and how.
type Options struct {
	Partitions []int32 // source partitions; nil: all that need it
	Reason     string  // for the ledger
	DryRun     bool    // only say what would be done
	By         string  // whom the ledger and the holds name; empty: the system's user
	Build      string  // of the program, for the ledger
	OutOfOrder bool    // Kafka: publish also what comes behind later events of its source partition
	Wait       bool    // for another heal to end, instead of refusing to run beside it
}

// Done is what was done to one source partition, or would be.
type Done struct {
	Topic       string `json:"topic,omitempty"` // of pointers to dead letters; empty: the input
	Partition   int32  `json:"partition"`
	Changed     bool   `json:"changed"`
	DryRun      bool   `json:"dry_run,omitempty"`
	Before      int64  `json:"before"` // stored offset
	After       int64  `json:"after"`
	Rows        int64  `json:"rows"`         // rebuilt
	DeadLetters int64  `json:"dead_letters"` // rebuilt
	Published   int64  `json:"published"`    // events published again, dead letters among them
	Says        string `json:"says"`
}

func (d Done) String() string {
	if d.Topic != "" {
		return fmt.Sprintf("%s/%d: %s", d.Topic, d.Partition, d.Says)
	}
	return fmt.Sprintf("partition %d: %s", d.Partition, d.Says)
}

// BusyError says that another heal of the same source is under way.
type BusyError struct{ Topic, Group string }

func (e *BusyError) Error() string {
	return fmt.Sprintf("another heal of topic %s, group %s is under way: let it end", e.Topic, e.Group)
}

// healer is one heal under way.
type healer struct {
	cfg  config.Config
	desk *offsets.Desk
	o    Options
	log  *zap.Logger
	lock *pgxpool.Conn // holds the advisory lock; nil in a dry run

	apart bool // the replays of dead letters are healed by themselves, after this source

	maxRecords int // in memory, and in one transaction
	maxBytes   int // in memory
}

// lockPatience is how long the session of a command that has just ended may take to be gone from Postgres, and with it its lock.
const lockPatience = 2 * time.Second

// leastBytes is more than the largest message.
const leastBytes = 32 << 20

// start opens the desk and makes sure that this heal is the only one of its source.
func start(ctx context.Context, c *config.Config, o Options, log *zap.Logger) (*healer, error) {
	desk, err := offsets.Open(ctx, c, log)
	if err != nil {
		return nil, err
	}
	desk.Build = o.Build
	if o.By != "" {
		desk.By = o.By
	}
	h := &healer{cfg: *c, desk: desk, o: o, log: log, maxRecords: c.Batch.DrainRecords, maxBytes: max(c.Batch.MaxInFlight, leastBytes)}
	if err := h.alone(ctx); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// alone takes the lock that every heal of the source holds for as long as it lives: it is a session's, so Postgres gives it back when the
// process, or its connection, is gone. What is held for a heal although nobody has this lock is of a heal that was killed. Nothing leans on
// the lock for exactness: each transaction compares the row's epoch, which each hold raises.
func (h *healer) alone(ctx context.Context) error {
	if h.o.DryRun {
		return nil
	}
	var err error
	if h.lock, err = h.desk.DB().Acquire(ctx); err != nil {
		return fmt.Errorf("connect to postgres: %w", err)
	}
	for until := time.Now().Add(lockPatience); ; {
		var got bool
		err := h.lock.QueryRow(ctx, `SELECT pg_try_advisory_lock(hashtext('exactly heal'), $1)`, int32(h.desk.Source().ID)).Scan(&got)
		if err != nil {
			return fmt.Errorf("ask postgres for the heals' lock: %w", err)
		}
		if got {
			return nil
		}
		if !h.o.Wait && time.Now().After(until) {
			return &BusyError{h.cfg.Topics.Input, h.cfg.Group}
		}
		if err := wait.For(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func (h *healer) close() {
	if h.lock != nil {
		// Not back into the pool, which would keep the session and its lock.
		_ = h.lock.Hijack().Close(context.Background())
	}
	h.desk.Close()
}

// publishHeads publishes the ledger heads of the partitions, of what was done to them; with replace also what heads in Kafka the rebuilt chains have no
// more. That it could not is said, and is no error: it was done.
func (h *healer) publishHeads(ctx context.Context, ids []int32, done []Done, replace bool) {
	if len(ids) == 0 {
		return
	}
	src := h.desk.Source()
	stream := src.Stream()
	var err error
	if replace {
		err = heads.Replace(ctx, &h.cfg, h.desk.DB(), stream, ids)
	}
	if err == nil {
		var hs []ledger.Head
		if hs, err = heads.Newest(ctx, h.desk.DB(), stream, ids); err == nil {
			err = heads.Post(ctx, &h.cfg, hs)
		}
	}
	if err != nil {
		for i := range done {
			done[i].Says += fmt.Sprintf("; its ledger head is not in Kafka yet (%v)", err)
			if replace { // else the next publish brings it
				done[i].Says += fmt.Sprintf(": run it again with --partition %d", done[i].Partition)
			}
		}
	}
}

func refuse(partition int32, format string, a ...any) error {
	return &offsets.RefusedError{Partition: partition, Why: fmt.Sprintf(format, a...)}
}

// Postgres rebuilds what Postgres lacks of what was published: rows, outbox, dead letters and ledger, from the output topics; and, unless partitions of
// the input are named, what replays of dead letters made.
//
// What could be done was done, also if the error names partitions that were refused.
func Postgres(ctx context.Context, c *config.Config, rb engine.Rebuilder, o Options, log *zap.Logger) ([]Done, error) {
	done, err := healPostgres(ctx, c, rb, o, log)
	if err != nil || o.Partitions != nil {
		return done, err
	}
	replays, err := postgresReplays(ctx, c, rb, o, log)
	return append(done, replays...), err
}

// healPostgres does it for one source.
func healPostgres(ctx context.Context, c *config.Config, rb engine.Rebuilder, o Options, log *zap.Logger) ([]Done, error) {
	h, err := start(ctx, c, o, log)
	if err != nil {
		return nil, fmt.Errorf("heal postgres: %w", err)
	}
	defer h.close()
	p := &postgres{healer: h, rb: rb, parts: map[int32]*part{}, scanned: map[string]map[int32]int64{}}
	done, err := p.run(ctx)
	if err != nil {
		err = fmt.Errorf("heal postgres: %w", err)
	}
	return done, err
}
