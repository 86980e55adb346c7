package audit

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/schema"
)

// damage is one thing wrong, and all that the audit must say of it.
type damage struct {
	name   string
	before func(*world)               // changes what will be stored
	after  func(*world)               // changes what is stored
	hash   func(*ledger.Entry) []byte // what the ledger's hash column gets; nil: the true one
	want   []string                   // "class sink coordinate", all of them
	says   string                     // in a sentence
}

const (
	countsOf02 = "ledger_gap ledger 0#2" // the entry of partition 0 that covers 0 1 2 no longer adds up
	countsOf39 = "ledger_gap ledger 0#3" // 7 8
)

var damages = []damage{
	{name: "nothing", want: []string{}},

	{name: "row deleted", after: sql(`DELETE FROM enriched_clicks WHERE source_partition = 0 AND source_offset = 1`), want: []string{"missing rows 0@1", countsOf02}},
	{name: "row twice, in two time partitions", before: func(w *world) { r := *w.row(0, 1); r.at = day2; w.rows = append(w.rows, r) },
		want: []string{"duplicate rows 0@1", countsOf02}},
	{name: "row moved to another coordinate", after: sql(`UPDATE enriched_clicks SET source_offset = 7 WHERE source_partition = 0 AND source_offset = 1`),
		before: func(w *world) { w.row(0, 7).at = day2 }, // unique within a day
		want:   []string{"missing rows 0@1", "different rows 0@7", "duplicate rows 0@7", "ledger_gap ledger 0#2", "ledger_gap ledger 0#3"}},
	{name: "row moved to a marker", after: sql(`UPDATE enriched_clicks SET source_offset = 3 WHERE source_partition = 0 AND source_offset = 1`),
		want: []string{"missing rows 0@1", "unexplained rows 0@3", countsOf02}},
	{name: "row moved to an aborted record", after: sql(`UPDATE enriched_clicks SET source_offset = 4 WHERE source_partition = 0 AND source_offset = 1`),
		want: []string{"missing rows 0@1", "unexplained rows 0@4", countsOf02}},
	{name: "row above the stored offset", after: sql(`INSERT INTO enriched_clicks SELECT source_id, source_partition, 99, user_id, session_id, "timestamp", url, ip, country, geo_build FROM enriched_clicks WHERE source_partition = 0 AND source_offset = 1`),
		want: []string{"unexplained rows 0@99"}},
	{name: "row of a partition there is not", after: sql(`INSERT INTO enriched_clicks SELECT source_id, 9, 0, user_id, session_id, "timestamp", url, ip, country, geo_build FROM enriched_clicks WHERE source_partition = 0 AND source_offset = 1`),
		want: []string{"unexplained rows 9@0"}},
	{name: "row of a source there is not", before: func(w *world) { r := *w.row(0, 1); r.source = 7; w.rows = append(w.rows, r) }, want: []string{"unexplained rows 0@1"}},
	{name: "row user_id", after: setRow(`user_id = 999`), want: []string{"different rows 0@1"}, says: "differ in user_id"},
	{name: "row session_id", after: setRow(`session_id = 'x'`), want: []string{"different rows 0@1"}, says: "session_id"},
	{name: "row timestamp by a microsecond", after: setRow(`"timestamp" = "timestamp" + '1 microsecond'`), want: []string{"different rows 0@1"}, says: "timestamp"},
	{name: "row url", after: setRow(`url = url || 'x'`), want: []string{"different rows 0@1"}, says: "url"},
	{name: "row ip", after: setRow(`ip = '192.0.2.77'`), want: []string{"different rows 0@1"}, says: "ip"},
	{name: "row netmask", after: setRow(`ip = '192.0.2.2/24'`), want: []string{"different rows 0@1"}},
	{name: "row country", after: setRow(`country = 'FR'`), want: []string{"different rows 0@1"}, says: `country ("DE", "FR")`},
	{name: "row geo_build", after: setRow(`geo_build = 'x'`), want: []string{"different rows 0@1"}, says: "geo_build"},

	{name: "event never produced", before: func(w *world) { w.unpublish(0, 1) }, want: []string{"missing events 0@1"}},
	{name: "event twice", before: again(0, 1, nil), want: []string{"duplicate events 0@1"}},
	{name: "event twice, in two partitions", before: again(0, 1, func(m *message) { m.Partition = 1 }), want: []string{"different events 0@1", "duplicate events 0@1"}},
	{name: "event in another partition", before: func(w *world) { w.event(0, 1).Partition = 1 }, want: []string{"different events 0@1"}, says: `partition ("1", "0")`},
	{name: "event key", before: func(w *world) { w.event(0, 1).Key = []byte("x") }, want: []string{"different events 0@1"}, says: "differ in key"},
	{name: "event null key", before: func(w *world) { w.event(0, 1).Key = nil }, want: []string{"different events 0@1"}, says: "differ in key"},
	{name: "event timestamp", before: func(w *world) { w.event(0, 1).TimestampMs++ }, want: []string{"different events 0@1"}, says: "timestamp_ms"},
	{name: "event value", before: func(w *world) { w.event(0, 1).Value = w.enriched(1, "FR") }, want: []string{"different events 0@1"}, says: `country ("FR", "DE")`},
	{name: "event header order", before: func(w *world) { slices.Reverse(w.event(0, 1).Headers) }, want: []string{"different events 0@1"}, says: "differ in headers"},
	{name: "event header null for empty", before: func(w *world) { w.event(0, 8).Headers[0].Value = []byte{} }, want: []string{"different dlq 0@8"}, says: "headers"},
	{name: "event without its source", before: func(w *world) { m := w.event(0, 1); m.Headers = m.Headers[1:] }, want: []string{"missing events 0@1", "unexplained events @0"}},
	{name: "event with an unreadable source", before: func(w *world) { w.event(0, 1).Headers[0].Value = []byte("in/0/01") }, want: []string{"missing events 0@1", "unexplained events @0"}},
	{name: "event of another coordinate", before: func(w *world) { w.event(0, 1).Headers[0].Value = w.source(0, 2) },
		want: []string{"missing events 0@1", "different events 0@2", "duplicate events 0@2"}},
	{name: "event without an input", before: again(0, 1, func(m *message) { m.Headers[0].Value = []byte("SOURCE/0/4") }), want: []string{"unexplained events 0@4"}},
	{name: "event above the stored offset", before: again(0, 1, func(m *message) { m.Headers[0].Value = []byte("SOURCE/0/50") }), want: []string{"unexplained events 0@50"}},
	{name: "event of a partition there is not", before: again(0, 1, func(m *message) { m.Headers[0].Value = []byte("SOURCE/7/0") }), want: []string{"unexplained events 7@0"}},
	{name: "events swapped", before: func(w *world) { t := w.publish[0]; t[1], t[2] = t[2], t[1] }, want: []string{"out_of_order events 0@1"}},
	{name: "event that is no click", before: both(0, 1, func(m *message) { m.Value = []byte{0, 1, 2} }), want: []string{"undecodable events 0@1"}},
	{name: "event and outbox agree, the input does not", before: both(0, 1, func(m *message) { m.Value = nil }), want: []string{"undecodable events 0@1"}},
	{name: "event and outbox are another click", before: func(w *world) { v := w.enriched(5, "DE"); both(0, 1, func(m *message) { m.Value = v })(w) },
		want: []string{"different events 0@1"}, says: "user_id"},
	{name: "event only in an aborted transaction", before: func(w *world) {
		gone := w.unpublish(0, 1)
		w.transaction(w.producer(), kgo.TryAbort, records([]message{gone})...)
	}, want: []string{"missing events 0@1"}},
	{name: "second event in an aborted transaction", after: func(w *world) {
		w.transaction(w.producer(), kgo.TryAbort, records(w.messages(0, 1, 2))...)
	}, want: []string{}},
	{name: "second event in an open transaction", after: func(w *world) { w.open(w.producer(), records(w.messages(0, 1, 2))...) }, want: []string{}},
	{name: "an aborted transaction right before an open one at the end", after: func(w *world) {
		a, b := w.producer(), w.producer()
		w.open(a, records(w.messages(0, 1, 2))...)
		w.open(b, records(w.messages(0, 2, 3))...)
		require.NoError(w.t, a.EndTransaction(w.ctx, kgo.TryAbort))
	}, want: []string{}},

	{name: "dead letter deleted", after: sql(`DELETE FROM dead_letters WHERE source_partition = 0 AND source_offset = 8`), want: []string{"missing dead_letters 0@8", countsOf39}},
	{name: "dead letter twice", before: func(w *world) { d := w.dead[0]; d.at = day2; w.dead = append(w.dead, d) }, want: []string{"duplicate dead_letters 0@8", countsOf39}},
	{name: "dead letter moved", after: sql(`UPDATE dead_letters SET source_offset = 6 WHERE source_partition = 0`), want: []string{"missing dead_letters 0@8", "unexplained dead_letters 0@6", countsOf39}},
	{name: "dead letter key", after: sql(`UPDATE dead_letters SET key = 'x' WHERE source_partition = 0`), want: []string{"different dead_letters 0@8"}, says: "dead letter differ in key"},
	{name: "dead letter null value", after: sql(`UPDATE dead_letters SET value = NULL WHERE source_partition = 0`), want: []string{"different dead_letters 0@8"}, says: "value"},
	{name: "dead letter of a click that has a row", before: func(w *world) {
		i := w.input[1]
		w.dead = append(w.dead, deadRec{0, 1, i.key, i.value, day1, ""})
	}, want: []string{"duplicate dead_letters 0@1", countsOf02}},
	{name: "dead letter error class", after: setDead(`error_class = 'x'`), want: []string{"different dead_letters 0@8"}, says: "error_class"},
	{name: "dead letter error stage", after: setDead(`error_stage = 'x'`), want: []string{"different dead_letters 0@8"}, says: "error_stage"},
	{name: "dead letter error message", after: setDead(`error_message = 'x'`), want: []string{"different dead_letters 0@8"}, says: "error_message"},
	{name: "dead letter headers", after: setDead(`headers = '\x00'`), want: []string{"different dead_letters 0@8"}, says: "own_headers"},
	{name: "dead letter error message, still owed", before: func(w *world) { owed(w); w.unpublish(0, 8); w.group[0] = 8 }, after: setDead(`error_message = 'x'`), want: []string{"different outbox 0@8"}},
	{name: "dlq record never produced", before: func(w *world) { w.unpublish(0, 8) }, want: []string{"missing dlq 0@8"}},
	{name: "dlq record twice", before: again(0, 8, nil), want: []string{"duplicate dlq 0@8"}},
	{name: "dlq record of a good click", before: again(0, 1, func(m *message) { m.Topic = "DLQ" }), want: []string{"different dlq 0@1", "out_of_order dlq 0@1", "unexplained dlq 0@1"}},
	{name: "dlq record and outbox agree, the input does not", before: both(0, 8, func(m *message) { m.Value = []byte("x") }), want: []string{"different dlq 0@8", "different outbox 0@8"}, says: "value"},
	{name: "event of a dead letter", before: func(w *world) {
		m := w.messages(0, 1, 2)[0]
		m.Headers[0].Value = w.source(0, 8)
		w.publish = append(w.publish, []message{m})
	}, want: []string{"different events 0@8", "out_of_order events 0@8", "unexplained events 0@8"}},

	{name: "outbox deleted", after: sql(`DELETE FROM outbox WHERE source_partition = 0 AND source_offset = 1`), want: []string{"missing outbox 0@1", countsOf02}},
	{name: "outbox twice", before: func(w *world) { m := *w.msg(0, 1); m.Seq = 1; w.outbox = append(w.outbox, m) }, want: []string{"duplicate outbox 0@1", countsOf02}},
	{name: "outbox key", after: sql(`UPDATE outbox SET key = 'x' WHERE source_partition = 0 AND source_offset = 1`), want: []string{"different events 0@1"}, says: "event and outbox message differ in key"},
	{name: "outbox value", before: func(w *world) { w.msg(0, 1).Value = w.enriched(1, "FR") }, want: []string{"different events 0@1"}},
	{name: "outbox timestamp", after: sql(`UPDATE outbox SET "timestamp" = 1 WHERE source_partition = 0 AND source_offset = 1`), want: []string{"different events 0@1"}},
	{name: "outbox partition", after: sql(`UPDATE outbox SET partition = 1 WHERE source_partition = 0 AND source_offset = 1`), want: []string{"different events 0@1"}},
	{name: "outbox moved", after: sql(`UPDATE outbox SET source_offset = 6 WHERE source_partition = 0 AND source_offset = 1`), want: []string{"missing outbox 0@1", "unexplained outbox 0@6", countsOf02}},
	{name: "outbox headers damaged", after: sql(`UPDATE outbox SET headers = '\x05' WHERE source_partition = 0 AND source_offset = 1`), want: []string{"different events 0@1", "different outbox 0@1"}},
	{name: "outbox for another topic", after: sql(`UPDATE outbox SET topic = 'x' WHERE source_partition = 0 AND source_offset = 1`), want: []string{"different events 0@1", "unexplained outbox 0@1"}},
	{name: "outbox salt", after: sql(`UPDATE outbox SET salt = '0123456789abcdef' WHERE source_partition = 0 AND source_offset = 1`), want: []string{}},
	{name: "outbox record hash", after: sql(`UPDATE outbox SET record_hash = sha256('x') WHERE source_partition = 0 AND source_offset = 1`), want: []string{}},
	{name: "outbox without hashes", after: sql(`UPDATE outbox SET salt = NULL WHERE source_partition = 0 AND source_offset = 1`), want: []string{}},
	{name: "whole offset gone from Postgres", after: sql(`DELETE FROM outbox WHERE source_partition = 0 AND source_offset = 1`, `DELETE FROM enriched_clicks WHERE source_partition = 0 AND source_offset = 1`),
		want: []string{"missing rows 0@1", "missing outbox 0@1", countsOf02, countsOf02}},

	{name: "owed message is another click", before: func(w *world) { owed(w); w.msg(0, 9).Value = w.enriched(5, "DE") }, want: []string{"different outbox 0@9"}},
	{name: "owed message is another country", before: func(w *world) { owed(w); w.msg(0, 9).Value = w.enriched(9, "FR") }, want: []string{"different outbox 0@9"}, says: `country ("FR", "DE")`},
	{name: "owed message is no click", before: func(w *world) { owed(w); w.msg(0, 9).Value = []byte("x") }, want: []string{"undecodable outbox 0@9"}},
	{name: "owed message twice in Kafka", before: func(w *world) { owed(w); w.publish = append(w.publish, w.messages(0, 9, 10), w.messages(0, 9, 10)) }, want: []string{"duplicate events 0@9"}},
	{name: "owed message gone", before: owed, after: sql(`DELETE FROM outbox WHERE source_partition = 0 AND source_offset = 9`), want: []string{"missing outbox 0@9", "ledger_gap ledger 0#4"}},

	{name: "group offset ahead", before: func(w *world) { w.group[0] = 20 }, want: []string{"group_ahead group 0@20"}},
	{name: "group offset reset", before: func(w *world) { owed(w); w.offsets[0].floor = 10 }, want: []string{"group_behind group 0@9"}},
	{name: "group offset gone", before: func(w *world) { w.offsets[0].floor = 10; delete(w.group, 0) }, want: []string{"group_behind group 0@-1"}},
	{name: "stored offset beyond the input", after: sql(`UPDATE partition_offsets SET next_offset = 4000000000000000000 WHERE source_partition = 1`), want: []string{"ledger_gap ledger 1#2"}},
	{name: "stored offset behind", after: sql(`UPDATE partition_offsets SET next_offset = 5 WHERE source_partition = 1`),
		want: []string{"group_ahead group 1@6", "ledger_gap ledger 1#2", "unexplained events 1@5", "unexplained outbox 1@5", "unexplained rows 1@5"}},

	{name: "ledger seq gap", before: func(w *world) { w.ledger[2].Seq, w.ledger[3].Seq = 4, 5; w.seal() }, want: []string{"ledger_gap ledger 0#4"}},
	{name: "ledger entry gone", before: func(w *world) { w.ledger = slices.Delete(w.ledger, 2, 3) },
		want: []string{"ledger_chain ledger 0#4", "ledger_gap ledger 0#4", "ledger_gap ledger 0#4"}},
	{name: "ledger last entry gone", before: func(w *world) { w.ledger = slices.Delete(w.ledger, 3, 4) },
		want: []string{"ledger_chain ledger 0#3", "ledger_chain ledger 0#3", "ledger_gap ledger 0#3"}},
	{name: "ledger all gone", before: func(w *world) { w.ledger = slices.Delete(w.ledger, 4, 6) }, want: []string{"ledger_chain ledger 1#0", "ledger_chain ledger 1#0", "ledger_gap ledger 1#0"}},
	{name: "ledger overlap", before: func(w *world) {
		w.ledger[3].From = 8
		w.ledger[3].Records++
		w.ledger[3].DeadLetters++
		w.ledger[3].Events++
		w.seal()
	}, want: []string{"ledger_gap ledger 0#4"}},
	{name: "ledger hole", before: func(w *world) {
		w.ledger[3].From = 10
		w.ledger[3].Records--
		w.ledger[3].Rows--
		w.ledger[3].Events--
		w.seal()
	}, want: []string{"ledger_gap ledger 0#4"}},
	{name: "ledger second start", before: func(w *world) { w.ledger[1].Kind = ledger.Start; w.seal() }, want: []string{countsOf02, countsOf02}},
	{name: "ledger unknown kind", before: func(w *world) { w.ledger[1].Kind = "x"; w.seal() }, want: []string{countsOf02}},
	{name: "ledger without a start, from elsewhere", before: func(w *world) { w.ledger[0].Kind, w.ledger[0].From, w.ledger[0].To = "capture", 0, 0; w.seal() }, want: []string{"ledger_gap ledger 0#1"}},
	{name: "ledger counts", before: func(w *world) { e := &w.ledger[1]; e.Records, e.Rows, e.DeadLetters, e.Events = 9, 8, 7, 6; w.seal() }, want: []string{countsOf02, countsOf02, countsOf02, countsOf02}},
	{name: "ledger without hashes", hash: func(*ledger.Entry) []byte { return nil }, want: []string{
		"ledger_chain ledger 0#1", "ledger_chain ledger 0#2", "ledger_chain ledger 0#2", "ledger_chain ledger 0#3", "ledger_chain ledger 0#3", "ledger_chain ledger 0#4", "ledger_chain ledger 0#4",
		"ledger_chain ledger 0#4", "ledger_chain ledger 1#1", "ledger_chain ledger 1#2", "ledger_chain ledger 1#2", "ledger_chain ledger 1#2"}},
	{name: "ledger head", after: sql(`UPDATE partition_offsets SET ledger_head = 'x' WHERE source_partition = 0`), want: []string{"ledger_chain ledger 0#4"}},
	{name: "ledger seq of the row", after: sql(`UPDATE partition_offsets SET ledger_seq = 9 WHERE source_partition = 0`), want: []string{"ledger_chain ledger 0#4"}},

	{name: "given up by a person", before: func(w *world) {
		for o := range int64(3) {
			w.unpublish(0, o)
		}
		w.rows = slices.DeleteFunc(w.rows, func(r rowRec) bool { return r.part == 0 && r.offset < 3 })
		w.outbox = slices.DeleteFunc(w.outbox, func(m message) bool { return m.part == 0 && m.SourceOffset < 3 })
		w.ledger[1].Kind, w.ledger[1].Rows, w.ledger[1].Events, w.ledger[1].Records = ledger.AcceptLoss, 0, 0, 0
		w.seal()
	}, want: []string{}},
	{name: "started at a later offset", before: func(w *world) {
		w.unpublish(1, 0)
		w.rows = slices.DeleteFunc(w.rows, func(r rowRec) bool { return r.part == 1 && r.offset == 0 })
		w.outbox = slices.DeleteFunc(w.outbox, func(m message) bool { return m.part == 1 && m.SourceOffset == 0 })
		w.input = slices.DeleteFunc(w.input, func(r inputRec) bool { return r.part == 1 && r.offset == 0 })
		w.ledger = w.ledger[:4]
		w.entries(1, 1, 6)
	}, want: []string{}},
	{name: "row from before the start", before: func(w *world) {
		w.unpublish(1, 0)
		w.outbox = slices.DeleteFunc(w.outbox, func(m message) bool { return m.part == 1 && m.SourceOffset == 0 })
		w.input = slices.DeleteFunc(w.input, func(r inputRec) bool { return r.part == 1 && r.offset == 0 })
		w.ledger = w.ledger[:4]
		w.entries(1, 1, 6)
	}, want: []string{"unexplained rows 1@0"}},
	{name: "input written and never read", after: func(w *world) {
		require.NoError(w.t, w.cl.ProduceSync(w.ctx, w.inputRecord(1, 6, w.click(6))).FirstErr())
	}, want: []string{}},
}

