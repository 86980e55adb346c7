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
	now     func() time.Time

	values  []byte          // arena: events outlive the call, and one allocation serves many
	headers []outbox.Header // likewise
}

// NewHandler enriches with geo and writes events to topic output.
func NewHandler(output string, d *schema.ClickDecoder, e *schema.EnrichedEncoder, geo *Geo) *Handler {
	return &Handler{output: output, decoder: d, encoder: e, geo: geo, build: []byte(geo.Build()), now: time.Now}
}

const clickColumns = 7

// Tables implements engine.Handler.
func (h *Handler) Tables() []engine.Table {
	return []engine.Table{{Name: "enriched_clicks", Columns: []string{"user_id", "session_id", "timestamp", "url", "ip", "country", "geo_build"}}}
}

// Handle implements engine.Handler.
func (h *Handler) Handle(ctx context.Context, r *engine.Record, out *engine.Out) error {
	var c schema.EnrichedClick
	if err := h.decoder.Decode(ctx, r.Value, &c.Click); err != nil {
		var bad *schema.InvalidError
		if errors.As(err, &bad) {
			return &engine.Permanent{Class: bad.Class, Stage: "decode", Message: bad.Message}
		}
		return err
	}
	if id, err := schema.SchemaID(r.Value); err == nil {
		out.MadeWith(id, h.encoder.ID(), h.geo.Build())
	}
	if bad := schema.Validate(&c.Click, h.now()); bad != nil {
		return &engine.Permanent{Class: bad.Class, Stage: "validate", Message: bad.Message}
	}
	addr, err := netip.ParseAddr(c.IP)
	if err != nil || addr.Zone() != "" {
		return &engine.Permanent{Class: "invalid", Stage: "enrich", Message: "ip: not an IPv4 or IPv6 address"}
	}
	addr = addr.Unmap()
	c.Country = h.geo.Country(addr)

	row := out.BeginRow(0, clickColumns)
	row = pgcopy.Int8(row, c.UserID)
	row = pgcopy.Text(row, c.SessionID)
	row = pgcopy.TimestamptzMs(row, c.TimestampMs)
	row = pgcopy.Text(row, c.URL)
	row = pgcopy.Inet(row, addr)
	row = pgcopy.Text(row, c.Country)
	row = pgcopy.Bytea(row, h.build)
	out.EndRow(0, row)
	return out.Event(h.output, r.Key, h.encode(&c), h.header(r, out.Source()))
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
	h.headers = append(h.headers, outbox.Header{Key: "exactly-source", Value: source}, outbox.Header{Key: "exactly-geo", Value: h.build})
	for i := range r.Headers {
		if r.Headers[i].Key == "traceparent" { // W3C trace context goes along
			h.headers = append(h.headers, r.Headers[i])
			break
		}
	}
	return h.headers[at:len(h.headers):len(h.headers)]
}
