package audit

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/exactly-pipeline/exactly/outbox"
)

// rowRow, deadRow and outboxRow are rows of the tables as they are read. Their bytes are valid until the next one only.
type rowRow struct {
	source    int16
	partition int32
	offset    int64
	fields    rowFields
	dropped   bool // its outbox message was pruned
	ip        [32]byte
}

type deadRow struct {
	source     int16
	partition  int32
	offset     int64
	key, value []byte
	failure    failure
	dropped    bool
}

type outboxRow struct {
	source    int16
	partition int32
	outbox.Message
	damaged bool // its headers can't be read

	salt, recordHash, messageHash []byte
	erased                        bool
}

// part is a range of source offsets to read, [from, to); what there is of one source.
type part struct {
	partition int32
	from, to  int64
}

// mostParts is how many ranges a condition names before it becomes coarse.
const mostParts = 100

// where is the condition that reads them, and perhaps more. No parts: everything there is of any source.
func (r *run) where(parts []part) string {
	if parts == nil {
		return ""
	}
	if len(parts) > mostParts {
		whole := map[int32]part{}
		for _, p := range parts {
			if w, ok := whole[p.partition]; ok {
				p.from, p.to = min(w.from, p.from), max(w.to, p.to)
			}
			whole[p.partition] = p
		}
		parts = parts[:0:0]
		for _, p := range whole {
			parts = append(parts, p)
		}
	}
	conds := make([]string, len(parts))
	for i, p := range parts {
		conds[i] = fmt.Sprintf("source_partition = %d AND source_offset >= %d AND source_offset < %d", p.partition, p.from, p.to)
	}
	if len(conds) == 0 {
		conds = []string{"false"}
	}
	return fmt.Sprintf(" AND source_id = %d AND (%s)", r.source, strings.Join(conds, " OR "))
}

// asked is what the first pass reads of the tables: all, unless a time was asked for or an earlier round has proven some of it.
func (r *run) asked() []part {
	if r.noInput { // one source of several
		parts := []part{}
		for _, p := range r.sorted() {
			parts = append(parts, part{p.id, 0, math.MaxInt64})
		}
		return parts
	}
	if r.earlier == nil && r.opts.Since.IsZero() && r.opts.Until.IsZero() {
		return nil
	}
	parts := []part{}
	for _, p := range r.sorted() {
		if p.lo < p.hi {
			parts = append(parts, part{p.id, p.lo, p.hi})
		}
	}
	return parts
}

// dropped says whether the outbox message of a row was dropped on purpose: by a prune that the ledger vouches for. A time partition that is merely not
// there excuses nothing.
func (r *run) dropped(partition int32, offset int64) bool {
	p := r.parts[partition]
	return p != nil && p.pruned.outbox.has(offset)
}

// readRows passes on the rows of enriched_clicks. newFn is called once a goroutine.
func (r *run) readRows(ctx context.Context, parts []part, newFn func() func(*rowRow) error) error {
	return r.scan(ctx, "enriched_clicks", `source_id, source_partition, source_offset, user_id, session_id, "timestamp", url, ip, country, geo_build`, parts,
		func() func([][]byte) error {
			fn, row := newFn(), &rowRow{}
			return func(v [][]byte) error {
				row.source, row.partition, row.offset = int2(v[0]), int4(v[1]), int8b(v[2])
				row.dropped = r.dropped(row.partition, row.offset)
				row.fields = rowFields{
					user: int8b(v[3]), session: v[4], unixMicros: int8b(v[5]) + epoch2000, url: v[6],
					addr: r.dec.addr.column(inetAddr(row.ip[:0], v[7])), country: v[8], geo: v[9],
				}
				return fn(row)
			}
		})
}

func (r *run) readDeadLetters(ctx context.Context, parts []part, newFn func() func(*deadRow) error) error {
	return r.scan(ctx, "dead_letters", `source_id, source_partition, source_offset, key, value, error_class, error_stage, error_message, headers`, parts, func() func([][]byte) error {
		fn, row := newFn(), &deadRow{}
		return func(v [][]byte) error {
			row.source, row.partition, row.offset, row.key, row.value = int2(v[0]), int4(v[1]), int8b(v[2]), v[3], v[4]
			row.failure = failure{v[5], v[6], v[7], v[8]}
			row.dropped = r.dropped(row.partition, row.offset)
			return fn(row)
		}
	})
}

func (r *run) readOutbox(ctx context.Context, parts []part, newFn func() func(context.Context, *outboxRow) error) error {
	return r.scan(ctx, "outbox", `source_id, source_partition, source_offset, seq, topic, partition, "timestamp", key, value, headers, salt, record_hash, message_hash, erased_at`, parts,
		func() func([][]byte) error {
			fn, row := newFn(), &outboxRow{}
			return func(v [][]byte) error {
				row.source, row.partition = int2(v[0]), int4(v[1])
				row.Message = outbox.Message{SourceOffset: int8b(v[2]), Seq: int2(v[3]), Topic: string(v[4]), Partition: int4(v[5]), TimestampMs: int8b(v[6]), Key: v[7], Value: v[8]}
				var err error
				row.Headers, err = outbox.ParseHeaders(v[9])
				row.damaged = err != nil
				row.salt, row.recordHash, row.messageHash, row.erased = v[10], v[11], v[12], v[13] != nil
				return fn(ctx, row)
			}
		})
}

func (r *run) sumRows(ctx context.Context) error {
	return r.readRows(ctx, r.asked(), func() func(*rowRow) error { return (&summer{worker: r.newWorker()}).row })
}

func (r *run) sumDeadLetters(ctx context.Context) error {
	return r.readDeadLetters(ctx, r.asked(), func() func(*deadRow) error { return (&summer{worker: r.newWorker()}).deadLetter })
}

func (r *run) sumOutbox(ctx context.Context) error {
	return r.readOutbox(ctx, r.asked(), func() func(context.Context, *outboxRow) error { return (&summer{worker: r.newWorker()}).message })
}
