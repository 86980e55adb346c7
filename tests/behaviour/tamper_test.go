package behaviour

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/connect"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/outbox"
)

// victim is a finished pipeline, and what of its source partition is tampered with: two clicks of one capture, a dead letter, that capture's entry.
type victim struct {
	*bundle
	conn                *pgx.Conn
	kafka               *kgo.Client
	part                int32
	one, two, dead, end int64
	entry, deed         int64
	heads               string
}

// tampering is one thing that somebody with every right in Postgres, or in Kafka, does, and what the audit must say of it, at least.
type tampering struct {
	name string
	do   func(*victim)
	want []string // "class sink coordinate": ONE, TWO, DEAD and END are source offsets, ENTRY and DEED are ledger entries
}

// sql is run with $PART, $ONE, … put in.
func sql(statements ...string) func(*victim) {
	return func(v *victim) {
		for _, s := range statements {
			_, err := v.conn.Exec(v.ctx, v.fill(s))
			require.NoError(v.t, err, s)
		}
	}
}

func (v *victim) fill(s string) string {
	return strings.NewReplacer("PART", fmt.Sprint(v.part), "ONE", fmt.Sprint(v.one), "TWO", fmt.Sprint(v.two), "DEAD", fmt.Sprint(v.dead), "END", fmt.Sprint(v.end),
		"ENTRY", fmt.Sprint(v.entry), "DEED", fmt.Sprint(v.deed), "NEXT", fmt.Sprint(v.entry+1)).Replace(s)
}

const (
	row     = ` WHERE source_partition = PART AND source_offset = ONE`
	other   = ` WHERE source_partition = PART AND source_offset = TWO`
	dead    = ` WHERE source_partition = PART AND source_offset = DEAD`
	entry   = ` WHERE source_partition = PART AND seq = ENTRY`
	columns = `source_id, source_partition, source_offset, user_id, session_id, "timestamp", url, ip, country, geo_build`
)

