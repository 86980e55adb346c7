package audit

import (
	"context"
	"errors"
	"net/http"

	"github.com/exactly-pipeline/exactly/schema"
)

// errUndecodable says that a value is no such record, and that no retry would make it one. Every other error of a decoder means that
// it could not be found out, and ends the audit: a registry that is away must not look like damage.
var errUndecodable = errors.New("undecodable")

type (
	click    = schema.Click
	enriched = schema.EnrichedClick
)

// decoder is what the audit asks of the codec. It is safe for concurrent use.
type decoder struct {
	clicks *schema.ClickDecoder
	events *schema.EnrichedDecoder
	addr   addresses
}

func (d *decoder) click(ctx context.Context, value []byte, c *click) error {
	err := classify(d.clicks.Decode(ctx, value, c))
	c.IP = d.addr.text(c.IP)
	return err
}

func (d *decoder) enriched(ctx context.Context, value []byte, c *enriched) error {
	err := classify(d.events.Decode(ctx, value, c))
	c.IP = d.addr.text(c.IP)
	return err
}

func classify(err error) error {
	if _, ok := errors.AsType[*schema.InvalidError](err); ok {
		return errUndecodable
	}
	return err
}

func newDecoder(o *Options) (decoder, func(), error) {
	addr, err := o.addresses()
	if err != nil {
		return decoder{}, nil, err
	}
	var transport []http.RoundTripper
	if o.RegistryTransport != nil {
		transport = append(transport, o.RegistryTransport)
	}
	reg, err := schema.NewRegistry(o.RegistryURL, transport...)
	if err != nil {
		return decoder{}, nil, err
	}
	clicks := schema.NewClickDecoder(reg)
	clicks.Format(o.Format)
	return decoder{clicks, schema.NewEnrichedDecoder(reg), addr}, reg.Close, nil
}
