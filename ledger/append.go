package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrNoRow says that a deed is about a partition that no worker has started yet.
var ErrNoRow = errors.New("the partition has no stored offset: no worker has started it yet")

// Deed is what somebody did to one source partition: an entry to be.
type Deed struct {
	SourceID  int16
	Partition int32
	Kind      Kind
	From, To  int64 // the range it is about; both 0: none, and the entry takes the stored offset
	Records   int64
	Rows      int64
	Dead      int64
	Events    int64
	Digest    []byte
	Worker    string // id of the worker that did it; empty for a command
	Who       string // default Whoami
	Why       string
	Build     string // of the program
	Schemas   string
	Geo       string
}

// AppendDeed appends the deed to the chain of its partition and moves the head there, under the offsets row's lock, which it takes. It
// belongs into the transaction that does what the deed says; what else that transaction writes to the row it may write before or after.
// ErrNoRow.
func AppendDeed(ctx context.Context, tx pgx.Tx, d Deed) (Entry, error) {
	what := func(err error) error {
		return fmt.Errorf("append to the ledger of source %d partition %d: %w", d.SourceID, d.Partition, err)
	}
	e := Entry{
		SourceID: d.SourceID, Partition: d.Partition, Kind: d.Kind, From: d.From, To: d.To, Records: d.Records, Rows: d.Rows, DeadLetters: d.Dead,
		Events: d.Events, Digest: d.Digest, Worker: d.Worker, Why: d.Why, Who: d.Who, Build: d.Build, Schemas: d.Schemas, Geo: d.Geo,
		CommittedAt: time.Now().Truncate(time.Microsecond),
	}
	if e.Who == "" {
		e.Who = Whoami()
	}
	var next int64
	err := tx.QueryRow(ctx, `SELECT next_offset, epoch, ledger_seq, ledger_head FROM partition_offsets WHERE source_id = $1 AND source_partition = $2 FOR UPDATE`,
		d.SourceID, d.Partition).Scan(&next, &e.Epoch, &e.Seq, &e.PrevHash)
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNoRow
	}
	if err != nil {
		return e, what(err)
	}
	e.Seq++
	if e.From == 0 && e.To == 0 {
		e.From, e.To = next, next
	}
	var q pgx.Batch
	hash := e.Queue(&q)
	q.Queue(`UPDATE partition_offsets SET ledger_seq = $3, ledger_head = $4, updated_at = now() WHERE source_id = $1 AND source_partition = $2`,
		e.SourceID, e.Partition, e.Seq, hash)
	if err := tx.SendBatch(ctx, &q).Close(); err != nil {
		return e, what(err)
	}
	return e, nil
}

// Queue queues the entry's INSERT and returns its hash. The head is the caller's to move, in the same transaction.
func (e *Entry) Queue(q *pgx.Batch) (hash []byte) {
	hash = e.Hash()
	q.Queue(`INSERT INTO offset_ledger (source_id, source_partition, seq, kind, from_offset, to_offset, records, rows, dead_letters, events,
		digest, prev_hash, hash, epoch, worker, why, who, build, schemas, geo, committed_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)`,
		e.SourceID, e.Partition, e.Seq, string(e.Kind), e.From, e.To, e.Records, e.Rows, e.DeadLetters, e.Events,
		nonNil(e.Digest), nonNil(e.PrevHash), hash, e.Epoch, e.Worker, e.Why, e.Who, e.Build, e.Schemas, e.Geo, e.CommittedAt)
	return hash
}

func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// Columns are those of offset_ledger in the order of Entry's fields, and hash behind them: what Scan reads.
const Columns = `source_id, source_partition, seq, kind, from_offset, to_offset, records, rows, dead_letters, events, digest, prev_hash, epoch,
	worker, why, who, build, schemas, geo, committed_at, hash`

// Scan reads a row of Columns, and returns the hash that stands in it.
func (e *Entry) Scan(row interface{ Scan(dest ...any) error }) (hash []byte, err error) {
	err = row.Scan(&e.SourceID, &e.Partition, &e.Seq, &e.Kind, &e.From, &e.To, &e.Records, &e.Rows, &e.DeadLetters, &e.Events, &e.Digest, &e.PrevHash, &e.Epoch,
		&e.Worker, &e.Why, &e.Who, &e.Build, &e.Schemas, &e.Geo, &e.CommittedAt, &hash)
	return hash, err
}

// Whoami is whom a deed names unless told otherwise: the operating system's user, @, the host.
func Whoami() string {
	name := os.Getenv("USER")
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host"
	}
	return name + "@" + host
}
