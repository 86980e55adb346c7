package audit

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/outbox"
	"github.com/exactly-pipeline/exactly/schema"
)

// replay hands partition 0's dead letter in again, as a worker would have captured and published it: the pointer is record 0 of partition 0 of a topic that
// need not be there.
func (w *world) replay() (entry *ledger.Entry, m *message) {
	topic, src := w.opts.Input+"_replay", outbox.Header{Key: "exactly-source", Value: fmt.Appendf(nil, "%s_replay/0/0", w.opts.Input)}
	letter := w.dead[0]
	m = &message{part: 0, at: day2, salt: ledger.Salt{9}}
	m.Topic, m.Partition, m.TimestampMs, m.Key = w.opts.Output, 0, 1_767_225_700_000, letter.key
	m.Value = w.events.Append(nil, &schema.EnrichedClick{Click: *w.click(50), Country: "DE"})
	m.Headers = []outbox.Header{src, {Key: "exactly-geo", Value: []byte(geoBuild)}, {Key: "exactly-origin", Value: w.source(0, 8)}, {Key: "exactly-attempt", Value: []byte("1")}}
	m.record = ledger.RecordHash(m.salt, 0, 0, nil, []byte("{}"), nil)
	d, hash := ledger.NewDigest(), ledger.MessageHash(m.salt, &m.Message)
	d.Hash(m.record[:])
	d.Hash(hash[:])
	start := ledger.Entry{SourceID: 2, Seq: 1, Kind: ledger.Start, Worker: "w", CommittedAt: day2}
	entry = &ledger.Entry{SourceID: 2, Seq: 2, Kind: ledger.Capture, To: 1, Records: 1, Rows: 1, Events: 1, Epoch: 1, Worker: "w", CommittedAt: day2, PrevHash: start.Hash(), Digest: d.Sum()}
	w.exec(`INSERT INTO sources (topic, topic_id, cluster_id, group_id, outputs) VALUES ($1, gen_random_uuid(), '', $2, '{}')`, topic, w.opts.Group+"-replay")
	w.exec(`INSERT INTO partition_offsets (source_id, source_partition, next_offset, published_at_least, ledger_seq, ledger_head) VALUES (2, 0, 1, 1, 2, $1)`, entry.Hash())
	b := &pgx.Batch{}
	queueEntry(b, &start, start.Hash())
	queueEntry(b, entry, entry.Hash())
	queueRow(b, &rowRec{2, 0, 0, *w.click(50), "DE", geoBuild, day2})
	b.Queue(`INSERT INTO outbox VALUES (2,0,0,0,$1,$2,$3,$4,$5,$6,$7,$8,$9)`, m.Topic, m.Partition, m.TimestampMs, m.Key, m.Value, outbox.AppendHeaders(nil, m.Headers), m.at, m.salt[:], m.record[:])
	b.Queue(`INSERT INTO replay_captures (source_id, source_partition, source_offset, of_source_id, of_partition, of_offset, attempt) VALUES (2, 0, 0, 1, 0, 8, 1)`)
	require.NoError(w.t, w.db.SendBatch(w.ctx, b).Close())
	return entry, m
}

