package audit

import (
	"context"
	"errors"
	"fmt"

	"github.com/exactly-pipeline/exactly/outbox"
)

// claim finds the cell that a Postgres row of the coordinate belongs to and locks its partition; the caller unlocks it. nil: it
// was dealt with.
func (w *worker) claim(sink Sink, source int16, n int32, offset int64) (*partition, *cell) {
	if source != w.source {
		if w.sources[source] {
			w.findings.mu.Lock()
			w.totals.OtherSource++
			w.findings.mu.Unlock()
			return nil, nil
		}
		w.found(Unexplained, sink, n, offset, nil, "%s: %s/%d@%d is of source %d, which there is not", sink, w.opts.Input, n, offset, source)
		return nil, nil
	}
	p := w.parts[n]
	if p == nil {
		w.found(Unexplained, sink, n, offset, nil, "%s: %s has no partition %d", sink, w.opts.Input, n)
		return nil, nil
	}
	p.mu.Lock()
	switch sink {
	case Rows:
		p.stat.Rows++
	case Outbox:
		p.stat.Outbox++
	case DeadLetters:
		p.stat.DeadLetters++
	}
	c, why := p.at(offset)
	if c == nil {
		if why == "" {
			p.stat.OutOfReach++
		}
		p.mu.Unlock()
		if why != "" {
			w.found(Unexplained, sink, n, offset, nil, "%s: %s", sink, why)
		}
		return nil, nil
	}
	return p, c
}

// readRows holds each row against its input, and keeps its hash for the event.
func (r *run) readRows(ctx context.Context) error {
	return r.scan(ctx, "enriched_clicks", `source_id, source_partition, source_offset, user_id, session_id, "timestamp", url, ip, country, geo_build`,
		func(t table) func([][]byte) error {
			w := r.newWorker()
			dropped := t.suffix != "default" && !r.pg.has("outbox", t.suffix)
			return func(v [][]byte) error {
				n, offset := int4(v[1]), int8b(v[2])
				f := rowFields{
					user: int8b(v[3]), session: string(v[4]), unixMicros: int8b(v[5]) + epoch2000, url: string(v[6]),
					addr: inetAddr(w.ip[:0], v[7]), country: string(v[8]), geo: string(v[9]),
				}
				plain, full := w.row(&f)
				p, c := w.claim(Rows, int2(v[0]), n, offset)
				if c == nil {
					return nil
				}
				defer p.mu.Unlock()
				if dropped {
					c.flags |= pruned
				}
				if inc(&c.rows) > 1 {
					w.found(Duplicate, Rows, n, offset, nil, "more than one row in enriched_clicks")
				}
				c.row = full
				switch {
				case c.has(decodes) && c.plain != plain:
					c.flags |= rowDiffers
					w.found(Different, Rows, n, offset, nil, "the row is not the click of the input")
				case !c.has(decodes):
					c.flags |= rowDiffers
					w.found(Different, Rows, n, offset, nil, "a row, but the input is no click that can be decoded")
				}
				return nil
			}
		})
}

// readDeadLetters holds each dead letter against its input.
func (r *run) readDeadLetters(ctx context.Context) error {
	return r.scan(ctx, "dead_letters", `source_id, source_partition, source_offset, key, value`, func(t table) func([][]byte) error {
		w := r.newWorker()
		dropped := t.suffix != "default" && !r.pg.has("outbox", t.suffix)
		return func(v [][]byte) error {
			n, offset := int4(v[1]), int8b(v[2])
			kv := w.keyValue(v[3], v[4])
			p, c := w.claim(DeadLetters, int2(v[0]), n, offset)
			if c == nil {
				return nil
			}
			defer p.mu.Unlock()
			if dropped {
				c.flags |= pruned
			}
			if inc(&c.dead) > 1 {
				w.found(Duplicate, DeadLetters, n, offset, nil, "more than one row in dead_letters")
			}
			if c.rows > 0 {
				w.found(Duplicate, DeadLetters, n, offset, nil, "both a row and a dead letter")
			}
			if kv != c.kv {
				w.found(Different, DeadLetters, n, offset, nil, "the dead letter's key and value are not the input's")
			}
			return nil
		}
	})
}

