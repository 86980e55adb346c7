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
}

func (d *decoder) click(ctx context.Context, value []byte, c *click) error {
	return classify(d.clicks.Decode(ctx, value, c))
}

func (d *decoder) enriched(ctx context.Context, value []byte, c *enriched) error {
	return classify(d.events.Decode(ctx, value, c))
}

func classify(err error) error {
	if _, ok := errors.AsType[*schema.InvalidError](err); ok {
		return errUndecodable
	}
	return err
}

func newDecoder(o *Options) (decoder, func(), error) {
	var transport []http.RoundTripper
	if o.RegistryTransport != nil {
		transport = append(transport, o.RegistryTransport)
	}
	reg, err := schema.NewRegistry(o.RegistryURL, transport...)
	if err != nil {
		return decoder{}, nil, err
	}
	return decoder{schema.NewClickDecoder(reg), schema.NewEnrichedDecoder(reg)}, reg.Close, nil
}
