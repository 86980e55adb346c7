package audit

import (
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/exactly-pipeline/exactly/ledger"
)

// cut removes the beginning of a log, as retention does.
func (w *world) cut(topic string, part int32, to int64) {
	o := kadm.Offsets{}
	o.AddOffset(topic, part, to, -1)
	res, err := w.adm.DeleteRecords(w.ctx, o)
	require.NoError(w.t, err)
	require.NoError(w.t, res.Error())
}

// prune drops the first day of a table, which has offsets of partition 0 below 9 only, as exactly prune does.
func (w *world) prune(table string, published int64) {
	records := map[string]int{"outbox": 5, "enriched_clicks": 4, "dead_letters": 1}[table]
	from := map[string]int{"dead_letters": 8}[table]
	to := map[string]int{"outbox": 9, "enriched_clicks": 8, "dead_letters": 9}[table]
	d := sha256.Sum256(fmt.Appendf(nil, "%s_20260101 1 0 %d %d %d %d", table, from, to, records, published))
	seq := w.deed(ledger.Prune, d[:])
	w.exec(`INSERT INTO pruned (table_name, time_partition, source_id, source_partition, from_offset, to_offset, records, published, ledger_seq, who, why)
		VALUES ($1, $1 || '_20260101', 1, 0, $2, $3, $4, $5, $6, 'ada', 'old')`, table, from, to, records, published, seq)
	w.exec(`DROP TABLE ` + table + `_20260101`)
}

