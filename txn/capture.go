package txn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/guard"
	"github.com/exactly-pipeline/exactly/internal/pgcopy"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/outbox"
)

// captureTimeout bounds one capture. A worker that hangs here longer has lost its partitions anyway.
const captureTimeout = 60 * time.Second

func copySQL(t engine.Table) string {
	cols := make([]string, 0, len(t.Columns)+3)
	cols = append(cols, "source_id", "source_partition", "source_offset")
	for _, c := range t.Columns {
		cols = append(cols, pgx.Identifier{c}.Sanitize())
	}
	return fmt.Sprintf("COPY %s (%s) FROM STDIN (FORMAT binary)", pgx.Identifier{t.Name}.Sanitize(), strings.Join(cols, ", "))
}

// Row is an offsets row under our lock.
type Row struct {
	Next, Epoch, Seq int64
	Head             []byte
	Open             bool
	counted          countedRow
}

// Takes says whether a batch continues the row: guard 1. What does not is left out of the capture.
func (r *Row) Takes(b *engine.Batch) bool {
	return r.Open && (r.Next == b.From || guard.Off(guard.NextOffset)) && (r.Epoch == b.Epoch || guard.Off(guard.Epoch))
}

// splitRecords is from how many records on a capture is worth more than one transaction.
const splitRecords = 1000

// Capture implements engine.Store: the rows, the outbox, the dead letters, the ledger entries and the stored offsets of all batches whose
// offsets row still matches (guard 1: next_offset and epoch). Those that do not match are left out and get 0. A batch is in one
// transaction whole; many are shared out over as many transactions as there are sessions, which run beside each other.
//
// Any error leaves the outcome unknown to the caller, COMMIT's above all, and for each batch by itself: the sessions are closed, and
// the next claim takes the row's lock on another session and reads what happened (guard 9).
func (s *Store) Capture(ctx context.Context, batches []*engine.Batch) ([]int64, error) {
	if s.identity.Tell() { // before a session writes; of those dialled from here on each asks for itself
		s.hangUp()
		return nil, ErrStoreChanged
	}
	if err := s.countable(batches); err != nil {
		return nil, err
	}
	lanes := share(batches, len(s.capture))
	seqs := make([]int64, len(batches))
	errs := make([]error, len(lanes))
	var wg sync.WaitGroup
	for i, lane := range lanes[1:] {
		wg.Go(func() { errs[i+1] = s.captureOne(ctx, i+1, batches, lane, seqs) })
	}
	errs[0] = s.captureOne(ctx, 0, batches, lanes[0], seqs)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		s.hangUp()
		s.identity.Tell() // told by this error
		return nil, err
	}
	return seqs, nil
}

// share deals the batches' indexes out over at most n lanes of about the same number of bytes, in order within each.
func share(batches []*engine.Batch, n int) [][]int {
	var records int64
	for _, b := range batches {
		records += b.Records
	}
	if records < splitRecords {
		n = 1
	}
	lanes := make([][]int, min(n, len(batches)))
	bytes := make([]int, len(lanes))
	for i, b := range batches {
		least := 0
		for l := range lanes {
			if bytes[l] < bytes[least] {
				least = l
			}
		}
		lanes[least] = append(lanes[least], i)
		bytes[least] += b.Bytes
	}
	return slices.DeleteFunc(lanes, func(l []int) bool { return len(l) == 0 })
}

// captureOne is one transaction, on one session. It sets the seqs of its batches.
func (s *Store) captureOne(worker context.Context, session int, all []*engine.Batch, lane []int, seqs []int64) error {
	ctx, cancel := context.WithTimeout(worker, captureTimeout)
	defer cancel()
	batches := make([]*engine.Batch, len(lane))
	for i, at := range lane {
		batches[i] = all[at]
	}
	first, last := batches[0], batches[len(batches)-1]
	what := fmt.Sprintf("capture %s/%d [%d,%d) to /%d", s.source.Topic, first.Partition, first.From, first.To, last.Partition)
	c, err := s.session(ctx, session)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	rows, err := s.lock(ctx, c, batches)
	if err != nil {
		return fmt.Errorf("%s: lock offsets: %w", what, err)
	}
	var matching []*engine.Batch
	for i, b := range batches {
		if r, ok := rows[b.Partition]; ok && r.Takes(b) {
			matching = append(matching, b)
			seqs[lane[i]] = r.Seq + 1
		}
	}
	if len(matching) == 0 {
		if _, err := c.Exec(ctx, "ROLLBACK"); err != nil {
			return fmt.Errorf("%s: roll back: %w", what, err)
		}
		return nil
	}
	if err := s.copyAll(ctx, c, matching); err != nil {
		err = fmt.Errorf("%s: %w", what, err)
		if refusesRows(err) {
			err = s.whichRows(worker, c, matching, err)
		}
		return err
	}
	failpoint.Hit(failpoint.CaptureCopied)
	failpoint.Beside(failpoint.CaptureCommitSent)
	if err := s.advance(ctx, c, matching, rows); err != nil {
		return fmt.Errorf("%s: commit: %w", what, err)
	}
	return nil
}