// inPostgres are undone before the next.
var inPostgres = []tampering{
	{"a row's url", sql(`UPDATE enriched_clicks SET url = url || 'x'` + row), []string{"different rows PART@ONE"}},
	{"a row's country", sql(`UPDATE enriched_clicks SET country = 'LI'` + row), []string{"different rows PART@ONE"}},
	{"a row's geo build", sql(`UPDATE enriched_clicks SET geo_build = 'x'` + row), []string{"different rows PART@ONE"}},
	{"a row blanked without an erasure", sql(`UPDATE enriched_clicks SET user_id = 0, session_id = '', url = '', ip = '::', country = 'ZZ'` + row), []string{"different rows PART@ONE"}},
	{"a row removed", sql(`DELETE FROM enriched_clicks` + row), []string{"missing rows PART@ONE", "ledger_gap ledger PART#ENTRY"}},
	{"a row made up", sql(`INSERT INTO enriched_clicks (` + columns + `) SELECT source_id, source_partition, END, user_id, session_id, "timestamp", url, ip, country, geo_build FROM enriched_clicks` + row),
		[]string{"unexplained rows PART@END"}},
	{"a row twice", sql(`INSERT INTO enriched_clicks (` + columns + `, captured_at) SELECT ` + columns + `, captured_at - interval '9 days' FROM enriched_clicks` + row),
		[]string{"duplicate rows PART@ONE", "ledger_gap ledger PART#ENTRY"}},
	{"two rows swapped", swap("enriched_clicks"), []string{"different rows PART@ONE", "different rows PART@TWO"}},
	{"a dead letter removed", sql(`DELETE FROM dead_letters` + dead), []string{"missing dead_letters PART@DEAD"}},
	{"a dead letter's bytes", sql(`UPDATE dead_letters SET value = value || '\x00'` + dead), []string{"different dead_letters PART@DEAD"}},
	{"a dead letter's error", sql(`UPDATE dead_letters SET error_message = 'x'` + dead), []string{"different dead_letters PART@DEAD"}},
	{"a dead letter's headers", sql(`UPDATE dead_letters SET headers = '\x01016101'` + dead), []string{"different dead_letters PART@DEAD"}},
	{"a day of the outbox dropped", func(v *victim) {
		rows, err := v.conn.Query(v.ctx, `SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'outbox'::regclass AND inhrelid <> 'outbox_default'::regclass`)
		require.NoError(v.t, err)
		days, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(v.t, err)
		for _, day := range days {
			sql(`DROP TABLE ` + day)(v)
		}
		sql(`INSERT INTO outbox SELECT * FROM saved.outbox WHERE NOT (source_partition = PART AND source_offset IN (ONE, TWO))`)(v) // or its hundreds would hide these two
	}, []string{"missing outbox PART@ONE", "missing outbox PART@TWO", "ledger_digest ledger PART#ENTRY"}},
	{"an outbox byte", sql(`UPDATE outbox SET value = set_byte(value, length(value) - 1, get_byte(value, length(value) - 1) # 1)` + row),
		[]string{"different events PART@ONE", "ledger_digest ledger PART#ENTRY"}},
	{"an outbox message removed", sql(`DELETE FROM outbox` + row), []string{"missing outbox PART@ONE", "ledger_digest ledger PART#ENTRY"}},
	{"two outbox messages swapped", swap("outbox"), []string{"different outbox PART@ONE", "different outbox PART@TWO", "ledger_digest ledger PART#ENTRY"}},
	{"a record's hash", sql(`UPDATE outbox SET record_hash = sha256('x')` + row), []string{"ledger_digest ledger PART#ENTRY"}},
	{"a click gone from every table", sql(`DELETE FROM outbox`+row, `DELETE FROM enriched_clicks`+row),
		[]string{"missing outbox PART@ONE", "missing rows PART@ONE", "ledger_gap ledger PART#ENTRY"}},
	{"a ledger field", sql(`UPDATE offset_ledger SET worker = 'somebody'` + entry), []string{"ledger_chain ledger PART#ENTRY"}},
	{"an entry's time", sql(`UPDATE offset_ledger SET committed_at = committed_at - interval '1 second'` + entry), []string{"ledger_chain ledger PART#ENTRY"}},
	{"an entry removed", sql(`DELETE FROM offset_ledger` + entry), []string{"ledger_chain ledger PART#NEXT", "ledger_gap ledger PART#NEXT"}},
	{"counts, and every hash made anew", rechain(func(v *victim, es []ledger.Entry) []ledger.Entry {
		es[v.entry-1].Rows--
		es[v.entry-1].DeadLetters++
		return es
	}),
		[]string{"ledger_gap ledger PART#ENTRY", "ledger_chain heads"}},
	{"a digest, and every hash made anew", rechain(func(v *victim, es []ledger.Entry) []ledger.Entry {
		es[v.entry-1].Digest = bytes.Repeat([]byte{7}, 32)
		return es
	}), []string{"ledger_digest ledger PART#ENTRY", "ledger_chain heads"}},
	{"who did a deed, and every hash made anew", rechain(func(v *victim, es []ledger.Entry) []ledger.Entry { es[v.deed-1].Who = "bob"; return es }),
		[]string{"ledger_chain heads"}},
	{"a deed removed, and every number and hash made anew", rechain(func(v *victim, es []ledger.Entry) []ledger.Entry {
		es = slices.Delete(es, int(v.deed-1), int(v.deed))
		for i := range es {
			es[i].Seq = int64(i + 1)
		}
		return es
	}), []string{"ledger_chain heads"}},
	{"an entry removed, and every number and hash made anew", rechain(func(v *victim, es []ledger.Entry) []ledger.Entry {
		es = slices.Delete(es, int(v.entry-1), int(v.entry))
		for i := range es {
			es[i].Seq = int64(i + 1)
		}
		return es
	}), []string{"ledger_gap ledger PART#ENTRY", "ledger_chain heads"}},
	{"a capture made a loss that somebody accepted, and every hash made anew", func(v *victim) {
		rechain(func(v *victim, es []ledger.Entry) []ledger.Entry {
			e := &es[v.entry-1]
			e.Kind, e.Records, e.Rows, e.DeadLetters, e.Events, e.Digest, e.Who, e.Why = ledger.AcceptLoss, 0, 0, 0, 0, nil, "ada", "expired"
			for _, table := range []string{"enriched_clicks", "dead_letters", "outbox"} {
				_, err := v.conn.Exec(v.ctx, `DELETE FROM `+table+` WHERE source_partition = $1 AND source_offset >= $2 AND source_offset < $3`, v.part, e.From, e.To)
				require.NoError(v.t, err)
			}
			return es
		})(v)
	}, []string{"ledger_chain heads"}},
	{"the tail removed, with all it captured", func(v *victim) {
		rechain(func(v *victim, es []ledger.Entry) []ledger.Entry {
			for _, table := range []string{"enriched_clicks", "dead_letters", "outbox"} {
				_, err := v.conn.Exec(v.ctx, `DELETE FROM `+table+` WHERE source_partition = $1 AND source_offset >= $2`, v.part, es[v.entry-1].From)
				require.NoError(v.t, err)
			}
			return es[:v.entry-1]
		})(v)
	}, []string{"group_ahead group", "ledger_chain heads"}},
	{"all of a chain removed", sql(`DELETE FROM offset_ledger WHERE source_partition = PART`), []string{"ledger_gap ledger PART#0", "ledger_chain ledger PART#0"}},
	{"the stored offset moved on", sql(`UPDATE partition_offsets SET next_offset = next_offset + 7 WHERE source_partition = PART`), []string{"ledger_gap ledger PART#DEED"}},
	{"the stored offset moved back", sql(`UPDATE partition_offsets SET next_offset = ONE WHERE source_partition = PART`), []string{"group_ahead group", "unexplained rows PART@ONE"}},
	{"the ledger's head", sql(`UPDATE partition_offsets SET ledger_head = sha256('x') WHERE source_partition = PART`), []string{"ledger_chain ledger PART#DEED"}},
	{"a count", sql(`UPDATE click_counts SET clicks = clicks + 1 WHERE (window_start, country, source_partition) = (SELECT window_start, country, source_partition FROM click_counts
		WHERE source_partition = PART ORDER BY 1, 2 LIMIT 1)`), []string{"miscounted counts"}},
	{"a click counted in another window", sql(`UPDATE click_counts SET window_start = window_start - interval '1 hour' WHERE source_partition = PART`), []string{"miscounted counts"}},
	{"which clicks are counted", sql(`UPDATE partition_offsets SET counted_from = TWO WHERE source_partition = PART`), []string{"miscounted counts"}},
	{"an erasure made up", sql(`INSERT INTO erasures (source_id, source_partition, ledger_seq, erasure, offsets, rows, messages, dead_letters, who, why)
		VALUES (1, PART, ENTRY, gen_random_uuid(), '{ONE}', 1, 1, 0, 'x', 'x')`, `UPDATE enriched_clicks SET user_id = 0, session_id = '', url = '', ip = '::', country = 'ZZ'`+row),
		[]string{"ledger_digest ledger PART#ENTRY", "different rows PART@ONE"}},
	{"a pruning made up", sql(`INSERT INTO pruned (table_name, time_partition, source_id, source_partition, from_offset, to_offset, records, published, ledger_seq, who, why)
		VALUES ('enriched_clicks', 'x', 1, PART, 0, ONE + 1, 1, END, ENTRY, 'x', 'x')`, `DELETE FROM enriched_clicks`+row),
		[]string{"ledger_digest ledger PART#ENTRY", "missing rows PART@ONE"}},
}