// Below the input's retention every other side is still held against the rest, as far as it reaches.
func TestBelowTheInput(t *testing.T) {
	t.Parallel()
	row, dead := ` WHERE source_partition = 0 AND source_offset = 1`, ` WHERE source_partition = 0 AND source_offset = 8`
	rowsGone := func(w *world) { w.prune("enriched_clicks", 11) }
	outboxGone := func(w *world) { w.prune("outbox", 11) }
	eventsGone := func(w *world) { w.cut(w.opts.Output, 0, -1) }
	dlqGone := func(w *world) { w.cut(w.opts.DLQ, 0, -1) }
	type states []func(*world)
	for _, c := range []struct {
		name   string
		before func(*world)
		gone   states
		after  func(*world)
		want   []string
	}{
		{name: "nothing", want: []string{}},
		{name: "nothing, events gone", gone: states{eventsGone, dlqGone}, want: []string{}},
		{name: "nothing, outbox pruned", gone: states{outboxGone}, want: []string{}},
		{name: "nothing, rows pruned", gone: states{rowsGone}, want: []string{}},
		{name: "nothing, rows and outbox pruned", gone: states{rowsGone, outboxGone}, want: []string{}},
		{name: "nothing, outbox pruned, and events gone, but not the dead letters'", gone: states{outboxGone, eventsGone}, want: []string{}},
		{name: "nothing but the ledger", gone: states{rowsGone, outboxGone, eventsGone, dlqGone, func(w *world) { w.prune("dead_letters", 11) }}, want: []string{}},
		{name: "erased", after: func(w *world) { w.erase(1, 8) }, want: []string{}},

		{name: "row", after: sql(`UPDATE enriched_clicks SET url = 'x'` + row), want: []string{"different rows 0@1"}},
		{name: "row, events gone", gone: states{eventsGone}, after: sql(`UPDATE enriched_clicks SET url = 'x'` + row), want: []string{"different outbox 0@1"}},
		{name: "row, outbox pruned", gone: states{outboxGone}, after: sql(`UPDATE enriched_clicks SET url = 'x'` + row), want: []string{"different events 0@1"}},
		{name: "row deleted", after: sql(`DELETE FROM enriched_clicks` + row), want: []string{countsOf02, "missing rows 0@1"}},
		{name: "row deleted, only the ledger has it", gone: states{outboxGone, eventsGone}, after: sql(`DELETE FROM enriched_clicks` + row), want: []string{countsOf02}},
		{name: "row made up", after: sql(`UPDATE enriched_clicks SET source_offset = 4` + row), want: []string{"missing rows 0@1", "unexplained rows 0@4", "ledger_gap ledger 0#3", countsOf02}},
		{name: "row twice", before: func(w *world) { r := *w.row(0, 1); r.at = day2; w.rows = append(w.rows, r) }, want: []string{"duplicate rows 0@1", countsOf02}},
		{name: "dead letter", after: sql(`UPDATE dead_letters SET value = 'x'` + dead), want: []string{"different dead_letters 0@8"}},
		{name: "dead letter, dlq gone", gone: states{dlqGone}, after: sql(`UPDATE dead_letters SET value = 'x'` + dead), want: []string{"different outbox 0@8"}},
		{name: "dead letter, outbox pruned", gone: states{outboxGone, eventsGone}, after: sql(`UPDATE dead_letters SET value = 'x'` + dead), want: []string{"different dlq 0@8"}},
		{name: "dead letter's error", after: sql(`UPDATE dead_letters SET error_message = 'x'` + dead), want: []string{"different dead_letters 0@8"}},
		{name: "dead letter deleted", after: sql(`DELETE FROM dead_letters` + dead), want: []string{"missing dead_letters 0@8", countsOf39}},
		{name: "outbox byte", after: sql(`UPDATE outbox SET key = 'x'` + row), want: []string{"different events 0@1", "ledger_digest ledger 0#2"}},
		{name: "outbox byte, events gone", gone: states{eventsGone}, after: sql(`UPDATE outbox SET key = 'x'` + row), want: []string{"ledger_digest ledger 0#2"}},
		{name: "outbox byte, all but the ledger gone", gone: states{rowsGone, eventsGone}, after: sql(`UPDATE outbox SET key = 'x'` + row), want: []string{"ledger_digest ledger 0#2"}},
		{name: "outbox record hash", after: sql(`UPDATE outbox SET record_hash = sha256('x')` + row), want: []string{"ledger_digest ledger 0#2"}},
		{name: "outbox deleted", after: sql(`DELETE FROM outbox` + row), want: []string{"missing outbox 0@1", "ledger_digest ledger 0#2", countsOf02}},
		{name: "event and row and outbox alike", before: func(w *world) {
			v := w.enriched(5, "DE")
			both(0, 1, func(m *message) { m.Value = v })(w)
			w.row(0, 1).click = *w.click(5)
		},
			want: []string{"ledger_digest ledger 0#2"}},
		{name: "event", before: func(w *world) { w.event(0, 1).Value = w.enriched(1, "FR") }, want: []string{"different events 0@1"}},
		{name: "event missing", before: func(w *world) { w.unpublish(0, 1) }, want: []string{"missing events 0@1"}},
		{name: "event twice", before: again(0, 1, nil), want: []string{"duplicate events 0@1"}},
		{name: "event made up", before: again(0, 1, func(m *message) { m.Headers[0].Value = []byte("SOURCE/0/4") }), want: []string{"unexplained events 0@4", "out_of_order events 0@4"}},
		{name: "gone from Postgres", after: sql(`DELETE FROM outbox`+row, `DELETE FROM enriched_clicks`+row), want: []string{"unexplained events 0@1", "ledger_digest ledger 0#2", countsOf02, countsOf02}},
		{name: "gone from everywhere", before: func(w *world) { w.unpublish(0, 1) }, after: sql(`DELETE FROM outbox`+row, `DELETE FROM enriched_clicks`+row),
			want: []string{"ledger_digest ledger 0#2", countsOf02, countsOf02}},
		{name: "ledger counts", before: func(w *world) { w.ledger[1].Rows++; w.seal() }, want: []string{countsOf02}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := consistent(t)
			if c.before != nil {
				c.before(w)
			}
			w.store(ownHash)
			w.cut(w.opts.Input, 0, 11)
			for _, gone := range c.gone {
				gone(w)
			}
			if c.after != nil {
				c.after(w)
			}
			rep := w.audit()
			require.ElementsMatch(t, c.want, said(rep), sentences(rep))
			require.EqualValues(t, 11, rep.Partitions[0].VouchedFrom)
			require.GreaterOrEqual(t, rep.Partitions[0].Verified, map[bool]int64{true: 11}[rep.Clean()])
			if len(c.gone) == 0 {
				require.Contains(t, fmt.Sprint(rep.Notes), "rows from offset 0 on, dead letters from 0, the outbox from 0, events from 0, the DLQ from 0")
			}
		})
	}
}