// lock begins the transaction and takes the offsets rows' locks, in (source, partition) order.
func (s *Store) lock(ctx context.Context, c *pgx.Conn, batches []*engine.Batch) (map[int32]Row, error) {
	ids := make([]int32, len(batches))
	for i, b := range batches {
		ids[i] = b.Partition
	}
	var q pgx.Batch
	q.Queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	q.Queue(`SELECT source_partition, next_offset, epoch, ledger_seq, ledger_head, state = 'open', coalesce(counted_to, -1), coalesce(counted_window_s, 0) FROM partition_offsets
		WHERE source_id = $1 AND source_partition = ANY($2) ORDER BY source_id, source_partition FOR UPDATE`, s.source.ID, ids)
	res := c.SendBatch(ctx, &q)
	defer res.Close() //nolint:errcheck // closed below, where it counts
	if _, err := res.Exec(); err != nil {
		return nil, err
	}
	rs, err := res.Query()
	if err != nil {
		return nil, err
	}
	rows := make(map[int32]Row, len(batches))
	for rs.Next() {
		var id int32
		var r Row
		if err := rs.Scan(&id, &r.Next, &r.Epoch, &r.Seq, &r.Head, &r.Open, &r.counted.to, &r.counted.window); err != nil {
			return nil, err
		}
		rows[id] = r
	}
	if err := rs.Err(); err != nil {
		return nil, err
	}
	return rows, res.Close()
}

func (s *Store) copyAll(ctx context.Context, c *pgx.Conn, batches []*engine.Batch) error {
	for i, sql := range s.copySQL {
		if err := s.copyOne(ctx, c, sql, batches, func(b *engine.Batch) []byte { return b.Tables[i] }); err != nil {
			return fmt.Errorf("copy %s: %w", s.cfg.Tables[i].Name, err)
		}
	}
	if err := s.copyOne(ctx, c, outbox.CopySQL, batches, func(b *engine.Batch) []byte { return b.Outbox }); err != nil {
		return fmt.Errorf("copy outbox: %w", err)
	}
	if err := s.copyOne(ctx, c, engine.DeadLetterCopySQL, batches, func(b *engine.Batch) []byte { return b.DeadRows }); err != nil {
		return fmt.Errorf("copy dead_letters: %w", err)
	}
	return nil
}

func (s *Store) copyOne(ctx context.Context, c *pgx.Conn, sql string, batches []*engine.Batch, part func(*engine.Batch) []byte) error {
	parts := []io.Reader{bytes.NewReader(pgcopy.Header)}
	for _, b := range batches {
		if t := part(b); len(t) > 0 {
			parts = append(parts, bytes.NewReader(t))
		}
	}
	if len(parts) == 1 {
		return nil
	}
	parts = append(parts, bytes.NewReader(pgcopy.Trailer))
	_, err := c.PgConn().CopyFrom(ctx, io.MultiReader(parts...), sql)
	return err
}

// advance sets the stored offsets, appends the ledger entries and commits, in one round trip.
func (s *Store) advance(ctx context.Context, c *pgx.Conn, batches []*engine.Batch, rows map[int32]Row) error {
	now := time.Now().Truncate(time.Microsecond)
	stream := s.source.Stream()
	var q pgx.Batch
	var anew []int32 // partitions whose counts begin anew
	for _, b := range batches {
		r := rows[b.Partition]
		e := ledger.Entry{
			SourceID: s.source.ID, Partition: b.Partition, Seq: r.Seq + 1, Kind: ledger.Capture, From: b.From, To: b.To,
			Records: b.Records, Rows: b.Rows, DeadLetters: b.DeadLetters, Events: int64(len(b.Messages)),
			Digest: b.Digest, PrevHash: r.Head, Epoch: b.Epoch, Worker: s.cfg.Worker, Build: s.cfg.Build,
			Schemas: b.Schemas, Geo: b.Geo, CommittedAt: now,
		}
		hash := e.Queue(&q)
		h := stream.Head(&e, hash)
		b.Head = &h
		args := []any{s.source.ID, b.Partition, b.To, b.LeaderEpoch, e.Seq, hash, b.Floor, b.Care.To, b.Care.Step}
		if s.cfg.Counts == nil {
			q.Queue(advanceSQL+whereRow, args...)
			continue
		}
		begins := !r.counted.continues(s.cfg.Counts, b)
		if begins {
			anew = append(anew, b.Partition)
		}
		q.Queue(advanceCountedSQL+whereRow, append(args, b.From, begins, windowSeconds(s.cfg.Counts))...)
	}
	if s.cfg.Counts != nil {
		queueCounts(&q, s.cfg.Counts, s.source.ID, batches, anew)
	}
	q.Queue("COMMIT")
	res := c.SendBatch(ctx, &q)
	for range q.Len() {
		tag, err := res.Exec()
		if err == nil && tag.String() == "ROLLBACK" {
			err = pgx.ErrTxCommitRollback
		}
		if err != nil {
			_ = res.Close()
			return err
		}
	}
	return res.Close()
}