// inKafka can't be undone: what each adds to what is found is what counts.
var inKafka = []tampering{
	{"an event once more", func(v *victim) { v.produce(v.event(v.one)) }, []string{"duplicate events PART@ONE"}},
	{"another event of a click", func(v *victim) {
		r := v.event(v.two)
		r.Value = slices.Clone(v.event(v.one).Value)
		v.produce(r)
	}, []string{"different events PART@TWO", "duplicate events PART@TWO"}},
	{"an event without a click", func(v *victim) {
		r := v.event(v.one)
		r.Headers[0].Value = fmt.Appendf(nil, "%s/%d/%d", v.cfg.Topics.Input, v.part, v.end)
		v.produce(r)
	}, []string{"unexplained events PART@END"}},
	{"an event of a dead letter", func(v *victim) {
		r := v.event(v.one)
		r.Headers[0].Value = fmt.Appendf(nil, "%s/%d/%d", v.cfg.Topics.Input, v.part, v.dead)
		v.produce(r)
	}, []string{"unexplained events PART@DEAD"}},
	{"a head made up", func(v *victim) {
		var src ledger.Head
		require.NoError(v.t, v.conn.QueryRow(v.ctx, `SELECT source_id, topic_id::text FROM sources`).Scan(&src.SourceID, &src.TopicID))
		s := ledger.Stream{SourceID: src.SourceID, Topic: v.cfg.Topics.Input, TopicID: src.TopicID, Group: v.cfg.Group}
		h := s.Head(&ledger.Entry{SourceID: src.SourceID, Partition: v.part, Seq: v.entry, Kind: ledger.Capture, To: v.end}, bytes.Repeat([]byte{1}, 32))
		v.produce(&kgo.Record{Topic: v.heads, Key: h.RecordKey(), Value: h.Encode()})
	}, []string{"ledger_chain heads"}},
	{"heads removed", func(v *victim) {
		o := kadm.Offsets{}
		o.AddOffset(v.heads, 0, 3, -1)
		res, err := v.adm.Kadm().DeleteRecords(v.ctx, o)
		require.NoError(v.t, err)
		require.NoError(v.t, res.Error())
	}, []string{"missing heads"}},
	{"the group offset set back", func(v *victim) { v.commit(v.part, 0, "") }, []string{"group_behind group"}},
	{"the group offset set ahead", func(v *victim) { v.commit(v.part, v.end+5, "") }, []string{"group_ahead group"}},
}