// A replay's row, outbox message, event, ledger and heads are held against each other like those of the input, but for its input, which is a pointer.
func TestReplays(t *testing.T) {
	t.Parallel()
	send := func(w *world, m *message) {
		require.NoError(w.t, w.cl.ProduceSync(w.ctx, records([]message{*m})...).FirstErr())
	}
	row := ` WHERE source_id = 2`
	for _, c := range []struct {
		name   string
		events int
		event  func(*world, *message)
		after  func(*world)
		want   []string
		says   string
	}{
		{name: "nothing", events: 1, want: []string{}},
		{name: "row", events: 1, after: sql(`UPDATE enriched_clicks SET url = 'x'` + row), want: []string{"different rows 0@8"}, says: "its replay"},
		{name: "row gone", events: 1, after: sql(`DELETE FROM enriched_clicks` + row), want: []string{"ledger_gap ledger -1#2", "missing rows 0@8"}},
		{name: "row that no pointer is of", events: 1, after: sql(`DELETE FROM replay_captures`), want: []string{"unexplained rows"}},
		{name: "event missing", want: []string{"missing events 0@8"}},
		{name: "event twice", events: 2, want: []string{"duplicate events 0@8"}},
		{name: "event", events: 1, event: func(w *world, m *message) { m.Value = w.enriched(51, "DE") }, want: []string{"different events 0@8"}},
		{name: "event of a pointer that is not captured", events: 1, event: func(w *world, m *message) {
			one := *m
			one.Headers = []outbox.Header{{Key: "exactly-source", Value: fmt.Appendf(nil, "%s_replay/0/1", w.opts.Input)}}
			send(w, &one)
		}, want: []string{"out_of_order events 0@8", "unexplained events"}}, // it was sent first
		{name: "outbox", events: 1, after: sql(`UPDATE outbox SET key = 'x'` + row), want: []string{"different events 0@8", "ledger_digest ledger -1#2"}},
		{name: "outbox gone", events: 1, after: sql(`DELETE FROM outbox` + row), want: []string{"ledger_digest ledger -1#2", "ledger_gap ledger -1#2", "missing outbox 0@8"}},
		{name: "ledger", events: 1, after: sql(`SET session_replication_role = replica; UPDATE offset_ledger SET worker = 'x' WHERE source_id = 2 AND seq = 2`), want: []string{"ledger_chain ledger -1#2"}},
		{name: "stored offset", events: 1, after: sql(`UPDATE partition_offsets SET next_offset = 2 WHERE source_id = 2`), want: []string{"ledger_gap ledger -1#2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := consistent(t)
			w.store(ownHash)
			_, m := w.replay()
			if c.event != nil {
				c.event(w, m)
			}
			for range c.events {
				send(w, m)
			}
			if c.after != nil {
				c.after(w)
			}
			rep, err := Run(w.ctx, w.opts)
			require.NoError(t, err)
			got := []string{}
			for _, f := range rep.Findings {
				at := " " + f.Coordinate()
				if f.Partition < 0 && f.Sink != Ledger {
					at = ""
				}
				got = append(got, fmt.Sprintf("%s %s%s", f.Class, f.Sink, at))
			}
			require.ElementsMatch(t, c.want, got, sentences(rep))
			require.Contains(t, sentences(rep), c.says)
		})
	}
}

// The heads of replays' ledger are held against it, too.
func TestReplaysHeads(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.store(ownHash)
	e, m := w.replay()
	require.NoError(t, w.cl.ProduceSync(w.ctx, records([]message{*m})...).FirstErr())
	w.publishHeads(nil)
	h := headJSON{V: 1, SourceID: 2, Topic: w.opts.Input + "_replay", Group: w.opts.Group + "-replay", Seq: 2, Hash: fmt.Sprintf("%x", e.Hash()), To: 1, Kind: "capture"}
	w.publishHead(nil, h)
	rep := w.audit()
	require.True(t, rep.Clean(), sentences(rep))
	h.Hash = "00"
	w.publishHead(nil, h)
	rep = w.audit()
	require.EqualValues(t, 1, rep.BySink[LedgerChain][Heads], sentences(rep))
}

// A replay's event may be hidden by an open transaction, as any event: that is not known to be missing.
func TestReplayHidden(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.store(ownHash)
	_, m := w.replay()
	w.open(w.producer(), records(w.messages(0, 1, 2))...)
	require.NoError(t, w.cl.ProduceSync(w.ctx, records([]message{*m})...).FirstErr())
	w.opts.UndecidedIn = 1
	rep := w.audit()
	require.Equal(t, []string{"undecided events 0@8"}, said(rep), sentences(rep))
}

// Whoever waits for the snapshot to end, to make or drop a time partition, does not keep the audit from its end: it would wait for them, and they for it.
func TestWaitedForByDDL(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.store(ownHash)
	_, m := w.replay()
	require.NoError(t, w.cl.ProduceSync(w.ctx, records([]message{*m})...).FirstErr())
	w.publishHeads(nil)
	conn, err := pgx.Connect(w.ctx, w.opts.DSN)
	require.NoError(t, err)
	defer conn.Close(context.Background()) //nolint:errcheck // the test ends
	locked := make(chan error, 1)
	at(w, "ledger heads", func() {
		go func() {
			locked <- pgx.BeginFunc(w.ctx, conn, func(tx pgx.Tx) error {
				_, err := tx.Exec(w.ctx, `LOCK TABLE enriched_clicks, outbox, dead_letters IN ACCESS EXCLUSIVE MODE`)
				return err
			})
		}()
		require.Eventually(t, func() bool {
			var waits bool
			require.NoError(t, w.db.QueryRow(w.ctx, `SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'enriched_clicks'::regclass AND NOT granted)`).Scan(&waits))
			return waits
		}, time.Minute, 10*time.Millisecond)
	})
	rep := w.audit()
	require.True(t, rep.Clean(), sentences(rep))
	require.NoError(t, <-locked)
}
