package retention

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/heads"
	"github.com/exactly-pipeline/exactly/internal/progress"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/txn"
)

// Archive says what of the ledger is to be moved to files.
type Archive struct {
	Dir    string    // where the files go
	Before time.Time // entries of before, by Postgres' clock: the beginning of this month or an earlier time
	Reason string
	By     string
	Build  string
	DryRun bool
	Log    *zap.Logger
}

// ArchiveLedger moves each chain's beginning to a file: entries of before a time whose outbox messages are gone, for heals need the others. An entry of kind
// archive vouches for the file and for where the chain goes on; it is in the ledger, and the file is on the disk, before anything is deleted. A file that a
// killed attempt left is written anew.
func ArchiveLedger(ctx context.Context, c *config.Config, o Archive) ([]ledger.Archival, error) {
	what := func(err error) error { return fmt.Errorf("archive the ledger: %w", err) }
	conn, err := connectAlone(ctx, c)
	if err != nil {
		return nil, what(err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // ends the lock, too
	src, err := txn.FindSource(ctx, conn, c.Topics.Input, c.Group)
	if err != nil {
		return nil, what(err)
	}
	before, err := ledger.Archived(ctx, conn, src.ID)
	if err != nil {
		return nil, what(err)
	}
	rows, _ := conn.Query(ctx, `SELECT source_partition FROM partition_offsets WHERE source_id = $1 ORDER BY 1`, src.ID)
	partitions, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil {
		return nil, what(err)
	}
	done := []ledger.Archival{}
	var changed []int32
	for i, p := range partitions {
		progress.Of(ctx).At("archiving partitions", int64(i), int64(len(partitions)))
		a := &archiver{o: o, conn: conn, stream: src.Stream(), a: ledger.Archival{SourceID: src.ID, Partition: p}}
		if a.before, a.again = before[p]; a.again {
			a.a.BegunAt = a.before.BegunAt
		}
		some, err := a.one(ctx)
		if err != nil {
			return done, what(fmt.Errorf("partition %d: %w", p, err))
		}
		if some {
			done, changed = append(done, a.a), append(changed, p)
		}
	}
	if o.DryRun || len(changed) == 0 {
		return done, nil
	}
	hs, err := heads.Newest(ctx, conn, src.Stream(), changed)
	if err == nil {
		err = heads.Post(ctx, c, hs)
	}
	if err != nil {
		o.Log.Warn("the ledger was archived, and the heads of that are not in Kafka yet", zap.Error(err))
	}
	return done, nil
}

// archiver is at one partition.
type archiver struct {
	o      Archive
	conn   *pgx.Conn
	stream ledger.Stream
	before ledger.Archival // the one before, if again
	again  bool
	a      ledger.Archival
}

// upTo finds the last entry about records that may go: every one up to it is of before the time, its messages are no longer in the outbox and are published.
func (a *archiver) upTo(ctx context.Context) (seq int64, err error) {
	err = a.conn.QueryRow(ctx, `WITH kept AS (SELECT min(source_offset) AS at FROM outbox WHERE source_id = $1 AND source_partition = $2),
		first AS (SELECT min(seq) AS seq FROM offset_ledger l, partition_offsets p, kept WHERE l.source_id = $1 AND l.source_partition = $2
			AND p.source_id = $1 AND p.source_partition = $2 AND (l.captured_at >= $3 OR l.to_offset > coalesce(p.published_at_least, 0) OR l.to_offset > kept.at))
		SELECT coalesce((SELECT max(l.seq) FROM offset_ledger l, first WHERE l.source_id = $1 AND l.source_partition = $2 AND (first.seq IS NULL OR l.seq < first.seq)
			AND l.to_offset > l.from_offset), 0)`,
		a.a.SourceID, a.a.Partition, a.o.Before).Scan(&seq)
	return seq, err
}

// one archives what may go of the partition. False: nothing.
func (a *archiver) one(ctx context.Context) (bool, error) {
	last, err := a.upTo(ctx)
	if err != nil || last == 0 {
		return false, err
	}
	a.a.ToSeq = last
	out := io.Writer(io.Discard)
	var file *os.File
	if !a.o.DryRun {
		if file, err = os.CreateTemp(a.o.Dir, ".ledger-*"); err != nil {
			return false, err
		}
		defer os.Remove(file.Name()) //nolint:errcheck // gone, if all went well
		out = file
	}
	err = a.write(ctx, out)
	if file != nil {
		if err == nil {
			err = file.Sync()
		}
		if cerr := file.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			err = os.Rename(file.Name(), filepath.Join(a.o.Dir, a.a.File))
		}
		if err == nil {
			err = syncDir(a.o.Dir)
		}
	}
	if err != nil || a.o.DryRun {
		return err == nil, err
	}
	return true, a.move(ctx)
}

var notPlain = regexp.MustCompile(`[^A-Za-z0-9._-]+`)

// write writes the entries, a line each, and verifies the chain they make.
func (a *archiver) write(ctx context.Context, out io.Writer) error {
	var chain ledger.Chain
	if a.again {
		chain.GoOn(a.before.ToSeq, a.before.LastHash)
	}
	sum := sha256.New()
	w := bufio.NewWriter(io.MultiWriter(out, sum))
	enc := json.NewEncoder(w)
	rows, err := a.conn.Query(ctx, `SELECT `+ledger.Columns+`, captured_at FROM offset_ledger WHERE source_id = $1 AND source_partition = $2 AND seq <= $3 ORDER BY seq`,
		a.a.SourceID, a.a.Partition, a.a.ToSeq)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var e ledger.Entry
		var at time.Time
		hash, err := e.Scan(withTime{rows, &at})
		if err != nil {
			return err
		}
		if wrong := chain.Add(&e, hash); len(wrong) > 0 {
			return fmt.Errorf("the chain does not hold, nothing was archived: %s: exactly ledger verify", wrong[0])
		}
		if a.a.FromSeq == 0 {
			a.a.FromSeq = e.Seq
		}
		if e.Seq == 1 && e.Kind == ledger.Start {
			a.a.BegunAt = e.To
		}
		a.a.ToOffset, a.a.LastHash = e.To, hash
		if err := enc.Encode(e.Line(hash, at)); err != nil {
			return err
		}
	}
	if err := errors.Join(rows.Err(), w.Flush()); err != nil {
		return err
	}
	a.a.FileHash = sum.Sum(nil)
	a.a.File = fmt.Sprintf("ledger-%s-%s-source%d-%d-%012d-%012d.jsonl", notPlain.ReplaceAllString(a.stream.Group, "_"), notPlain.ReplaceAllString(a.stream.Topic, "_"),
		a.a.SourceID, a.a.Partition, a.a.FromSeq, a.a.ToSeq)
	return nil
}