// each field of an entry changed after it was written, as somebody with the right to do so could
func init() {
	for _, field := range []string{
		`source_partition = 7`, `kind = 'accept_loss'`, `from_offset = 1`, `to_offset = 4`, `records = 9`, `rows = 9`, `dead_letters = 9`, `events = 9`,
		`digest = 'x'`, `prev_hash = 'x'`, `hash = 'x'`, `epoch = 9`, `worker = 'x'`, `why = 'x'`, `committed_at = committed_at + '1 microsecond'`,
	} {
		damages = append(damages, damage{name: "ledger field " + field, after: sql(`SET session_replication_role = replica; UPDATE offset_ledger SET ` + field + ` WHERE source_partition = 0 AND seq = 2`),
			want: []string{"ledger_chain"}})
	}
}

func sql(statements ...string) func(*world) {
	return func(w *world) {
		for _, s := range statements {
			if len(s) > 3 && s[:3] == "SET" { // several at once: the simple protocol
				_, err := w.db.PgConn().Exec(w.ctx, s).ReadAll()
				require.NoError(w.t, err)
				continue
			}
			w.exec(s)
		}
	}
}

func setRow(set string) func(*world) {
	return sql(`UPDATE enriched_clicks SET ` + set + ` WHERE source_partition = 0 AND source_offset = 1`)
}