// readOutbox keeps each message's hash for its record. What is still owed has no record yet: its bytes are held against the input
// and the row, for they are what Kafka will be given.
func (r *run) readOutbox(ctx context.Context) error {
	return r.scan(ctx, "outbox", `source_id, source_partition, source_offset, seq, topic, partition, "timestamp", key, value, headers`,
		func(table) func([][]byte) error {
			w := r.newWorker()
			return func(v [][]byte) error { return w.outboxRow(ctx, v) }
		})
}

func (w *worker) outboxRow(ctx context.Context, v [][]byte) error {
	n, seq := int4(v[1]), int2(v[3])
	m := outbox.Message{SourceOffset: int8b(v[2]), Seq: seq, Topic: string(v[4]), Partition: int4(v[5]), TimestampMs: int8b(v[6]), Key: v[7], Value: v[8]}
	var damaged error
	m.Headers, damaged = outbox.ParseHeaders(v[9])
	msg, kv := w.message(&m), w.keyValue(m.Key, m.Value)
	p, c := w.claim(Outbox, int2(v[0]), n, m.SourceOffset)
	if c == nil {
		return nil
	}
	defer p.mu.Unlock()
	if inc(&c.outbox) > 1 || seq != 0 { // a click makes one message
		w.found(Duplicate, Outbox, n, m.SourceOffset, nil, "more than one outbox message (seq %d)", seq)
	}
	if c.outbox > 1 {
		return nil
	}
	c.msg = msg
	if m.Partition >= 0 && m.Partition < 1<<15 {
		c.target = int16(m.Partition)
	}
	if damaged != nil {
		w.found(Different, Outbox, n, m.SourceOffset, nil, "the outbox message's headers can't be read")
		return nil
	}
	if src, why := sourceOf(w.opts.Input, m.Headers); why != "" || src != (source{n, m.SourceOffset}) {
		w.found(Different, Outbox, n, m.SourceOffset, nil, "the outbox message's exactly-source is not its coordinate")
		return nil
	}
	switch m.Topic {
	case w.opts.DLQ:
		c.flags |= toDLQ
		if c.dead > 0 && c.rows == 0 && kv != c.kv {
			w.found(Different, Outbox, n, m.SourceOffset, nil, "the outbox message's key and value are not the input's")
		}
		if c.rows > 0 {
			w.found(Different, Outbox, n, m.SourceOffset, nil, "a row, but its outbox message goes to %s", m.Topic)
		}
	case w.opts.Output:
		if c.dead > 0 && c.rows == 0 {
			w.found(Different, Outbox, n, m.SourceOffset, nil, "a dead letter, but its outbox message goes to %s", m.Topic)
		} else if m.SourceOffset >= p.published() {
			return w.owed(ctx, c, n, &m)
		}
	default:
		w.found(Unexplained, Outbox, n, m.SourceOffset, nil, "an outbox message for topic %s, which is no output of this source", m.Topic)
	}
	return nil
}

// owed judges an event that Kafka has not been given yet.
func (w *worker) owed(ctx context.Context, c *cell, n int32, m *outbox.Message) error {
	err := w.dec.enriched(ctx, m.Value, &w.ev)
	if errors.Is(err, errUndecodable) {
		w.found(Undecodable, Outbox, n, m.SourceOffset, nil, "the outbox message is no enriched click that can be decoded")
		return nil
	}
	if err != nil {
		return fmt.Errorf("decode the outbox message of %s/%d@%d: %w", w.opts.Input, n, m.SourceOffset, err)
	}
	f := asRow(&w.ev.Click, w.ev.Country, header(m.Headers, geoHeader), w.ip[:0])
	if _, full := w.row(&f); c.rows > 0 && !c.has(rowDiffers) && full != c.row {
		w.found(Different, Outbox, n, m.SourceOffset, nil, "the outbox message is not the row")
	} else if c.has(decodes) && w.click(&w.ev.Click) != c.text {
		w.found(Different, Outbox, n, m.SourceOffset, nil, "the outbox message is not the click of the input")
	}
	return nil
}
