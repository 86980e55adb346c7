package clicks

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/outbox"
	"github.com/exactly-pipeline/exactly/schema"
)

// geoHeader says which build of the geo database the country of an event comes from.
const geoHeader = "exactly-geo"

// Rebuilder makes rows of events again. It implements engine.Rebuilder: what Handler.Handle made a row and an event of, Rebuild makes the same
// row of, out of the event alone. No geo database is asked.
type Rebuilder struct {
	decoder *schema.EnrichedDecoder
	counts  *engine.Counts
}

// NewRebuilder reads events with d.
func NewRebuilder(d *schema.EnrichedDecoder) *Rebuilder { return &Rebuilder{decoder: d} }

// Count says in which table the rows are counted from now on; nil: in none.
func (r *Rebuilder) Count(c *engine.Counts) { r.counts = c }

// Counts implements engine.Rebuilder.
func (r *Rebuilder) Counts() *engine.Counts { return r.counts }

// Tables implements engine.Rebuilder.
func (*Rebuilder) Tables() []engine.Table { return tables() }

// Rebuild implements engine.Rebuilder.
func (r *Rebuilder) Rebuild(ctx context.Context, event *outbox.Message, out *engine.Out) error {
	var c schema.EnrichedClick
	if err := r.decoder.Decode(ctx, event.Value, &c); err != nil {
		return err
	}
	addr, err := netip.ParseAddr(c.IP)
	if err != nil {
		return errors.New("its ip is no address") // err quotes it
	}
	for _, h := range event.Headers {
		if h.Key == geoHeader && h.Value != nil {
			addRow(out, &c, addr.Unmap(), h.Value, r.counts)
			return nil
		}
	}
	return fmt.Errorf("it has no header %s", geoHeader)
}