func setDead(set string) func(*world) {
	return sql(`UPDATE dead_letters SET ` + set + ` WHERE source_partition = 0 AND source_offset = 8`)
}

// again publishes the event once more at the end, changed or not. SOURCE and DLQ stand for the topics' names.
func again(part int32, offset int64, change func(*message)) func(*world) {
	return func(w *world) {
		m := w.messages(part, offset, offset+1)[0]
		if change != nil {
			change(&m)
		}
		if m.Topic == "DLQ" {
			m.Topic = w.opts.DLQ
		}
		for i, h := range m.Headers {
			if rest, ok := cutPrefix(h.Value, "SOURCE"); ok {
				m.Headers[i].Value = append([]byte(w.opts.Input), rest...)
			}
		}
		w.publish = append(w.publish, []message{m})
	}
}

func cutPrefix(b []byte, p string) ([]byte, bool) {
	if len(b) < len(p) || string(b[:len(p)]) != p {
		return nil, false
	}
	return b[len(p):], true
}

// both changes the event and its outbox message alike.
func both(part int32, offset int64, change func(*message)) func(*world) {
	return func(w *world) { change(w.event(part, offset)); change(w.msg(part, offset)) }
}

// owed leaves 9 and 10 of partition 0 captured and not published.
func owed(w *world) {
	w.unpublish(0, 9)
	w.unpublish(0, 10)
	w.group[0] = 9
}

