package audit

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/outbox"
)

// view is one store's account of one coordinate, field by field, comparable as text. Its values never leave this file, but for the
// two that tell nothing about a person.
type view struct {
	name   string
	fields map[string]string
}

// explain reads the records of the differences that were kept once more, and names the fields. Only hashes were kept until now.
func (r *run) explain(ctx context.Context) {
	w := r.newWorker()
	fs := r.findings.kept[Different]
	for i := range fs {
		if fs[i].Offset < 0 || r.parts[fs[i].Partition] == nil {
			continue
		}
		records, clicks := w.views(ctx, &fs[i])
		var says []string
		for _, vs := range [][]view{records, clicks} {
			for a := range vs {
				for b := a + 1; b < len(vs); b++ {
					if d := differing(vs[a], vs[b]); len(d) > 0 {
						says = append(says, fmt.Sprintf("%s and %s differ in %s", vs[a].name, vs[b].name, strings.Join(d, ", ")))
					}
				}
			}
		}
		if len(says) > 0 {
			fs[i].Says += ": " + strings.Join(says, "; ")
		}
	}
}

func differing(a, b view) (out []string) {
	for _, name := range slices.Sorted(maps.Keys(a.fields)) {
		va, vb := a.fields[name], b.fields[name]
		if _, both := b.fields[name]; !both || va == vb {
			continue
		}
		if name == "country" || name == "geo_build" || name == "topic" || name == "partition" || name == "timestamp_ms" {
			name = fmt.Sprintf("%s (%q, %q)", name, va, vb)
		}
		out = append(out, name)
	}
	return out
}

// views are what can be read of a finding's coordinate: Kafka records (event and outbox message; input and dead letter), and clicks.
// What can't be read is left out: the finding stands without it.
func (w *worker) views(ctx context.Context, f *Finding) (records, clicks []view) {
	if rec := w.one(ctx, w.opts.Input, f.Partition, f.Offset); rec != nil {
		if f.Sink == DLQ || f.Sink == DeadLetters {
			records = append(records, view{"input", map[string]string{"key": printable(rec.Key), "value": printable(rec.Value)}})
		} else if w.dec.click(ctx, rec.Value, &w.in) == nil {
			clicks = append(clicks, clickView("input", &w.in))
		}
	}
	if f.At != nil {
		if rec := w.one(ctx, f.At.Topic, f.At.Partition, f.At.Offset); rec != nil {
			m := w.asMessage(rec)
			records, clicks = w.messageViews(ctx, "event", &m, records, clicks)
		}
	}
	var m outbox.Message
	var headers []byte
	err := w.pg.main.QueryRow(ctx, `SELECT topic, partition, "timestamp", key, value, headers FROM outbox
		WHERE source_id = $1 AND source_partition = $2 AND source_offset = $3 ORDER BY seq, created_at LIMIT 1`, w.source, f.Partition, f.Offset).
		Scan(&m.Topic, &m.Partition, &m.TimestampMs, &m.Key, &m.Value, &headers)
	if err == nil {
		m.Headers, _ = outbox.ParseHeaders(headers)
		records, clicks = w.messageViews(ctx, "outbox message", &m, records, clicks)
	}
	var key, value []byte
	var why failure
	err = w.pg.main.QueryRow(ctx, `SELECT key, value, convert_to(error_class, 'UTF8'), convert_to(error_stage, 'UTF8'), convert_to(error_message, 'UTF8'), headers FROM dead_letters WHERE source_id = $1 AND source_partition = $2 AND source_offset = $3 ORDER BY created_at LIMIT 1`,
		w.source, f.Partition, f.Offset).Scan(&key, &value, &why.class, &why.stage, &why.message, &why.headers)
	if err == nil {
		v := view{"dead letter", map[string]string{"key": printable(key), "value": printable(value)}}
		why.tell(v)
		records = append(records, v)
	}
	var c click
	var at time.Time
	var country, geo string
	err = w.pg.main.QueryRow(ctx, `SELECT user_id, session_id, "timestamp", url, host(ip), country, geo_build FROM enriched_clicks
		WHERE source_id = $1 AND source_partition = $2 AND source_offset = $3 ORDER BY captured_at LIMIT 1`, w.source, f.Partition, f.Offset).
		Scan(&c.UserID, &c.SessionID, &at, &c.URL, &c.IP, &country, &geo)
	if err == nil {
		v := clickView("row", &c)
		v.fields["timestamp"], v.fields["country"], v.fields["geo_build"] = fmt.Sprint(at.UnixMicro()), country, geo
		clicks = append(clicks, v)
	}
	return records, clicks
}

func (w *worker) messageViews(ctx context.Context, name string, m *outbox.Message, records, clicks []view) (r, c []view) {
	v := view{name, map[string]string{
		"topic": m.Topic, "partition": fmt.Sprint(m.Partition), "timestamp_ms": fmt.Sprint(m.TimestampMs), "key": printable(m.Key), "value": printable(m.Value),
		"headers": string(outbox.AppendHeaders(nil, m.Headers)),
	}}
	if m.Topic == w.opts.DLQ {
		failureOf(m.Headers).tell(v)
	}
	records = append(records, v)
	if m.Topic == w.opts.Output && w.dec.enriched(ctx, m.Value, &w.ev) == nil {
		cv := clickView(name, &w.ev.Click)
		cv.fields["country"], cv.fields["geo_build"] = w.ev.Country, header(m.Headers, geoHeader)
		clicks = append(clicks, cv)
	}
	return records, clicks
}

func clickView(name string, c *click) view {
	return view{name, map[string]string{
		"user_id": fmt.Sprint(c.UserID), "session_id": c.SessionID, "timestamp": fmt.Sprint(c.TimestampMs * 1000), "url": c.URL, "ip": string(appendAddr(nil, c.IP)),
	}}
}

// printable keeps null and empty apart.
func printable(b []byte) string {
	if b == nil {
		return "null"
	}
	return "=" + string(b)
}

// one is the committed record at an offset, or nil.
func (w *worker) one(ctx context.Context, topic string, partition int32, offset int64) (rec *kgo.Record) {
	_, _ = w.kafka.read(ctx, topic, partition, offset, offset+1, func(recs []*kgo.Record) error {
		if len(recs) > 0 && recs[0].Offset == offset {
			rec = recs[0]
		}
		return nil
	})
	return rec
}

// tell adds the failure's fields to a view.
func (f failure) tell(v view) {
	v.fields["error_class"], v.fields["error_stage"], v.fields["error_message"], v.fields["own_headers"] = string(f.class), string(f.stage), string(f.message), string(f.headers)
}
