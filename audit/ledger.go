package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// entry is one row of offset_ledger, in the order of its canonical encoding.
type entry struct {
	partition                             int32
	seq                                   int64
	kind                                  string
	from, to, records, rows, dead, events int64
	digest, prev, hash                    []byte
	epoch                                 int64
	worker, why, who, build, schemas, geo string
	at, capturedAt                        time.Time // the writer's clock; the server's, not hashed
}

// canonicalHash is SHA-256 over the fields in order: integers as 8 bytes big-endian, strings and bytes behind their length as such an
// integer, the time in microseconds since the Unix epoch. Written here once more on purpose: the writer's code is what is checked.
func (e *entry) canonicalHash(source int16) [32]byte {
	b := make([]byte, 0, 256)
	num := func(vs ...int64) {
		for _, v := range vs {
			b = binary.BigEndian.AppendUint64(b, uint64(v))
		}
	}
	str := func(v []byte) { num(int64(len(v))); b = append(b, v...) }
	num(int64(source), int64(e.partition), e.seq)
	str([]byte(e.kind))
	num(e.from, e.to, e.records, e.rows, e.dead, e.events)
	str(e.digest)
	str(e.prev)
	num(e.epoch)
	str([]byte(e.worker))
	for _, s := range []string{e.why, e.who, e.build, e.schemas, e.geo} {
		str([]byte(s))
	}
	num(e.at.UnixMicro())
	return sha256.Sum256(b)
}

// chain is how far one partition's ledger has been checked.
type chain struct {
	seq  int64
	hash []byte
	next int64 // offset the next entry must begin at
	lay  *layer
}

// readLedger checks the chain entry by entry and keeps what the end needs of each. It comes before the input: it says where to begin.
func (r *run) readLedger(ctx context.Context) error {
	if err := r.inputBounds(ctx); err != nil {
		return err
	}
	if err := r.readCoarse(ctx); err != nil {
		return err
	}
	starts, err := r.ledgerStarts(ctx)
	if err != nil {
		return err
	}
	var offsets int64
	for _, p := range r.parts {
		at, known := starts[p.id]
		if e, ok := r.earlier.part(p.id); ok {
			at, known = e.offset, true
		}
		if !known {
			at = p.logStart
		}
		offsets += max(0, p.hi-at)
	}
	r.work = 4 * offsets // input, rows, events, outbox
	length := min(max(offsets/mostStretches, shortStretch), longStretch)
	chains := map[int32]*chain{}
	newChain := func(p *partition) *chain {
		c := &chain{next: -1, lay: &layer{scratch: scratch{hasher: r.hash}, p: p, hi: p.hi, length: length, since: r.opts.Since, until: r.opts.Until}}
		at, known := r.earlier.part(p.id)
		if a, ok := r.base(p.id); known && (!ok || at.seq >= a.toSeq) { // an earlier round has checked what comes before
			c.seq, c.hash, c.next, p.begin = at.seq, at.hash, at.offset, at.begin
			c.lay.begin(at.offset)
		} else if ok { // what comes before is in a file
			c.seq, c.hash, c.next, p.begin = a.toSeq, a.hash, a.to, a.begun
			c.lay.begin(a.to)
		}
		return c
	}
	take := func(e *entry) {
		c := chains[e.partition]
		if c == nil {
			c = newChain(r.part(e.partition))
			chains[e.partition] = c
		}
		r.ledgerEntry(c, e)
		r.tell(1)
	}
	if err := r.archivedEntries(take); err != nil {
		return err
	}
	if err := r.entries(ctx, take); err != nil {
		return fmt.Errorf("offset_ledger: %w", err)
	}
	for _, p := range r.sorted() {
		c := chains[p.id]
		if c == nil {
			c = newChain(p)
		}
		p.from = max(p.begin, p.logStart)
		c.lay.finish()
		if c.next < 0 && p.stored > 0 {
			r.ledgerFound(LedgerGap, p.id, 0, "no entry at all, but the stored offset is %d", p.stored)
		}
		if c.next >= 0 && c.next != p.stored {
			r.ledgerFound(LedgerGap, p.id, c.seq, "the entries end at offset %d, the stored offset is %d", c.next, p.stored)
		}
		if c.seq != p.seq {
			r.ledgerFound(LedgerChain, p.id, c.seq, "the last entry is seq %d, partition_offsets.ledger_seq says %d", c.seq, p.seq)
		}
		if !bytes.Equal(c.hash, p.head) {
			r.ledgerFound(LedgerChain, p.id, c.seq, "the last entry's hash is not partition_offsets.ledger_head")
		}
	}
	return nil
}