// withTime scans one column more.
type withTime struct {
	rows pgx.Rows
	at   *time.Time
}

func (w withTime) Scan(dest ...any) error { return w.rows.Scan(append(dest, w.at)...) }

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

func hashOf(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // read only
	sum := sha256.New()
	_, err = io.Copy(sum, file)
	return sum.Sum(nil), err
}

// move notes what is in the file and deletes it from the ledger, in one transaction. The file is read once more before.
func (a *archiver) move(ctx context.Context) error {
	sum, err := hashOf(filepath.Join(a.o.Dir, a.a.File))
	if err != nil {
		return err
	}
	if !bytes.Equal(sum, a.a.FileHash) {
		return fmt.Errorf("%s does not hold what was written into it", a.a.File)
	}
	return pgx.BeginFunc(ctx, a.conn, func(tx pgx.Tx) error {
		e, err := ledger.AppendDeed(ctx, tx, ledger.Deed{
			SourceID: a.a.SourceID, Partition: a.a.Partition, Kind: ledger.Archive, Digest: a.a.Digest(), Who: a.o.By, Build: a.o.Build,
			Why: fmt.Sprintf("%s: entries [%d,%d] moved to %s", a.o.Reason, a.a.FromSeq, a.a.ToSeq, a.a.File),
		})
		if err != nil {
			return err
		}
		a.a.LedgerSeq = e.Seq
		_, err = tx.Exec(ctx, `INSERT INTO ledger_archives (source_id, source_partition, from_seq, to_seq, begun_at, to_offset, last_hash, file, file_hash, ledger_seq, who, why)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`, a.a.SourceID, a.a.Partition, a.a.FromSeq, a.a.ToSeq, a.a.BegunAt, a.a.ToOffset,
			[]byte(a.a.LastHash), a.a.File, []byte(a.a.FileHash), e.Seq, e.Who, a.o.Reason)
		if err != nil {
			return err
		}
		tag, err := tx.Exec(ctx, `DELETE FROM offset_ledger WHERE source_id = $1 AND source_partition = $2 AND seq <= $3`, a.a.SourceID, a.a.Partition, a.a.ToSeq)
		if err == nil && tag.RowsAffected() != a.a.ToSeq-a.a.FromSeq+1 {
			err = fmt.Errorf("the ledger has %d of the entries [%d,%d]", tag.RowsAffected(), a.a.FromSeq, a.a.ToSeq)
		}
		return err
	})
}
