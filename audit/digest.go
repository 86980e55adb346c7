package audit

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/exactly-pipeline/exactly/outbox"
)

// hashed is what an entry's digest is made of for one message: its record's hash and its own.
type hashed struct {
	offset          int64
	seq             int16
	record, message [sha256.Size]byte
}

// sealed is what a ledger's digest was made of: SHA-256 of the salt, then the message's offset, seq, partition and timestamp as 8 bytes
// big-endian, then topic, key, value and headers, each behind its length, -1 for null. Written here once more on purpose, like canonicalHash.
func (s *scratch) sealed(salt []byte, m *outbox.Message) [sha256.Size]byte {
	s.begin()
	s.b = append(s.b, salt...)
	s.int(m.SourceOffset)
	s.int(int64(m.Seq))
	s.int(int64(m.Partition))
	s.int(m.TimestampMs)
	s.str(m.Topic)
	s.bytes(m.Key)
	s.bytes(m.Value)
	s.packed(m.Headers)
	return sha256.Sum256(s.b)
}

// sealedRecord is the same of the input's record: salt, offset, timestamp, key, value, headers.
func (s *scratch) sealedRecord(salt []byte, offset, timestampMs int64, key, value []byte, headers []outbox.Header) [sha256.Size]byte {
	s.begin()
	s.b = append(s.b, salt...)
	s.int(offset)
	s.int(timestampMs)
	s.bytes(key)
	s.bytes(value)
	s.packed(headers)
	return sha256.Sum256(s.b)
}

// packed is the headers as the outbox's column holds them, behind their length.
func (s *scratch) packed(hs []outbox.Header) {
	at := len(s.b)
	s.int(0)
	s.b = outbox.AppendHeaders(s.b, hs)
	binary.BigEndian.PutUint64(s.b[at:], uint64(len(s.b)-at-8))
}

// hashedRow is the row's part of the digest. False: the row does not hold what it takes.
func (s *scratch) hashedRow(v *outboxRow) (h hashed, ok bool) {
	h.offset, h.seq = v.SourceOffset, v.Seq
	if len(v.recordHash) != sha256.Size {
		return h, false
	}
	copy(h.record[:], v.recordHash)
	if v.erased {
		copy(h.message[:], v.messageHash)
		return h, len(v.messageHash) == sha256.Size
	}
	if len(v.salt) != 16 {
		return h, false
	}
	h.message = s.sealed(v.salt, &v.Message)
	return h, true
}

// digestOf is an entry's digest: each record's hash, then those of its messages, in order.
func digestOf(hs []hashed) []byte {
	slices.SortFunc(hs, func(a, b hashed) int { return cmp.Or(cmp.Compare(a.offset, b.offset), cmp.Compare(a.seq, b.seq)) })
	h := sha256.New()
	for i := range hs {
		if i == 0 || hs[i-1].offset != hs[i].offset {
			h.Write(hs[i].record[:])
		}
		h.Write(hs[i].message[:])
	}
	return h.Sum(nil)
}

// digestKey names an entry while its messages come in.
type digestKey struct {
	partition int32
	end       int64
}

// digests puts entries' messages together as they come from the outbox, which holds them about in the order of capture: few entries are
// incomplete at a time. Those that do not fit are left for the second look.
type digests struct {
	mu      sync.Mutex
	pending map[digestKey][]hashed
	held    int
}

const mostHashed = 400_000 // messages of incomplete entries: 30 MB

// add adds a message of an entry that has so many, and returns all of them once they are together.
func (d *digests) add(k digestKey, events int, h *hashed) []hashed {
	d.mu.Lock()
	defer d.mu.Unlock()
	hs, began := d.pending[k]
	if !began && d.held+events > mostHashed {
		return nil
	}
	if !began {
		hs = make([]hashed, 0, events)
		d.held += events
	}
	hs = append(hs, *h)
	if len(hs) < events {
		d.pending[k] = hs
		return nil
	}
	delete(d.pending, k)
	d.held -= events
	return hs
}

// digest takes an outbox row of the spot's entry into its digest. The partition is locked.
func (w *summer) digest(v *outboxRow) {
	events := w.messages()
	if events == 0 {
		return
	}
	h, ok := w.hashedRow(v)
	if !ok {
		return // the entry stays incomplete, and is looked at
	}
	if hs := w.digests.add(digestKey{w.p.id, w.to}, events, &h); hs != nil {
		w.s.digest.plus(w.digestHash(w.to, digestOf(hs)))
	}
}

