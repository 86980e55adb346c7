package audit

import (
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/outbox"
)

// store writes the world to both stores. hash is what each ledger entry's hash column gets.
func (w *world) store(hash func(*ledger.Entry) []byte) {
	_, err := w.db.Exec(w.ctx, `SELECT exactly_make_time_partitions('2026-01-01', '2026-01-02')`)
	require.NoError(w.t, err)
	topics, err := w.adm.ListTopics(w.ctx, w.opts.Input)
	require.NoError(w.t, err)
	w.exec(`INSERT INTO sources (topic, topic_id, cluster_id, group_id, outputs) VALUES ($1, $2, '', $3, '{}')`, w.opts.Input, [16]byte(topics[w.opts.Input].ID), w.opts.Group)
	for p, o := range w.offsets {
		w.exec(`INSERT INTO partition_offsets (source_id, source_partition, next_offset, published_at_least, ledger_seq, ledger_head) VALUES (1, $1, $2, $3, $4, $5)`,
			p, o.next, o.floor, o.seq, notNull(o.head))
	}
	b := &pgx.Batch{}
	for i := range w.ledger {
		e := &w.ledger[i]
		queueEntry(b, e, hash(e))
	}
	for i := range w.rows {
		queueRow(b, &w.rows[i])
	}
	for i := range w.outbox {
		queueMessage(b, &w.outbox[i])
	}
	for _, d := range w.dead {
		b.Queue(`INSERT INTO dead_letters (source_id, source_partition, source_offset, error_class, error_stage, error_message, key, value, headers, created_at)
			VALUES (1, $1, $2, 'decode', 'parse', $7, $3, $4, $5, $6)`, d.part, d.offset, d.key, d.value, outbox.AppendHeaders(nil, []outbox.Header{{Key: "null"}}), d.at, d.message)
	}
	require.NoError(w.t, w.db.SendBatch(w.ctx, b).Close())
	p := w.producer()
	for _, txn := range w.publish {
		if len(txn) > 0 {
			w.transaction(p, kgo.TryCommit, records(txn)...)
		}
	}
	w.commitGroup(w.group)
}

func queueEntry(b *pgx.Batch, e *ledger.Entry, hash []byte) {
	b.Queue(`INSERT INTO offset_ledger (`+ledger.Columns+`) VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17,$18,$19,$20,$21)`,
		e.SourceID, e.Partition, e.Seq, string(e.Kind), e.From, e.To, e.Records, e.Rows, e.DeadLetters, e.Events, notNull(e.Digest), notNull(e.PrevHash), e.Epoch,
		e.Worker, e.Why, e.Who, e.Build, e.Schemas, e.Geo, e.CommittedAt, notNull(hash))
}

func queueRow(b *pgx.Batch, r *rowRec) {
	b.Queue(`INSERT INTO enriched_clicks VALUES ($1,$2,$3,$4,$5,$6,$7,$8::text::inet,$9,$10,$11)`, r.source, r.part, r.offset, r.click.UserID, r.click.SessionID,
		time.UnixMilli(r.click.TimestampMs), r.click.URL, r.click.IP, r.country, r.geo, r.at)
}

func queueMessage(b *pgx.Batch, m *message) {
	b.Queue(`INSERT INTO outbox VALUES (1,$1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12)`, m.part, m.SourceOffset, m.Seq, m.Topic, m.Partition, m.TimestampMs, m.Key, m.Value,
		outbox.AppendHeaders(nil, m.Headers), m.at, m.salt[:], m.record[:])
}

func notNull(b []byte) []byte { return append([]byte{}, b...) }

func records(ms []message) (out []*kgo.Record) {
	for _, m := range ms {
		r := &kgo.Record{Topic: m.Topic, Partition: m.Partition, Timestamp: time.UnixMilli(m.TimestampMs), Key: m.Key, Value: m.Value}
		for _, h := range m.Headers {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		out = append(out, r)
	}
	return out
}

func (w *world) commitGroup(at map[int32]int64) {
	offsets := kadm.Offsets{}
	for p, o := range at {
		offsets.AddOffset(w.opts.Input, p, o, -1)
	}
	if len(offsets) > 0 {
		require.NoError(w.t, w.adm.CommitAllOffsets(w.ctx, w.opts.Group, offsets))
	}
}
