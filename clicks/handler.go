package clicks

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/pgcopy"
	"github.com/exactly-pipeline/exactly/outbox"
	"github.com/exactly-pipeline/exactly/schema"
)

// Handler enriches clicks. It implements engine.Handler and is used by one goroutine.
type Handler struct {
	output  string
	decoder *schema.ClickDecoder
	encoder *schema.EnrichedEncoder
	geo     *Geo
	build   []byte
	ip      *IP
	limits  schema.Validator
	counts  *engine.Counts // nil: nothing is counted
	now     func() time.Time

	click   schema.EnrichedClick // the one at hand; its strings are the record's bytes
	values  []byte               // arena: events outlive the call, and one allocation serves many
	headers []outbox.Header      // likewise
}

// NewHandler enriches with geo and writes events to topic output. Addresses are kept as they came; see KeepIP.
func NewHandler(output string, d *schema.ClickDecoder, e *schema.EnrichedEncoder, geo *Geo) *Handler {
	return &Handler{output: output, decoder: d, encoder: e, geo: geo, build: []byte(geo.Build()), ip: &IP{mode: "keep"}, limits: schema.Validator{Limits: schema.DefaultLimits()}, now: time.Now}
}

// KeepIP says what is kept of addresses from now on.
func (h *Handler) KeepIP(ip *IP) { h.ip = ip }

// Limit says what is taken for valid from now on.
func (h *Handler) Limit(l schema.Limits) { h.limits.Limits = l }

// Count says in which table the rows are counted from now on; nil: in none.
func (h *Handler) Count(c *engine.Counts) { h.counts = c }

// Counts implements engine.Counting.
func (h *Handler) Counts() *engine.Counts { return h.counts }

// Counts is the table of clicks by country and window of that length.
func Counts(window time.Duration) *engine.Counts {
	return &engine.Counts{Table: "click_counts", Label: "country", Amount: "clicks", Window: window}
}

const clickColumns = 7

// Tables implements engine.Handler.
func (h *Handler) Tables() []engine.Table { return tables() }

func tables() []engine.Table {
	return []engine.Table{{Name: "enriched_clicks", Columns: []string{"user_id", "session_id", "timestamp", "url", "ip", "country", "geo_build"}}}
}

// Handle implements engine.Handler.
func (h *Handler) Handle(ctx context.Context, r *engine.Record, out *engine.Out) error {
	c := &h.click
	if err := h.decoder.DecodeInPlace(ctx, r.Value, &c.Click); err != nil {
		var bad *schema.InvalidError
		if errors.As(err, &bad) {
			return &engine.Permanent{Class: bad.Class, Stage: "decode", Message: bad.Message}
		}
		return err
	}
	id, _ := schema.SchemaID(r.Value) // 0: JSON as it is
	out.MadeWith(id, h.encoder.ID(), h.geo.Build())
	addr, bad := h.limits.Validate(&c.Click, h.now())
	if bad != nil {
		return invalid(bad)
	}
	c.Country = h.geo.Country(addr)
	if kept := h.ip.Of(addr); kept != addr {
		addr, c.IP = kept, kept.String()
	}

	addRow(out, c, addr, h.build, h.counts)
	return out.Event(h.output, r.Key, h.encode(c), h.header(r, out.Source()))
}

// Bounded is the check, for engine.Validated, of what is not even decoded.
func Bounded(l schema.Limits) func(*engine.Record) *engine.Permanent {
	return func(r *engine.Record) *engine.Permanent {
		if bad := l.ValidateValue(r.Value); bad != nil {
			return invalid(bad)
		}
		return nil
	}
}

func invalid(bad *schema.InvalidError) *engine.Permanent {
	return &engine.Permanent{Class: bad.Class, Stage: "validate", Message: bad.Message}
}

// addRow adds the row of an enriched click, and counts it.
func addRow(out *engine.Out, c *schema.EnrichedClick, addr netip.Addr, build []byte, counts *engine.Counts) {
	row := out.BeginRow(0, clickColumns)
	row = pgcopy.Int8(row, c.UserID)
	row = pgcopy.Text(row, c.SessionID)
	row = pgcopy.TimestamptzMs(row, c.TimestampMs)
	row = pgcopy.Text(row, c.URL)
	row = pgcopy.Inet(row, addr)
	row = pgcopy.Text(row, c.Country)
	row = pgcopy.Bytea(row, build)
	out.EndRow(0, row)
	if counts != nil {
		out.Count(counts.Cell(c.TimestampMs, c.Country))
	}
}

const arena = 256 << 10

func (h *Handler) encode(c *schema.EnrichedClick) []byte {
	if cap(h.values)-len(h.values) < len(c.URL)+len(c.SessionID)+len(c.IP)+64 {
		h.values = make([]byte, 0, max(arena, len(c.URL)+len(c.SessionID)+len(c.IP)+64))
	}
	at := len(h.values)
	h.values = h.encoder.Append(h.values, c)
	return h.values[at:len(h.values):len(h.values)]
}

func (h *Handler) header(r *engine.Record, source []byte) []outbox.Header {
	if cap(h.headers)-len(h.headers) < 3 {
		h.headers = make([]outbox.Header, 0, 3*1024)
	}
	at := len(h.headers)
	h.headers = append(h.headers, outbox.Header{Key: "exactly-source", Value: source}, outbox.Header{Key: geoHeader, Value: h.build})
	for i := range r.Headers {
		if r.Headers[i].Key == "traceparent" { // W3C trace context goes along
			h.headers = append(h.headers, r.Headers[i])
			break
		}
	}
	return h.headers[at:len(h.headers):len(h.headers)]
}
