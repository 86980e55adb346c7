// Package offsets owns people's deeds on offsets: looking at them, restoring a group offset that was reset or lost, accepting the loss
// of records that expired unread, holding a partition and letting it go.
//
// It promises that a deed is one Postgres transaction with its ledger entry, that it can be killed anywhere and run again, and that
// workers may run meanwhile. It never reads the input, nor publishes a record.
package offsets

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/wait"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/migrations"
	"github.com/exactly-pipeline/exactly/txn"
)

// notAWorker is the worker id under which Kafka is asked: none that a worker can have (config.Validate), or a dead worker of our name
// would be taken for ourselves and not be fenced.
const notAWorker = "offsets:command"

// Desk is where deeds are done: one source, its database and its brokers.
type Desk struct {
	cfg    config.Config
	adm    *admin.Admin
	db     *pgxpool.Pool
	source txn.Source
	log    *zap.Logger

	By    string // whom ledger entries and holds name; ledger.Whoami unless set
	Build string // of the program, for ledger entries
}

// RefusedError says that nothing was done to a partition, and why. Asking again does not help; what does is in the text.
type RefusedError struct {
	Partition int32
	Why       string
}

func (e *RefusedError) Error() string { return fmt.Sprintf("partition %d: %s", e.Partition, e.Why) }

func refuse(partition int32, format string, a ...any) error {
	return &RefusedError{partition, fmt.Sprintf(format, a...)}
}

// Done is what was done to one partition, or would be.
type Done struct {
	Partition int32  `json:"partition"`
	Changed   bool   `json:"changed"`
	DryRun    bool   `json:"dry_run,omitempty"`
	Before    *int64 `json:"before"` // group offset (restore), stored offset (accept-loss); null: none
	After     *int64 `json:"after"`
	Says      string `json:"says"`
}

func (d Done) String() string { return fmt.Sprintf("partition %d: %s", d.Partition, d.Says) }

// Open connects to the database and finds the source there; Kafka is connected to when it is first asked. txn.ErrNoSource if setup
// has not been run.
func Open(ctx context.Context, c *config.Config, log *zap.Logger) (*Desk, error) {
	d := &Desk{cfg: *c, log: log, By: ledger.Whoami()}
	d.cfg.Worker.ID = notAWorker
	if err := migrations.Check(ctx, c.Postgres.DSN); err != nil {
		return nil, err
	}
	pc, err := pgxpool.ParseConfig(c.Postgres.DSN)
	if err != nil {
		return nil, fmt.Errorf("read postgres.dsn: %w", err)
	}
	ms := strconv.FormatInt(c.Kafka.SessionTimeout.Milliseconds(), 10)
	pc.ConnConfig.RuntimeParams["application_name"] = "exactly/" + c.Group + "/offsets"
	pc.ConnConfig.RuntimeParams["timezone"] = "UTC"
	// A command that is stopped (Ctrl-Z) must not keep a row's lock; one that waits for a frozen worker's lock must end.
	pc.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = ms
	pc.ConnConfig.RuntimeParams["lock_timeout"] = ms
	pc.ConnConfig.ConnectTimeout = 5 * time.Second
	pc.MaxConns = 2
	if d.db, err = pgxpool.NewWithConfig(ctx, pc); err != nil {
		return nil, fmt.Errorf("connect to postgres: %w", err)
	}
	if d.source, err = txn.FindSource(ctx, d.db, c.Topics.Input, c.Group); err == nil {
		d.adm, err = admin.New(&d.cfg, log)
	}
	if err != nil {
		d.db.Close()
		return nil, err
	}
	return d, nil
}

// Close ends the connections.
func (d *Desk) Close() {
	d.adm.Close()
	d.db.Close()
}

// meet refuses to go on with another cluster, or with recreated topics: offsets would mean something else there.
func (d *Desk) meet(ctx context.Context) error {
	cluster, err := d.adm.Cluster(ctx)
	if err != nil {
		return err
	}
	ids, err := d.adm.TopicIDs(ctx)
	if err != nil {
		return err
	}
	return d.source.Matches(cluster, ids)
}

// stable reads the group offsets of the partitions once no open transaction is about to change them. A live worker's transaction ends
// by itself, one of a worker that is gone is aborted by fencing (not in a dry run, which changes nothing).
func (d *Desk) stable(ctx context.Context, rows []*row, fence bool) (map[int32]admin.GroupOffset, error) {
	k := d.cfg.Kafka
	// At worst a worker has just died: it stays a member for the session timeout, its transaction open for the transaction timeout.
	ctx, cancel := context.WithTimeout(ctx, k.SessionTimeout+k.TransactionTimeout+10*time.Second)
	defer cancel()
	ids := partitions(rows)
	next := time.Now().Add(k.StableTimeout)
	for {
		group, err := d.adm.GroupOffsets(ctx, ids)
		if err != nil {
			return nil, err
		}
		pending := false
		for _, g := range group {
			pending = pending || g.Pending
		}
		if !pending {
			return group, nil
		}
		if fence && time.Now().After(next) {
			if err := d.fence(ctx, rows); err != nil {
				return nil, err
			}
			next = time.Now().Add(k.StableTimeout)
		}
		if wait.For(ctx, 20*time.Millisecond) != nil {
			return nil, errors.Join(errors.New("the group offset stays pending in an open transaction: is a worker frozen?"), ctx.Err())
		}
	}
}

// fence ends what workers that are no members any more, and an earlier command of our kind, have left open. Otherwise the output
// topics could not be read to their end before the transaction timeout.
func (d *Desk) fence(ctx context.Context, rows []*row) error {
	ids := []string{admin.OutsideID}
	seen := map[string]bool{}
	for _, r := range rows {
		for _, w := range r.workers {
			if !seen[w] {
				seen[w] = true
				ids = append(ids, w)
			}
		}
	}
	fenced, err := d.adm.FenceAbsent(ctx, ids)
	if err == nil && len(fenced) > 1 {
		d.log.Info("fenced the transactional ids of workers that are gone", zap.Strings("workers", fenced[1:]))
	}
	return err
}
