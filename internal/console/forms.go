package console

import (
	"fmt"
	"strings"
	"time"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/schema"
)

// forms are the record's, in the order they come about.
func (e eyes) forms(r *audit.Record) []form {
	out := []form{e.asItCame(r)}
	out = append(out, e.stored(r)...)
	out = append(out, e.owed(r)...)
	return append(out, e.published(r)...)
}

// verdict is the worst of the checks about a form.
func verdict(r *audit.Record, whats ...string) string {
	is := ""
	for _, c := range r.Checks {
		about := false
		for _, w := range whats {
			about = about || strings.HasSuffix(c.What, w)
		}
		if about && (is == "" || c.Is == "different" || c.Is == "unknown" && is == "equal") {
			is = c.Is
		}
	}
	return is
}

func (e eyes) asItCame(r *audit.Record) form {
	f := form{Name: "Click, as it came", Where: fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset)}
	if r.Input == nil {
		f.Missing = "it is not in the topic: removed by retention, aborted, a transaction's marker, or not there yet"
		f.Good = len(r.Rows)+len(r.Dead) > 0
		return f
	}
	f.message(e, r.Input)
	if r.Click != nil {
		f.Fields = append(f.Fields, clickFields(r.Click)...)
	} else {
		f.Fields = append(f.Fields, shownHeader{"decoded", "no: it is no click"})
	}
	return f
}

func (e eyes) stored(r *audit.Record) (out []form) {
	for i := range r.Rows {
		s := &r.Rows[i]
		f := form{Name: "Row", Where: s.Table, Is: verdict(r, "and row")}
		f.Fields = append(clickFields(&s.Click), shownHeader{"country", s.Country}, shownHeader{"geo build", s.Geo}, shownHeader{"captured", stamp(s.CapturedAt)})
		out = append(out, f)
	}
	for i := range r.Dead {
		d := &r.Dead[i]
		out = append(out, form{
			Name: "Dead letter", Where: d.Table, Is: verdict(r, "and dead letter"), Key: e.raw(d.Key), Value: e.raw(d.Value), Size: len(d.Value),
			Fields: []shownHeader{{"class", d.Class}, {"stage", d.Stage}, {"says", d.Message}, {"captured", stamp(d.CreatedAt)}},
		})
	}
	if len(out) == 0 {
		out = append(out, form{Name: "Row", Missing: r.State, Good: r.Offset >= r.Stored || r.Input == nil})
	}
	return out
}

func (e eyes) owed(r *audit.Record) (out []form) {
	for i := range r.Outbox {
		m := &r.Outbox[i]
		f := form{Name: "Outbox", Where: fmt.Sprintf("%s, for %s/%d", m.Table, m.At.Topic, m.At.Partition), Is: verdict(r, "and outbox message", "hash in the outbox")}
		f.message(e, m)
		if m.Erased {
			f.Fields = append(f.Fields, shownHeader{"erased", "its bytes were blanked"})
		} else if m.Enriched != nil {
			f.Fields = append(f.Fields, append(clickFields(&m.Enriched.Click), shownHeader{"country", m.Enriched.Country})...)
		}
		out = append(out, f)
	}
	if len(out) == 0 {
		f := form{Name: "Outbox", Missing: "nothing: it is not captured, made no message, or its day was pruned", Good: true}
		out = append(out, f)
	}
	return out
}

func (e eyes) published(r *audit.Record) (out []form) {
	for i := range r.Events {
		m := &r.Events[i]
		f := form{Name: "Event", Where: m.At.String(), Is: verdict(r, "and event")}
		f.message(e, m)
		if m.Enriched != nil {
			f.Fields = append(f.Fields, append(clickFields(&m.Enriched.Click), shownHeader{"country", m.Enriched.Country})...)
		}
		out = append(out, f)
	}
	if len(out) == 0 {
		f := form{Name: "Event", Missing: "it is not in the output topics"}
		switch {
		case r.Sought != "":
			f.Missing = r.Sought
		case r.Offset >= r.Stored:
			f.Missing, f.Good = "nothing yet: it is not captured", true
		case r.Group >= 0 && r.Offset >= r.Group:
			f.Missing, f.Good = "nothing yet: Kafka is owed it", true
		}
		out = append(out, f)
	}
	return out
}

func (f *form) message(e eyes, m *audit.Message) {
	f.Headers, f.Key, f.Value, f.Size = e.headers(m.Headers), e.raw(m.Key), e.raw(m.Value), len(m.Value)
	f.Fields = append(f.Fields, shownHeader{"Kafka's time", stamp(m.Time())})
}

func clickFields(c *schema.Click) []shownHeader {
	return []shownHeader{
		{"user", fmt.Sprint(c.UserID)}, {"session", c.SessionID}, {"time", stamp(time.UnixMilli(c.TimestampMs))}, {"url", c.URL}, {"address", c.IP},
	}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") }
