package audit

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
)

// archived is a part of a chain that was moved to a file: a row of ledger_archives.
type archived struct {
	fromSeq, toSeq, begun, to, seq int64
	hash, fileHash                 []byte
	file                           string
}

// readArchives reads what was moved out of the ledger, by partition and seq.
func (r *run) readArchives(ctx context.Context) error {
	rows, _ := r.pg.main.Query(ctx, `SELECT source_partition, from_seq, to_seq, begun_at, to_offset, last_hash, file, file_hash, ledger_seq FROM ledger_archives
		WHERE source_id = $1 ORDER BY source_partition, to_seq`, r.source)
	var n int32
	var a archived
	_, err := pgx.ForEachRow(rows, []any{&n, &a.fromSeq, &a.toSeq, &a.begun, &a.to, &a.hash, &a.file, &a.fileHash, &a.seq}, func() error {
		if r.wants(n) {
			a.hash, a.fileHash = bytes.Clone(a.hash), bytes.Clone(a.fileHash)
			r.archives[n] = append(r.archives[n], a)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("ledger_archives: %w", err)
	}
	return nil
}

// newestArchive is the last part of a chain that was archived.
func (r *run) newestArchive(n int32) (a archived, ok bool) {
	as := r.archives[n]
	if len(as) == 0 {
		return a, false
	}
	return as[len(as)-1], true
}

// base is where a partition's chain begins that is in the table: behind what was archived, if the files are not read.
func (r *run) base(n int32) (a archived, ok bool) {
	if r.opts.Archive != "" && r.earlier == nil {
		return a, false
	}
	return r.newestArchive(n)
}

// checkArchives asks the ledger to vouch for each row of ledger_archives, as it does for what was pruned and erased.
func (r *run) checkArchives() {
	for _, p := range r.sorted() {
		for _, a := range r.archives[p.id] {
			if r.checked(p.id, a.seq) {
				continue
			}
			r.fact("ledger_archives", p.id, a.seq, sha256.Sum256(fmt.Appendf(nil, "%d %d %d %d %d %d %x %x", r.source, p.id, a.fromSeq, a.toSeq, a.begun, a.to, a.hash, a.fileHash)))
		}
		if a, ok := r.base(p.id); ok && r.earlier == nil {
			r.note("%s/%d: the ledger's entries up to seq %d, offsets below %d, were archived; --archive reads their files", r.opts.Input, p.id, a.toSeq, a.to)
		}
	}
}

// archivedEntries passes on the entries that are in files. A file that is not there, or is another, is a finding.
func (r *run) archivedEntries(take func(*entry)) error {
	if r.opts.Archive == "" || r.earlier != nil {
		return nil
	}
	for _, p := range r.sorted() {
		for _, a := range r.archives[p.id] {
			if err := r.readArchive(p.id, &a, take); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *run) readArchive(n int32, a *archived, take func(*entry)) error {
	f, err := os.Open(filepath.Join(r.opts.Archive, filepath.Base(a.file)))
	if os.IsNotExist(err) {
		r.ledgerFound(LedgerChain, n, a.fromSeq, "the archive of the entries [%d,%d], %s, is not in the folder", a.fromSeq, a.toSeq, a.file)
		return nil
	}
	if err != nil {
		return fmt.Errorf("open an archive: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	sum := sha256.New()
	lines := bufio.NewReader(io.TeeReader(f, sum))
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			break
		}
		if err != nil && err != io.EOF {
			return fmt.Errorf("read %s: %w", a.file, err)
		}
		if e, err := parseArchived(line); err == nil && e.partition == n {
			take(e)
		} else {
			r.ledgerFound(LedgerChain, n, a.fromSeq, "%s has a line that is no entry of this partition", a.file)
		}
	}
	if !bytes.Equal(sum.Sum(nil), a.fileHash) {
		r.ledgerFound(LedgerChain, n, a.fromSeq, "%s is not the file that was written: its hash is another than ledger_archives says", a.file)
	}
	return nil
}

// parseArchived reads a line of an archive. Written here once more on purpose, like canonicalHash.
func parseArchived(line []byte) (*entry, error) {
	var l struct {
		Partition   int32  `json:"source_partition"`
		Seq         int64  `json:"seq"`
		Kind        string `json:"kind"`
		From        int64  `json:"from_offset"`
		To          int64  `json:"to_offset"`
		Records     int64  `json:"records"`
		Rows        int64  `json:"rows"`
		Dead        int64  `json:"dead_letters"`
		Events      int64  `json:"events"`
		Digest      string `json:"digest"`
		Prev        string `json:"prev_hash"`
		Epoch       int64  `json:"epoch"`
		Worker      string `json:"worker"`
		Why         string `json:"why"`
		Who         string `json:"who"`
		Build       string `json:"build"`
		Schemas     string `json:"schemas"`
		Geo         string `json:"geo"`
		CommittedAt int64  `json:"committed_at_us"`
		Hash        string `json:"hash"`
		CapturedAt  int64  `json:"captured_at_us"`
	}
	if err := json.Unmarshal(line, &l); err != nil {
		return nil, err
	}
	e := &entry{
		partition: l.Partition, seq: l.Seq, kind: l.Kind, from: l.From, to: l.To, records: l.Records, rows: l.Rows, dead: l.Dead, events: l.Events, epoch: l.Epoch,
		worker: l.Worker, why: l.Why, who: l.Who, build: l.Build, schemas: l.Schemas, geo: l.Geo, at: time.UnixMicro(l.CommittedAt), capturedAt: time.UnixMicro(l.CapturedAt),
	}
	for to, from := range map[*[]byte]string{&e.digest: l.Digest, &e.prev: l.Prev, &e.hash: l.Hash} {
		b, err := hex.DecodeString(from)
		if err != nil {
			return nil, err
		}
		*to = b
	}
	return e, nil
}
