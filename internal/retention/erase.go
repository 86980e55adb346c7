package retention

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/progress"
	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/internal/wait"
	"github.com/exactly-pipeline/exactly/ledger"
)

// Erase says whose data is to be blanked.
type Erase struct {
	User   int64
	Again  bool   // instead: what was erased before, by the table erasures and by Kafka, wherever it is there again
	Reason string // for the ledger; no name, please: it stays
	By     string
	Build  string
	DryRun bool
	Wait   time.Duration // how long to wait for what Kafka is still owed of it
	Log    *zap.Logger

	PublicKeys []ed25519.PublicKey // with Again: what Kafka knows must be signed by one of them; none: by the settings' signing key, if there is one
}

// Erased is what was blanked of one source partition, or would be.
type Erased struct {
	SourceID    int16 `json:"source_id"`
	Partition   int32 `json:"source_partition"`
	Records     int64 `json:"records"` // source records
	Rows        int64 `json:"rows"`
	Messages    int64 `json:"messages"`
	DeadLetters int64 `json:"dead_letters"`
	LedgerSeq   int64 `json:"ledger_seq"` // 0 in a dry run

	offsets []int64
	touched []string // time partitions
	entry   ledger.Entry
}

func (e *Erased) String() string {
	return fmt.Sprintf("source %d, partition %d: %d records: %d rows, %d outbox messages, %d dead letters", e.SourceID, e.Partition, e.Records, e.Rows, e.Messages, e.DeadLetters)
}

// ErasureReport is what an erasure did, or would do.
type ErasureReport struct {
	Erasure    string   `json:"erasure"` // as the table erasures has it
	DryRun     bool     `json:"dry_run,omitempty"`
	Partitions []Erased `json:"partitions"`
	Notes      []string `json:"notes,omitempty"`
}

// entryOffsets bounds how many source records one ledger entry, and one transaction, is about.
const entryOffsets = 50_000

// EraseUser blanks what was captured of a user by now, once it is published. Killed half way, what is committed is whole, and another run does
// the rest. It reads every time partition: there is no index on users.
func EraseUser(ctx context.Context, c *config.Config, o Erase) (*ErasureReport, error) {
	what := func(err error) error { return fmt.Errorf("erase: %w", explained(err)) }
	conn, err := connectAlone(ctx, c)
	if err != nil {
		return nil, what(err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // ends the lock, too
	reg, err := provision.Registry(c)
	if err != nil {
		return nil, err
	}
	defer reg.Close()
	r := &ErasureReport{Erasure: uuid.NewString(), DryRun: o.DryRun, Partitions: []Erased{}}
	f := newFinder(conn, reg, o.User)
	f.clicks.Format(c.Value.Format)
	if err := f.find(ctx); err != nil {
		return nil, what(err)
	}
	r.Notes = f.notes()
	found := f.entries()
	if o.DryRun {
		r.Partitions = found
		return r, nil
	}
	if err := awaitPublished(ctx, c, conn, found, &o); err != nil {
		return r, what(err)
	}
	return r, r.blank(ctx, c, conn, found, &o, what)
}

// blank commits what was found, entry by entry, then tells Kafka, then has the tables' files cleaned.
func (r *ErasureReport) blank(ctx context.Context, c *config.Config, conn *pgx.Conn, found []Erased, o *Erase, what func(error) error) error {
	touched := map[string]bool{}
	for i := range found {
		e := &found[i]
		progress.Of(ctx).At("blanking", int64(i), int64(len(found)))
		if err := e.commit(ctx, conn, r.Erasure, o); err != nil {
			return what(fmt.Errorf("%d of %d ledger entries are done, run it again for the rest: %w", i, len(found), err))
		}
		r.Partitions = append(r.Partitions, *e)
		for _, t := range e.touched {
			touched[t] = true
		}
	}
	if err := tell(ctx, c, conn, r.Partitions); err != nil {
		r.Notes = append(r.Notes, fmt.Sprintf("Kafka does not know of it yet (%v): run exactly erase --again, or a restored backup would not be known to need it", err))
	}
	for t := range touched { // the old versions of the rows are still in the table until then
		if _, err := conn.Exec(ctx, "VACUUM "+t); err != nil {
			r.Notes = append(r.Notes, fmt.Sprintf("VACUUM %s: %v: run it, or what was blanked stays in the table's file", t, err))
		}
	}
	return nil
}

// connectAlone connects, and makes sure that no prune or erasure is under way beside it, as long as it stays connected.
func connectAlone(ctx context.Context, c *config.Config) (*pgx.Conn, error) {
	conn, err := connect(ctx, c.Postgres.DSN, c.Group)
	if err != nil {
		return nil, err
	}
	if err := alone(ctx, conn); err != nil {
		return nil, errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
	}
	return conn, nil
}

// lockPatience is how long the session of a command that has just ended may take to be gone from Postgres, and with it its lock.
const lockPatience = 2 * time.Second

// alone ends with ErrRunning if a prune or an erasure is under way: one drops tables that the other writes to.
func alone(ctx context.Context, conn *pgx.Conn) error {
	for until := time.Now().Add(lockPatience); ; {
		var ok bool
		if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock(hashtext('exactly prune'))`).Scan(&ok); err != nil || ok {
			return err
		}
		if time.Now().After(until) {
			return ErrRunning
		}
		if err := wait.For(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// awaitPublished waits until Kafka has everything that is to be blanked: bytes that it is owed exist nowhere else.
func awaitPublished(ctx context.Context, c *config.Config, conn *pgx.Conn, found []Erased, o *Erase) error {
	until := time.Now().Add(o.Wait)
	for {
		sources, err := readSources(ctx, conn)
		if err != nil {
			return err
		}
		k := newKafka(c, o.Log)
		why := ""
		for i := range found {
			e := &found[i]
			s := sources[e.SourceID]
			if s.retired || why != "" {
				continue
			}
			var at int64
			if at, why, err = k.published(ctx, s, e.Partition); err != nil {
				return err
			}
			if last := e.offsets[len(e.offsets)-1]; why == "" && last >= at {
				why = fmt.Sprintf("source %d (%s, group %s), partition %d: Kafka is still owed offset %d, the group offset is %d", s.id, s.topic, s.group, e.Partition, last, at)
			}
		}
		if why == "" {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("%s; nothing was erased: let a worker publish it (exactly offsets show), then run this again", why)
		}
		if err := wait.For(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// commit blanks one entry's records and appends the entry, in one transaction. The offsets row is locked at its end only: captures go on.
func (e *Erased) commit(ctx context.Context, conn *pgx.Conn, erasure string, o *Erase) error {
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '10s'; SET LOCAL idle_in_transaction_session_timeout = '60s'`); err != nil {
			return err
		}
		return e.within(ctx, tx, erasure, o)
	})
}