// swap exchanges what two rows of a table say, but for where they stand.
func swap(table string) func(*victim) {
	return sql(`UPDATE `+table+` SET source_offset = -1`+row, `UPDATE `+table+` SET source_offset = ONE`+other, `UPDATE `+table+` SET source_offset = TWO WHERE source_partition = PART AND source_offset = -1`)
}

// rechain changes the partition's chain, makes every hash anew, and sets the stored offset and head to its end.
func rechain(change func(*victim, []ledger.Entry) []ledger.Entry) func(*victim) {
	return func(v *victim) {
		rows, err := v.conn.Query(v.ctx, `SELECT `+ledger.Columns+` FROM offset_ledger WHERE source_partition = $1 ORDER BY seq`, v.part)
		require.NoError(v.t, err)
		es, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (e ledger.Entry, err error) { _, err = e.Scan(r); return e, err })
		require.NoError(v.t, err)
		es = change(v, es)
		sql(`DELETE FROM offset_ledger WHERE source_partition = PART`)(v)
		var q pgx.Batch
		var hash []byte
		for i := range es {
			es[i].PrevHash = hash
			hash = es[i].Queue(&q)
		}
		last := es[len(es)-1]
		q.Queue(`UPDATE partition_offsets SET next_offset = $2, ledger_seq = $3, ledger_head = $4, published_at_least = least(published_at_least, $2) WHERE source_partition = $1`, v.part, last.To, last.Seq, hash)
		require.NoError(v.t, v.conn.SendBatch(v.ctx, &q).Close())
	}
}

// event is a record as it was published.
func (v *victim) event(offset int64) *kgo.Record {
	var headers []byte
	r := &kgo.Record{}
	require.NoError(v.t, v.conn.QueryRow(v.ctx, `SELECT topic, partition, key, value, headers FROM outbox WHERE source_partition = $1 AND source_offset = $2`, v.part, offset).
		Scan(&r.Topic, &r.Partition, &r.Key, &r.Value, &headers))
	hs, err := outbox.ParseHeaders(headers)
	require.NoError(v.t, err)
	for _, h := range hs {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	at := slices.IndexFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == "exactly-source" })
	r.Headers[0], r.Headers[at] = r.Headers[at], r.Headers[0] // callers put another in its place
	return r
}

func (v *victim) produce(r *kgo.Record) {
	require.NoError(v.t, v.kafka.ProduceSync(v.ctx, r).FirstErr())
}

// found is what the audit says, each as "class sink coordinate", what is told by heads, counts or a group offset as "class sink".
func (v *victim) found() (said []string, all string) {
	o, err := connect.Audit(&v.cfg)
	require.NoError(v.t, err)
	rep, err := audit.Run(v.ctx, o)
	require.NoError(v.t, err)
	for _, f := range rep.Findings {
		require.Contains(v.t, []int32{v.part, -1}, f.Partition, "something is found in another partition: %s", f.Says)
		at := " " + f.Coordinate()
		if f.Sink == audit.Group || f.Sink == audit.Heads || f.Sink == audit.Counts || f.Partition < 0 {
			at = ""
		}
		said = append(said, fmt.Sprintf("%s %s%s", f.Class, f.Sink, at))
		all += fmt.Sprintf("%s %s %s: %s\n", f.Class, f.Sink, f.Coordinate(), f.Says)
	}
	return said, all
}

