package heal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/offsets"
	"github.com/exactly-pipeline/exactly/internal/retention"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/outbox"
)

// reach is from when on the outbox is kept: what was captured before is in time partitions that were dropped.
type reach struct{ since time.Time }

func (r *reach) read(ctx context.Context, db *pgxpool.Pool) error {
	var oldest *time.Time
	// The default partition takes what no day was made for; it is the one that is left when the days are excluded.
	err := db.QueryRow(ctx, `WITH days AS (SELECT min(to_timestamp(substring(inhrelid::regclass::text FROM '_(\d{8})"?$') || '+00', 'YYYYMMDDTZH')) AS first
		FROM pg_inherits WHERE inhparent = 'outbox'::regclass)
		SELECT least(first, (SELECT min(created_at) FROM outbox WHERE created_at < (SELECT first FROM days))) FROM days`).Scan(&oldest)
	if err != nil {
		return fmt.Errorf("ask for the outbox's time partitions: %w", err)
	}
	if oldest != nil {
		r.since = *oldest
	}
	return nil
}

// of is from which source offset on the outbox has the events of a partition, and how many it has not.
func (r *reach) of(ctx context.Context, db *pgxpool.Pool, source int16, p *offsets.Partition) (low, beyond int64, err error) {
	err = db.QueryRow(ctx, `SELECT coalesce(max(to_offset), $4), coalesce(sum(events), 0)::bigint FROM offset_ledger
		WHERE source_id = $1 AND source_partition = $2 AND kind IN ('capture', 'heal') AND from_offset < to_offset AND captured_at < $3`,
		source, p.ID, r.since, p.Begin).Scan(&low, &beyond)
	if err != nil {
		return 0, 0, fmt.Errorf("read the ledger of partition %d: %w", p.ID, err)
	}
	return low, beyond, nil
}

// captures is a stretch of ledger entries: the source offsets [from, to), written between first and last, of which the ledger counts events.
type captures struct {
	from, to, events int64
	first, last      time.Time
}

// next are the captures from an offset on, as many as have about limit events. to is from: there are none.
func (h *kafka) next(ctx context.Context, p *owed, from int64) (captures, error) {
	c := captures{from: from, to: from}
	rows, err := h.desk.DB().Query(ctx, `SELECT from_offset, to_offset, events, captured_at FROM offset_ledger WHERE source_id = $1 AND source_partition = $2
		AND kind IN ('capture', 'heal') AND from_offset < to_offset AND to_offset > $3 AND from_offset < $4 ORDER BY to_offset, seq LIMIT 1000`,
		h.desk.Source().ID, p.ID, from, p.upTo)
	if err != nil {
		return c, fmt.Errorf("read the ledger of partition %d: %w", p.ID, err)
	}
	var begin, end, events int64
	var at time.Time
	full := errors.New("full")
	_, err = pgx.ForEachRow(rows, []any{&begin, &end, &events, &at}, func() error {
		if end <= c.to {
			return nil
		}
		if c.events > 0 && c.events+events > int64(h.maxRecords) {
			return full
		}
		if c.first.IsZero() || at.Before(c.first) {
			c.first = at
		}
		if at.After(c.last) {
			c.last = at
		}
		c.to = end
		c.events += events
		return nil
	})
	if err != nil && !errors.Is(err, full) {
		return c, fmt.Errorf("read the ledger of partition %d: %w", p.ID, err)
	}
	return c, nil
}

// compare counts what is to be published again, and refuses what can't be, before anything is.
func (h *kafka) compare(ctx context.Context) error {
	for _, p := range h.parts {
		for at := p.low; at < p.upTo; {
			c, err := h.next(ctx, p, at)
			if err != nil {
				return err
			}
			if c.to == at {
				break
			}
			n := int64(0)
			rows, err := h.desk.DB().Query(ctx, `SELECT source_offset, topic, partition, erased_at IS NOT NULL FROM outbox WHERE created_at BETWEEN $5 AND $6
				AND source_id = $1 AND source_partition = $2 AND source_offset >= $3 AND source_offset < $4`, h.desk.Source().ID, p.ID, c.from, c.to, c.first, c.last)
			if err != nil {
				return fmt.Errorf("read the outbox of partition %d: %w", p.ID, err)
			}
			var offset int64
			var topic string
			var target int32
			var erased bool
			_, err = pgx.ForEachRow(rows, []any{&offset, &topic, &target, &erased}, func() error {
				n++
				if offset < p.upTo {
					return h.judge(p, offset, topic, target, erased)
				}
				return nil
			})
			if err != nil {
				return err
			}
			if n != c.events {
				return refuse(p.ID, "the outbox holds %d messages of offsets [%d,%d), the ledger counted %d: a time partition was dropped, or rows were changed; exactly audit",
					n, c.from, c.to, c.events)
			}
			at = c.to
		}
		if p.disorder > 0 && !h.o.OutOfOrder && !h.o.DryRun {
			return refuse(p.ID, "%d events are missing, and later ones of the same record keys are there already: published now they would come behind them. To have them in order, stop all "+
				"workers, delete the topic, and run this again; to go on all the same: --out-of-order", p.disorder)
		}
	}
	return nil
}

