package audit

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/exactly-pipeline/exactly/outbox"
	"github.com/exactly-pipeline/exactly/schema"
)

// Check is one comparison of two forms of a record.
type Check struct {
	What string // the two, for people
	Is   string // equal, different, unknown
	Says string // what differs, or why it can't be said
}

// checks compares each form with the one it was made of.
func (r *run) checks(rec *Record) (out []Check) {
	add := func(what, is, format string, a ...any) {
		out = append(out, Check{what, is, fmt.Sprintf(format, a...)})
	}
	healed := slices.ContainsFunc(rec.Entries, func(e LedgerPlace) bool { return e.Kind == "heal" })
	captures := 0
	for _, e := range rec.Entries {
		if e.Kind == "capture" || e.Kind == "heal" {
			captures++
		}
	}
	switch {
	case captures == 1:
		add("ledger", "equal", "one capture covers it")
	case captures > 1 && healed:
		add("ledger", "equal", "captured, and healed")
	case captures > 1:
		add("ledger", "different", "%d captures cover it", captures)
	case len(rec.Rows)+len(rec.Dead) > 0:
		add("ledger", "different", "there is a row, and no entry covers it")
	}
	var chain []view // each must be what the one before is
	if rec.Click != nil {
		chain = append(chain, clickView("click", rec.Click))
	}
	for i := range rec.Rows {
		chain = append(chain, enrichedView("row", &rec.Rows[i].EnrichedClick, rec.Rows[i].Geo))
	}
	for i := range rec.Outbox {
		if m := &rec.Outbox[i]; m.Enriched != nil {
			chain = append(chain, enrichedView("outbox message", m.Enriched, header(m.Headers, geoHeader)))
		}
	}
	for i := range rec.Events {
		if m := &rec.Events[i]; m.Enriched != nil {
			chain = append(chain, enrichedView("event", m.Enriched, header(m.Headers, geoHeader)))
		}
	}
	for i := 1; i < len(chain); i++ {
		what := chain[i-1].name + " and " + chain[i].name
		if d := differing(chain[i-1], chain[i]); len(d) > 0 {
			add(what, "different", "they differ in %s", strings.Join(d, ", "))
		} else {
			add(what, "equal", "the same in every field")
		}
	}
	for i := range rec.Dead {
		if d := &rec.Dead[i]; rec.Input != nil {
			is, says := "equal", "key and value are the same bytes"
			if !same(d.Key, rec.Input.Key) || !same(d.Value, rec.Input.Value) {
				is, says = "different", "key or value are other bytes"
			}
			add("click and dead letter", is, "%s", says)
		}
	}
	for i := range rec.Outbox {
		r.checkOutbox(rec, &rec.Outbox[i], healed, add)
	}
	return out
}

func (r *run) checkOutbox(rec *Record, m *Message, healed bool, add func(what, is, format string, a ...any)) {
	const hash = "click and its hash in the outbox"
	w := r.newWorker()
	switch {
	case m.Erased:
		add(hash, "unknown", "erased: the bytes and the salt are gone")
	case healed:
		add(hash, "unknown", "it is of the event that a heal rebuilt it from")
	case rec.Input == nil:
		add(hash, "unknown", "the click is no longer in the input topic")
	case len(m.Salt) == 16 && hashOf(w, m.Salt, rec.Input) == [32]byte(append(bytes.Clone(m.RecordHash), make([]byte, 32)...)[:32]):
		add(hash, "equal", "salted SHA-256 of the click as it came")
	default:
		add(hash, "different", "it is not the hash of the click in the input topic")
	}
	const bytesOf = "outbox message and event"
	i := slices.IndexFunc(rec.Events, func(e Message) bool { return e.At.Topic == m.At.Topic && e.At.Partition == m.At.Partition })
	switch {
	case m.Erased:
		add(bytesOf, "unknown", "erased")
	case i >= 0:
		if d := differentBytes(m, &rec.Events[i]); d != "" {
			add(bytesOf, "different", "other bytes: %s", d)
		} else {
			add(bytesOf, "equal", "byte for byte: key, value, headers, timestamp")
		}
	case rec.Sought != "":
		add(bytesOf, "unknown", "%s", rec.Sought)
	case rec.Group >= 0 && rec.Offset >= rec.Group:
		add(bytesOf, "unknown", "not published yet: Kafka is owed it")
	default:
		add(bytesOf, "different", "the event is not in %s/%d: it was removed by retention, or is missing", m.At.Topic, m.At.Partition)
	}
}

func hashOf(w *worker, salt []byte, in *Message) [32]byte {
	return w.sealedRecord(salt, in.At.Offset, in.TimestampMs, in.Key, in.Value, in.Headers)
}

func enrichedView(name string, e *schema.EnrichedClick, geo string) view {
	v := clickView(name, &e.Click)
	v.fields["country"], v.fields["geo_build"] = e.Country, geo
	return v
}

// same tells null from empty.
func same(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

func differentBytes(a, b *Message) string {
	var d []string
	note := func(name string, differ bool) {
		if differ {
			d = append(d, name)
		}
	}
	note("key", !same(a.Key, b.Key))
	note("value", !same(a.Value, b.Value))
	note("headers", a.HeaderDamage || !bytes.Equal(outbox.AppendHeaders(nil, a.Headers), outbox.AppendHeaders(nil, b.Headers)))
	note("timestamp", a.TimestampMs != b.TimestampMs)
	return strings.Join(d, ", ")
}

// Time is the message's timestamp.
func (m *Message) Time() time.Time { return time.UnixMilli(m.TimestampMs).UTC() }