// within does it in a transaction that is open.
func (e *Erased) within(ctx context.Context, tx pgx.Tx, erasure string, o *Erase) error {
	b, err := Blank(ctx, tx, e.SourceID, e.Partition, e.offsets)
	if err != nil {
		return err
	}
	e.Rows, e.Messages, e.DeadLetters, e.touched = b.Rows, b.Messages, b.DeadLetters, b.Tables
	entry, err := ledger.AppendDeed(ctx, tx, ledger.Deed{
		SourceID: e.SourceID, Partition: e.Partition, Kind: ledger.Erase, Records: e.Records, Rows: e.Rows, Events: e.Messages, Dead: e.DeadLetters,
		Digest: ErasureDigest(e.SourceID, e.Partition, e.offsets), Who: o.By, Why: o.Reason, Build: o.Build,
	})
	if err != nil {
		return err
	}
	e.LedgerSeq, e.entry = entry.Seq, entry
	_, err = tx.Exec(ctx, `INSERT INTO erasures (source_id, source_partition, ledger_seq, erasure, offsets, rows, messages, dead_letters, who, why)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`, e.SourceID, e.Partition, e.LedgerSeq, erasure, e.offsets, e.Rows, e.Messages, e.DeadLetters, o.By, o.Reason)
	return err
}

// entries are what was found, in the order that locks are taken in, none larger than an entry may be.
func (f *finder) entries() []Erased {
	out := []Erased{}
	for at, found := range f.found {
		offsets := make([]int64, 0, len(found))
		for o := range found {
			offsets = append(offsets, o)
		}
		slices.Sort(offsets)
		for part := range slices.Chunk(offsets, entryOffsets) {
			e := Erased{SourceID: at.source, Partition: at.partition, Records: int64(len(part)), offsets: part}
			for _, o := range part {
				w := found[o]
				e.Rows, e.Messages, e.DeadLetters = e.Rows+w.rows, e.Messages+w.messages, e.DeadLetters+w.dead
			}
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b Erased) int {
		return cmp.Or(cmp.Compare(a.SourceID, b.SourceID), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.offsets[0], b.offsets[0]))
	})
	return out
}

// Check returns what is wrong with the request.
func (o *Erase) Check() error {
	switch {
	case o.Again && o.User != 0:
		return errors.New("--again and --user exclude each other")
	case !o.Again && o.User <= 0:
		return errors.New("--user must say whose: 1 or more")
	case strings.TrimSpace(o.Reason) == "":
		return errors.New("--reason: must say why; it is kept")
	case o.Wait < 0:
		return errors.New("--wait must be 0 or more")
	}
	return nil
}