// pick chooses what is tampered with.
func pick(b *bundle) *victim {
	v := &victim{bundle: b, heads: b.cfg.Ledger.HeadsTopic}
	var err error
	v.conn, err = pgx.Connect(b.ctx, b.cfg.Postgres.DSN)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { _ = v.conn.Close(b.ctx) })
	v.kafka, err = kgo.NewClient(append(admin.Options(&b.cfg), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	require.NoError(b.t, err)
	b.t.Cleanup(v.kafka.Close)
	require.NoError(b.t, v.conn.QueryRow(b.ctx, `SELECT source_partition, source_offset FROM dead_letters ORDER BY 1, 2 LIMIT 1`).Scan(&v.part, &v.dead))
	// two clicks of one capture that is neither the first nor the last
	require.NoError(b.t, v.conn.QueryRow(b.ctx, `SELECT l.seq, min(c.source_offset), max(c.source_offset) FROM offset_ledger l JOIN enriched_clicks c USING (source_id, source_partition)
		WHERE source_partition = $1 AND kind = 'capture' AND source_offset >= from_offset AND source_offset < to_offset AND from_offset > 0 GROUP BY 1 HAVING count(*) > 1 ORDER BY 1 LIMIT 1`, v.part).
		Scan(&v.entry, &v.one, &v.two))
	b.exactly("offsets", "hold", "--partition", fmt.Sprint(v.part), "--reason", "looking into it", "--by", "ada")
	require.NoError(b.t, v.conn.QueryRow(b.ctx, `SELECT next_offset, ledger_seq FROM partition_offsets WHERE source_partition = $1`, v.part).Scan(&v.end, &v.deed))
	require.Greater(b.t, v.deed, v.entry+1, "too few captures to tamper with")
	return v
}

// save keeps the tables as they are; the result puts them back.
func (v *victim) save() (back func()) {
	tables := []string{"enriched_clicks", "dead_letters", "outbox", "offset_ledger", "partition_offsets", "erasures", "pruned", "click_counts"}
	statements := []string{`CREATE SCHEMA saved`}
	for _, t := range tables {
		statements = append(statements, `CREATE TABLE saved.`+t+` AS TABLE `+t)
	}
	sql(append(statements, `SET session_replication_role = replica`)...)(v) // no trigger stops who may do this
	return func() {
		for _, t := range tables {
			insert := `INSERT INTO ` + t + ` TABLE saved.` + t
			if t == "pruned" {
				insert = `SELECT 1`
			}
			sql(`DELETE FROM `+t, insert)(v)
		}
	}
}

// Whatever somebody bends, in either store, with every right there, is found and named, and nothing else is.
func TestTampering(t *testing.T) {
	b := setup(t, counting, "EXACTLY_LEDGER_HEADS_TOPIC=tampered_heads", "EXACTLY_BATCH_MAX_RECORDS=100")
	for range 3 {
		b.exactly("generate", "--rate", "0", "--count", "600", "--seed", fmt.Sprint(b.sent+1), "--bad-share", "0.02")
		b.sent += 600
		w := b.start("a")
		b.until("all are stored and published", func() bool { return b.stored() == b.sent && b.published() == b.sent })
		w.stop()
	}
	v := pick(b)
	said, all := v.found()
	require.Empty(t, said, all)
	// whoever has no superuser's rights can't even begin
	_, err := v.conn.Exec(b.ctx, v.fill(`UPDATE offset_ledger SET worker = 'x'`+entry))
	require.ErrorContains(t, err, "append-only")

	check := func(x tampering) {
		x.do(v)
		said, all := v.found()
		for _, w := range x.want {
			require.Contains(t, said, v.fill(w), "%s:\n%s", x.name, all)
		}
		t.Logf("found: %s: %s", x.name, v.fill(strings.Join(x.want, ", ")))
	}
	back := v.save()
	for _, x := range inPostgres {
		check(x)
		back()
	}
	said, all = v.found()
	require.Empty(t, said, all)
	for _, x := range inKafka {
		check(x)
	}
	out, code := b.try("audit", "--json")
	require.Equal(t, 3, code)
	var rep audit.Report
	require.NoError(t, json.Unmarshal([]byte(out), &rep), out)
	require.NotEmpty(t, rep.Findings)
	require.GreaterOrEqual(t, len(inPostgres)+len(inKafka), 25)
}
