package schema

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/hamba/avro/v2"
)

// ClickDecoder reads clicks in the wire format, whatever schema they were written with. It is safe for concurrent use.
type ClickDecoder struct {
	decoder
	json     bool
	compiled map[int]compiled // JSON Schemas by id
}

// NewClickDecoder reads with the writers' schemas that reg knows.
func NewClickDecoder(reg *Registry) *ClickDecoder {
	return &ClickDecoder{decoder: decoder{reg: reg, reader: clickSchema}}
}

// Patience bounds how long a Decode waits for a schema that is not known yet. What is fetched is fetched on, for the next try: whoever has
// other records to read meanwhile is not held up by a registry that is slow. 0: as long as ctx lasts. Set it before the first Decode.
func (d *ClickDecoder) Patience(wait time.Duration) { d.patience = wait }

// Decode reads value into *into; its strings share one copy of value, so value may be reused. Errors: *InvalidError if value is wrong,
// *TransientError if the writer's schema can't be had now. After an error *into is as before. A known schema costs no request.
func (d *ClickDecoder) Decode(ctx context.Context, value []byte, into *Click) error {
	if d.json {
		return d.decodeJSON(ctx, value, into)
	}
	p, err := d.plan(ctx, value)
	if err != nil {
		return err
	}
	return readWhole(p, string(value), into)
}

// DecodeInPlace is Decode without the copy: the strings are value's own bytes, which must not change for as long as the strings are in use.
func (d *ClickDecoder) DecodeInPlace(ctx context.Context, value []byte, into *Click) error {
	if d.json {
		return d.decodeJSON(ctx, value, into)
	}
	p, err := d.plan(ctx, value)
	if err != nil {
		return err
	}
	return readWhole(p, unsafe.String(unsafe.SliceData(value), len(value)), into)
}

func readWhole(p *plan, s string, into *Click) error {
	if p.fast {
		if c, pos := readClick(s, wireHeader); pos == len(s) {
			*into = c
			return nil
		}
	}
	var c EnrichedClick
	if err := read(p, s, wireHeader, &c); err != nil {
		return undecodable(err)
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
		return undecodable(err)
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
	reg      *Registry
	reader   *avro.RecordSchema
	patience time.Duration
	mu       sync.Mutex        // of those who add
	slow     map[int]time.Time // until when a schema is not waited for again
	plans    atomic.Pointer[map[int]resolved]
}

var errSlow = errors.New("the schema registry has not answered yet")

// slowFor is how long a schema that patience has not sufficed for is not waited for again.
const slowFor = time.Second

// writer is the schema with that id, waited for with patience.
func (d *decoder) writer(ctx context.Context, id int) (*WriterSchema, error) {
	if d.patience == 0 {
		return d.reg.SchemaByID(ctx, id)
	}
	d.mu.Lock()
	waited := time.Now().Before(d.slow[id])
	d.mu.Unlock()
	if waited {
		if s, err := d.reg.cached(id); s != nil || err != nil {
			return s, err
		}
		return nil, &TransientError{fmt.Sprintf("fetch schema %d", id), errSlow}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, d.patience, errSlow)
	defer cancel()
	s, err := d.reg.SchemaByID(ctx, id)
	if errors.Is(err, errSlow) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.slow == nil || len(d.slow) >= maxUnknown {
			d.slow = map[int]time.Time{}
		}
		d.slow[id] = time.Now().Add(slowFor)
	}
	return s, err
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
	w, err := d.writer(ctx, id)
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