// judge says what is to become of an outbox message that was published once.
func (h *kafka) judge(p *owed, offset int64, topic string, target int32, erased bool) error {
	t := h.topics[topic]
	if t == nil {
		return refuse(p.ID, "the outbox message of offset %d is for topic %s, which is no output of this source", offset, topic)
	}
	if p.found[topic].has(offset) {
		return nil
	}
	s, any := t.seen[[2]int32{target, p.ID}]
	switch {
	case erased:
		p.erased++
	case t.starts[target] > 0 && (!any || offset < s.first):
		p.expired++
	case t.is != "" && int(target) >= t.partitions:
		return refuse(p.ID, "the event of offset %d belongs into partition %d of %s, which has %d: delete the topic and create it with as many as it had", offset, target, topic, t.partitions)
	default:
		p.missing[topic]++
		if any && offset < s.last {
			p.disorder++
			p.lateIn(topic, offset)
		}
	}
	return nil
}

// publish publishes what is missing of a partition, in the order of source offsets, in transactions of bounded size.
func (h *kafka) publish(ctx context.Context, p *owed) error {
	if len(p.missing) == 0 {
		return nil
	}
	tx := &transaction{h: h, p: p}
	for at := p.low; at < p.upTo; {
		c, err := h.next(ctx, p, at)
		if err != nil {
			return err
		}
		if c.to == at {
			break
		}
		rows, err := h.desk.DB().Query(ctx, `SELECT source_offset, seq, topic, partition, "timestamp", key, value, headers FROM outbox WHERE created_at BETWEEN $5 AND $6
			AND source_id = $1 AND source_partition = $2 AND source_offset >= $3 AND source_offset < $4 AND erased_at IS NULL ORDER BY source_offset, seq`,
			h.desk.Source().ID, p.ID, c.from, min(c.to, p.upTo), c.first, c.last)
		if err != nil {
			return fmt.Errorf("read the outbox of partition %d: %w", p.ID, err)
		}
		for rows.Next() {
			var m outbox.Message
			var headers []byte
			err := rows.Scan(&m.SourceOffset, &m.Seq, &m.Topic, &m.Partition, &m.TimestampMs, &m.Key, &m.Value, &headers)
			if err == nil {
				m.Headers, err = outbox.ParseHeaders(headers)
			}
			if err == nil {
				err = tx.produce(ctx, &m)
			}
			if err != nil {
				rows.Close()
				return tx.abort(ctx, fmt.Errorf("publish partition %d, offset %d again: %w", p.ID, m.SourceOffset, err))
			}
		}
		if err := rows.Err(); err != nil {
			return tx.abort(ctx, fmt.Errorf("read the outbox of partition %d: %w", p.ID, err))
		}
		at = c.to
	}
	return tx.commit(ctx)
}

// transaction is the one that is open, if any.
type transaction struct {
	h       *kafka
	p       *owed
	n       int64
	bytes   int
	offset  int64 // of the record last produced
	context context.Context
	cancel  context.CancelFunc
}

func (tx *transaction) produce(ctx context.Context, m *outbox.Message) error {
	h, t := tx.h, tx.h.topics[m.Topic]
	s, any := t.seen[[2]int32{m.Partition, tx.p.ID}]
	if tx.p.found[m.Topic].has(m.SourceOffset) || t.starts[m.Partition] > 0 && (!any || m.SourceOffset < s.first) {
		return nil
	}
	if tx.n > 0 && m.SourceOffset != tx.offset && (tx.n >= int64(h.maxRecords) || tx.bytes >= h.maxBytes) {
		if err := tx.commit(ctx); err != nil {
			return err
		}
	}
	if tx.n == 0 {
		tx.context, tx.cancel = context.WithTimeout(ctx, h.cfg.Kafka.TransactionTimeout)
		if err := h.p.Begin(); err != nil {
			return err
		}
	}
	tx.n++
	tx.bytes += m.Size()
	tx.offset = m.SourceOffset
	return h.p.Produce(tx.context, m)
}

