package schema

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/hamba/avro/v2"
)

// ClickDecoder reads clicks in the wire format, whatever schema they were written with. It is safe for concurrent use.
type ClickDecoder struct{ decoder }

// NewClickDecoder reads with the writers' schemas that reg knows.
func NewClickDecoder(reg *Registry) *ClickDecoder {
	return &ClickDecoder{decoder{reg: reg, reader: clickSchema}}
}

// Decode reads value into *into; its strings share one copy of value, so value may be reused. Errors: *InvalidError if value is wrong,
// *TransientError if the writer's schema can't be had now. After an error *into is as before. A known schema costs no request.
func (d *ClickDecoder) Decode(ctx context.Context, value []byte, into *Click) error {
	p, err := d.plan(ctx, value)
	if err != nil {
		return err
	}
	s := string(value)
	if p.fast {
		if c, pos := readClick(s, wireHeader); pos == len(s) {
			*into = c
			return nil
		}
	}
	var c EnrichedClick
	if err := read(p, s, wireHeader, &c); err != nil {
		return &InvalidError{ClassDecode, err.Error()}
	}
	*into = c.Click
	return nil
}

// EnrichedDecoder reads enriched clicks in the wire format, for those who check them. It is safe for concurrent use.
type EnrichedDecoder struct{ decoder }

// NewEnrichedDecoder reads with the writers' schemas that reg knows.
func NewEnrichedDecoder(reg *Registry) *EnrichedDecoder {
	return &EnrichedDecoder{decoder{reg: reg, reader: enrichedSchema}}
}

// Decode is ClickDecoder.Decode for enriched clicks.
func (d *EnrichedDecoder) Decode(ctx context.Context, value []byte, into *EnrichedClick) error {
	p, err := d.plan(ctx, value)
	if err != nil {
		return err
	}
	s := string(value)
	if p.fast {
		if c, pos := readClick(s, wireHeader); pos >= 0 {
			if country, pos := readText(s, pos); pos == len(s) {
				*into = EnrichedClick{c, country}
				return nil
			}
		}
	}
	var c EnrichedClick
	if err := read(p, s, wireHeader, &c); err != nil {
		return &InvalidError{ClassDecode, err.Error()}
	}
	*into = c
	return nil
}

// readClick reads what appendClick wrote; -1 if it is not there. The walk then says what is wrong.
func readClick(s string, pos int) (c Click, end int) {
	if c.UserID, pos = readLong(s, pos); pos < 0 {
		return c, -1
	}
	if c.SessionID, pos = readText(s, pos); pos < 0 {
		return c, -1
	}
	if c.TimestampMs, pos = readLong(s, pos); pos < 0 {
		return c, -1
	}
	if c.URL, pos = readText(s, pos); pos < 0 {
		return c, -1
	}
	c.IP, pos = readText(s, pos)
	return c, pos
}

// decoder is what both have: the plans by schema id, kept for ever because a schema never changes under its id.
type decoder struct {
	reg    *Registry
	reader *avro.RecordSchema
	mu     sync.Mutex // of those who add
	plans  atomic.Pointer[map[int]resolved]
}

// resolved is a plan, or why there is none.
type resolved struct {
	plan *plan
	err  error
}

func (d *decoder) plan(ctx context.Context, value []byte) (*plan, error) {
	id, err := SchemaID(value)
	if err != nil {
		return nil, err
	}
	if plans := d.plans.Load(); plans != nil {
		if r, ok := (*plans)[id]; ok {
			return r.plan, r.err
		}
	}
	w, err := d.reg.SchemaByID(ctx, id)
	if err != nil {
		return nil, err
	}
	p, err := resolve(d.reader, w)
	var invalid *InvalidError
	if err != nil && !errors.As(err, &invalid) {
		panic("schema: resolve promises an *InvalidError: " + err.Error())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	plans := map[int]resolved{}
	if old := d.plans.Load(); old != nil {
		plans = maps.Clone(*old)
	}
	plans[id] = resolved{p, err}
	d.plans.Store(&plans)
	return p, err
}