func (w *world) enriched(n int64, country string) []byte {
	return w.events.Append(nil, &schema.EnrichedClick{Click: *w.click(n), Country: country})
}

func (w *world) source(part int32, offset int64) []byte {
	return fmt.Appendf(nil, "%s/%d/%d", w.opts.Input, part, offset)
}

// unsealed are the damages that change what an entry's digest was made of, and that the digest must tell, beside what they want.
var unsealed = map[string]bool{
	"event that is no click": true, "event and outbox agree, the input does not": true, "event and outbox are another click": true,
	"dlq record and outbox agree, the input does not": true, "outbox deleted": true, "outbox twice": true, "outbox key": true, "outbox value": true,
	"outbox timestamp": true, "outbox partition": true, "outbox moved": true, "outbox headers damaged": true, "outbox for another topic": true,
	"outbox salt": true, "outbox record hash": true, "outbox without hashes": true, "whole offset gone from Postgres": true, "owed message is another click": true,
	"owed message is another country": true, "owed message is no click": true, "owed message gone": true, "ledger hole": true,
}

func TestDamages(t *testing.T) {
	t.Parallel()
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			w := consistent(t)
			if d.before != nil {
				d.before(w)
			}
			hash := d.hash
			if hash == nil {
				hash = ownHash
			}
			w.store(hash)
			if d.after != nil {
				d.after(w)
			}
			rep := w.audit()
			if len(d.want) == 1 && d.want[0] == "ledger_chain" { // at least that
				require.NotZero(t, rep.Found[LedgerChain], sentences(rep))
				require.Contains(t, []int64{0, 1, 2, 3, 4, 5, 6}, rep.Found[LedgerGap])
			} else {
				want := slices.Sorted(slices.Values(d.want))
				if want == nil {
					want = []string{}
				}
				got := slices.DeleteFunc(said(rep), func(s string) bool { return strings.HasPrefix(s, "ledger_digest ledger 0#") })
				require.Equal(t, want, got, sentences(rep))
				require.Equal(t, unsealed[d.name], rep.Found[LedgerDigest] > 0, sentences(rep))
			}
			require.Equal(t, len(d.want) == 0 && !unsealed[d.name], rep.Clean())
			if d.says != "" {
				require.Contains(t, sentences(rep), d.says)
			}
		})
	}
}
