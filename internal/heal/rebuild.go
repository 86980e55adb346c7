package heal

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/outbox"
	"github.com/exactly-pipeline/exactly/txn"
)

// rebuild brings the partitions, all held, to where they are to be.
func (h *postgres) rebuild(ctx context.Context, parts []*part) error {
	if err := h.readErasures(ctx); err != nil {
		return err
	}
	shape := engine.Shape{Input: h.cfg.Topics.Input, DLQ: h.cfg.Topics.DLQ}
	records := h.maxRecords
	for len(parts) > 0 {
		each := int64(max(1, records/len(parts)))
		windows := map[int32]*window{}
		for _, p := range parts {
			at, err := h.skipAhead(ctx, p)
			if err != nil {
				return err
			}
			windows[p.id] = &window{from: at, to: p.upToSkip(at, min(at+each, p.to))}
		}
		fits, err := h.fetch(ctx, windows)
		if err != nil {
			return fmt.Errorf("read the output topics: %w", err)
		}
		if !fits {
			if each == 1 && len(parts) > 1 {
				parts = append(parts[1:], parts[0]) // one after the other, then
				if err := h.rebuild(ctx, parts[:1]); err != nil {
					return err
				}
				parts = parts[1:]
				continue
			}
			if each == 1 {
				return refuse(parts[0].id, "the event of offset %d does not fit into %d bytes", windows[parts[0].id].from, h.maxBytes)
			}
			records /= 2
			continue
		}
		left := parts[:0:0]
		for _, p := range parts {
			w := windows[p.id]
			if w.from < w.to {
				if err := h.write(ctx, &shape, p, w); err != nil {
					return err
				}
			}
			if w.to < p.to {
				left = append(left, p)
			}
		}
		parts = left
	}
	return nil
}

// fetch fills the windows with what the scan found. false: it would not fit into memory.
func (h *postgres) fetch(ctx context.Context, windows map[int32]*window) (fits bool, err error) {
	all := spans{}
	for id, w := range windows {
		w.messages = make([]outbox.Message, w.to-w.from)
		for o := w.from; o < w.to; o++ {
			at := h.parts[id].index.get(o)
			if at == 0 {
				continue
			}
			topic, s := h.topic(at), span{at.offset(), at.offset() + 1}
			if have, ok := all[topic][at.partition()]; ok {
				s.from, s.to = min(s.from, have.from), max(s.to, have.to)
			}
			all.add(topic, at.partition(), s.from, s.to)
		}
	}
	bytes := 0
	errFull := fmt.Errorf("full")
	err = h.read(ctx, all, func(r *kgo.Record) error {
		id, offset, ok := h.coordinates(r)
		w := windows[id]
		if !ok || w == nil || offset < w.from || offset >= w.to {
			return nil
		}
		if placed(r.Topic == h.cfg.Topics.DLQ, r.Partition, r.Offset) != h.parts[id].index.get(offset) {
			return nil
		}
		m := message(r, offset)
		if bytes += m.Size(); bytes > h.maxBytes {
			return errFull
		}
		w.messages[offset-w.from] = m
		return nil
	})
	if err == errFull { //nolint:errorlint // ours, and passed on as it is
		return false, nil
	}
	return true, err
}

// write is one transaction: what the records [w.from, w.to) made, the entry that says so, and the stored offset.
func (h *postgres) write(ctx context.Context, shape *engine.Shape, p *part, w *window) error {
	published := make([]outbox.Message, 0, len(w.messages))
	for i := range w.messages {
		if w.messages[i].Topic != "" {
			published = append(published, w.messages[i])
		} else if at := p.index.get(w.from + int64(i)); at != 0 {
			return refuse(p.id, "%s, the event of offset %d, is gone again: expired meanwhile?", where(h.topic(at), at.partition(), at.offset()), w.from+int64(i))
		}
	}
	b, err := engine.Rebuild(ctx, h.rb, shape, h.desk.Source().ID, p.id, w.from, w.to, published)
	if err != nil {
		return err
	}
	err = p.held.Advance(ctx, w.to, func(tx pgx.Tx) error {
		if err := txn.CopyBatch(ctx, tx, h.rb.Tables(), b); err != nil {
			return err
		}
		if c := h.rb.Counts(); c != nil {
			if err := txn.CountBatch(ctx, tx, c, h.desk.Source().ID, b); err != nil {
				return err
			}
		}
		failpoint.Hit(failpoint.HealCopied)
		err := p.held.Append(ctx, tx, ledger.Deed{
			Kind: ledger.Heal, From: w.from, To: w.to, Records: b.Records, Rows: b.Rows, Dead: b.DeadLetters, Events: int64(len(b.Messages)),
			Digest: b.Digest, Schemas: b.Schemas, Geo: b.Geo, Why: h.o.Reason + " (rebuilt from the output topics" + replaces(p) + ")",
		})
		if err != nil {
			return err
		}
		return h.eraseRebuilt(ctx, tx, p, w)
	})
	if err != nil {
		return fmt.Errorf("rebuild %s/%d [%d,%d): %w", shape.Input, p.id, w.from, w.to, err)
	}
	p.done.Rows += b.Rows
	p.done.DeadLetters += b.DeadLetters
	h.log.Debug("rebuilt", zap.Int32("partition", p.id), zap.Int64("from", w.from), zap.Int64("to", w.to), zap.Int64("rows", b.Rows), zap.Int64("dead_letters", b.DeadLetters))
	failpoint.Hit(failpoint.HealCommitted)
	return nil
}

// replaces cites what Kafka knows of the entries that were lost.
func replaces(p *part) string {
	epoch, seq, ok := txn.ParseMetadata(p.seen.Metadata)
	if !ok {
		return ""
	}
	return fmt.Sprintf("; the group offset %d was of epoch %d, ledger seq %d", p.seen.Offset, epoch, seq)
}