// digestHash is a digest as a term of a stretch's sum.
func (s *scratch) digestHash(end int64, digest []byte) wide {
	s.begin()
	s.int(end)
	s.bytes(digest)
	return s.wideSum()
}

// oneEntry is an entry whose digest is made once more.
type oneEntry struct {
	p                     *partition
	seq, from, to, events int64
	records               int64
	digest                []byte
	lacks                 bool
	hashed                []hashed
}

// silent says whether records of the entry made no message, as pointers to what was replayed before make none: the hash of such a record, which the
// digest takes in as well, is kept nowhere.
func (e *oneEntry) silent() bool {
	if e.lacks || int64(len(e.hashed)) != e.events {
		return false
	}
	spoke := map[int64]bool{}
	for i := range e.hashed {
		spoke[e.hashed[i].offset] = true
	}
	return int64(len(spoke)) < e.records
}

// checkDigests makes the digests of doubtful stretches' entries once more, as many at a time as there is room for, and names those that
// differ.
func (r *run) checkDigests(ctx context.Context, doubts []doubt) error {
	for len(doubts) > 0 {
		var parts []part
		var entries []*oneEntry
		for room := int64(mostHashed); len(doubts) > 0 && (room == mostHashed || doubts[0].s.size() <= room); doubts = doubts[1:] {
			d := doubts[0]
			room -= d.s.size()
			parts = append(parts, part{d.p.id, d.s.from, d.s.to})
			some, err := r.entriesOf(ctx, d)
			if err != nil {
				return err
			}
			entries = append(entries, some...)
		}
		err := r.readOutbox(ctx, parts, func() func(context.Context, *outboxRow) error {
			w := r.newWorker()
			return func(_ context.Context, v *outboxRow) error { return w.toEntry(entries, v) }
		})
		if err != nil {
			return err
		}
		for _, e := range entries {
			before := r.findings.total(LedgerDigest)
			switch {
			case len(e.hashed) == 0 && !e.lacks && e.p.pruned.outbox.overlap(e.from, e.to):
			case e.silent(): // its messages are all there, and were compared with all else
			case e.lacks:
				r.ledgerFound(LedgerDigest, e.p.id, e.seq, "seq %d: its outbox messages lack the hashes its digest was made of", e.seq)
			case !bytes.Equal(digestOf(e.hashed), e.digest):
				r.ledgerFound(LedgerDigest, e.p.id, e.seq, "seq %d: the outbox messages of [%d,%d) are not those its digest was made of", e.seq, e.from, e.to)
			}
			if r.findings.total(LedgerDigest) > before {
				r.mark(e.p.id, e.from)
			}
		}
	}
	return nil
}

// entriesOf are the entries of a stretch that have messages, in order of offsets.
func (r *run) entriesOf(ctx context.Context, d doubt) ([]*oneEntry, error) {
	rows, _ := r.pg.main.Query(ctx, `SELECT seq, from_offset, to_offset, events, records, digest FROM offset_ledger WHERE source_id = $1 AND source_partition = $2
		AND to_offset > $3 AND from_offset >= $3 AND to_offset <= $4 AND to_offset > from_offset AND events > 0 AND (kind = 'capture' OR seq = ANY($5))
		ORDER BY to_offset`, r.source, d.p.id, d.s.from, d.s.to, d.p.healed)
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*oneEntry, error) {
		e := &oneEntry{p: d.p}
		return e, row.Scan(&e.seq, &e.from, &e.to, &e.events, &e.records, &e.digest)
	})
	if err != nil {
		return nil, fmt.Errorf("offset_ledger: %w", err)
	}
	return all, nil
}

func (w *worker) toEntry(entries []*oneEntry, v *outboxRow) error {
	i, _ := slices.BinarySearchFunc(entries, v, func(e *oneEntry, v *outboxRow) int {
		return cmp.Or(cmp.Compare(e.p.id, v.partition), cmp.Compare(e.to, v.SourceOffset+1))
	})
	if v.source != w.source || i == len(entries) || entries[i].p.id != v.partition || v.SourceOffset < entries[i].from {
		return nil
	}
	e := entries[i]
	h, ok := w.hashedRow(v)
	e.p.mu.Lock()
	defer e.p.mu.Unlock()
	switch {
	case !ok:
		e.lacks = true
	case int64(len(e.hashed)) <= e.events: // one too many is enough to differ
		e.hashed = append(e.hashed, h)
	}
	return nil
}