// ledgerStarts is where the first entry of each partition begins.
func (r *run) ledgerStarts(ctx context.Context) (map[int32]int64, error) {
	rows, _ := r.pg.main.Query(ctx, `SELECT p.source_partition, l.from_offset FROM partition_offsets p CROSS JOIN LATERAL (SELECT from_offset FROM offset_ledger l
		WHERE (l.source_id, l.source_partition) = (p.source_id, p.source_partition) ORDER BY seq LIMIT 1) l WHERE p.source_id = $1`, r.source)
	starts := map[int32]int64{}
	var n int32
	var at int64
	if _, err := pgx.ForEachRow(rows, []any{&n, &at}, func() error { starts[n] = at; return nil }); err != nil {
		return nil, fmt.Errorf("offset_ledger: %w", err)
	}
	for n, as := range r.archives {
		if len(as) > 0 && r.opts.Archive != "" {
			starts[n] = as[0].begun
		}
	}
	return starts, nil
}

// entries passes on the entries that no earlier round has checked, by partition and seq.
func (r *run) entries(ctx context.Context, take func(*entry)) error {
	var e entry
	read := func(where string, args ...any) error {
		rows, _ := r.pg.main.Query(ctx, `SELECT source_partition, seq, kind, from_offset, to_offset, records, rows, dead_letters, events, digest, prev_hash, hash,
			epoch, worker, why, who, build, schemas, geo, committed_at, captured_at FROM offset_ledger WHERE source_id = $1`+where+` ORDER BY source_partition, seq`, append([]any{r.source}, args...)...)
		_, err := pgx.ForEachRow(rows, []any{&e.partition, &e.seq, &e.kind, &e.from, &e.to, &e.records, &e.rows, &e.dead, &e.events, &e.digest, &e.prev, &e.hash,
			&e.epoch, &e.worker, &e.why, &e.who, &e.build, &e.schemas, &e.geo, &e.at, &e.capturedAt}, func() error {
			if r.wants(e.partition) {
				take(&e)
			}
			return nil
		})
		return err
	}
	if r.earlier == nil {
		return read("")
	}
	for _, p := range r.sorted() { // by the index: what was checked is not read
		at, _ := r.earlier.part(p.id)
		if err := read(` AND source_partition = $2 AND seq > $3`, p.id, at.seq); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) ledgerFound(class Class, partition int32, seq int64, format string, a ...any) {
	r.findings.add(Finding{Class: class, Sink: Ledger, Partition: partition, Offset: -1, Seq: seq, Says: fmt.Sprintf("ledger: "+format, a...)})
}

func (r *run) ledgerEntry(c *chain, e *entry) {
	p := r.part(e.partition)
	p.stat.Ledger++
	bad := func(class Class, format string, a ...any) { r.ledgerFound(class, e.partition, e.seq, format, a...) }
	if e.seq != c.seq+1 {
		bad(LedgerGap, "seq %d comes after %d", e.seq, c.seq)
	}
	if !bytes.Equal(e.prev, c.hash) {
		bad(LedgerChain, "seq %d: prev_hash is not the hash of the entry before", e.seq)
	}
	if want := e.canonicalHash(r.source); len(e.hash) == 0 {
		bad(LedgerChain, "seq %d has no hash", e.seq)
	} else if !bytes.Equal(e.hash, want[:]) {
		bad(LedgerChain, "seq %d: its fields do not make its hash: it was changed after it was written", e.seq)
	}
	r.build(e)
	if e.kind != "capture" {
		r.deed(e)
		r.vouched(e)
		p.shortOf(e)
	}
	first := c.next < 0
	c.seq, c.hash = e.seq, append(c.hash[:0:0], e.hash...)
	switch e.kind {
	case "start":
		if !first {
			bad(LedgerGap, "seq %d: started once more", e.seq)
		}
		if e.from != e.to || e.from < 0 {
			bad(LedgerGap, "seq %d: a start with the range [%d,%d)", e.seq, e.from, e.to)
		}
		if first {
			p.begin = max(0, e.to)
			c.lay.begin(p.begin)
		}
		c.next = max(c.next, e.to)
		return
	case "restore", "hold", "release", "replay", "erase", "archive", "prune": // no input is read, and no offset is moved
		if first {
			c.next = 0
		}
		return
	case "reset":
		if e.from == c.next && e.to < e.from { // back over what was skipped: it is owed again
			c.lay.back(e.to)
			c.next = e.to
			return
		}
		if e.from == e.to {
			return
		}
	case "heal": // with a range that continues the chain it stands for captures that were lost, else it is about what was captured before
		if e.from != c.next || e.to <= e.from {
			return
		}
		p.healed = append(p.healed, e.seq)
	case "capture", "accept_loss":
	default:
		bad(LedgerGap, "seq %d is of a kind this audit does not know: %q", e.seq, e.kind)
	}
	if first && e.seq == 1 {
		c.next = 0 // without a start, a partition begins at the topic's beginning
	}
	if e.from != c.next || e.to <= e.from {
		bad(LedgerGap, "seq %d covers [%d,%d), the entries before it end at %d", e.seq, e.from, e.to, c.next)
	}
	r.countEntry(e)
	c.lay.entry(e, e.kind == "accept_loss" || e.kind == "reset")
	c.next = e.to
}