func (tx *transaction) commit(ctx context.Context) error {
	if tx.n == 0 {
		return nil
	}
	failpoint.Hit(failpoint.HealProduced)
	err := tx.h.p.Commit(tx.context)
	tx.cancel()
	if err != nil {
		return fmt.Errorf("commit transaction (its outcome is unknown; run again, it looks first at what is there): %w", err)
	}
	tx.p.sent += tx.n
	tx.h.log.Debug("published again", zap.Int32("partition", tx.p.ID), zap.Int64("events", tx.n), zap.Int64("up_to", tx.offset+1))
	tx.n, tx.bytes = 0, 0
	failpoint.Hit(failpoint.HealPublished)
	return nil
}

// abort ends the transaction, if there is one: the next run would do it, but readers wait for it meanwhile.
func (tx *transaction) abort(ctx context.Context, why error) error {
	if tx.n == 0 {
		return why
	}
	defer tx.cancel()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tx.h.cfg.Kafka.TransactionTimeout)
	defer cancel()
	return errors.Join(why, tx.h.p.Abort(ctx))
}

// record writes into the ledger what was done, and which topics the outputs are from now on, in one transaction.
func (h *kafka) record(ctx context.Context) error {
	var held []*offsets.Held
	sent := int64(0)
	for _, p := range h.parts {
		held = append(held, p.held)
		sent += p.sent
	}
	anew := h.recreated() || h.headless()
	if !anew && (len(held) == 0 || sent == 0 && !h.rested()) {
		return nil
	}
	outputs := map[string]string{}
	for name, id := range h.desk.Source().TopicIDs {
		if name != h.cfg.Topics.Input {
			outputs[name] = id
		}
	}
	for name, t := range h.topics {
		outputs[name] = t.is
	}
	if h.headless() {
		outputs[h.heads.name] = h.heads.is
	}
	b, err := json.Marshal(outputs)
	if err != nil {
		return err
	}
	err = h.desk.DoAll(ctx, held, func(tx pgx.Tx) error {
		if anew {
			if _, err := tx.Exec(ctx, `UPDATE sources SET outputs = $2 WHERE source_id = $1`, h.desk.Source().ID, b); err != nil {
				return err
			}
		}
		for _, p := range h.parts {
			why := fmt.Sprintf("%s (%d events of the records [%d,%d) published again from the outbox", h.o.Reason, p.sent, p.low, p.upTo)
			if p.beyond > 0 && h.recreated() {
				why += fmt.Sprintf(", %d from before are beyond what it keeps", p.beyond)
			}
			if p.rests != "" {
				why += fmt.Sprintf("; it was begun before, held as %q, and killed: what that one published is not counted here", p.rests)
			}
			if r := h.replaced(); r != "" {
				why += "; " + r
			}
			if err := p.held.Append(ctx, tx, ledger.Deed{Kind: ledger.Heal, Events: p.sent, Why: why + h.short(p) + ")"}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("note what was done: %w", err)
	}
	return nil
}

// repost tells a topic of heads that was made anew of the erasures, which stood whole in the one before: nothing else would know them when Postgres goes
// back in time. After a heal that was killed it looks again.
func (h *kafka) repost(ctx context.Context) error {
	if h.heads.name == "" || !h.headless() && !h.rested() {
		return nil
	}
	src := h.desk.Source()
	if err := retention.RepostErasures(ctx, &h.cfg, h.desk.DB(), &src); err != nil {
		return fmt.Errorf("all is done, but: %w (exactly erase --again)", err)
	}
	return nil
}

// short is what the topics lack for good, or have in another order, at the end of an entry's reason, where the audit looks for it (audit/healed.go):
// what the entry vouches for so is no finding any more.
func (h *kafka) short(p *owed) string {
	list := func(what string, of map[string]stretch) string {
		var out []string
		for _, topic := range slices.Sorted(maps.Keys(of)) {
			out = append(out, fmt.Sprintf("%s [%d,%d)", topic, of[topic].from, of[topic].to))
		}
		if len(out) == 0 {
			return ""
		}
		return "; " + what + ": " + strings.Join(out, ", ")
	}
	gone := map[string]stretch{}
	for name, t := range h.topics {
		if t.was != t.is && p.beyond > 0 && p.Begin < p.low {
			gone[name] = stretch{p.Begin, p.low}
		}
	}
	return list("not brought back", gone) + list("out of order", p.late)
}
