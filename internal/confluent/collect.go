package confluent

import (
	"context"

	"github.com/exactly-pipeline/exactly/outbox"
)

// collect takes a message for the next handing over; false: it has to go alone.
func (p *Producer) collect(ctx context.Context, m *outbox.Message) (done bool, err error) {
	if p.bulk == nil {
		return false, nil
	}
	full, ok := p.bulk.add(m)
	if !ok { // behind those before it
		err := p.Send(ctx)
		return err != nil, err
	}
	if full {
		return true, p.Send(ctx)
	}
	return true, nil
}

// Send implements txn.Producer: it hands the library what was collected, waiting while its queue is full.
func (p *Producer) Send(ctx context.Context) error {
	if p.bulk == nil {
		return nil
	}
	err := p.bulk.hand(func() bool {
		p.p.Flush(10)
		return ctx.Err() == nil
	})
	if err != nil {
		return refused(err)
	}
	return nil
}

// forget leaves out what was collected and not handed over.
func (p *Producer) forget() {
	if p.bulk != nil {
		p.bulk.forget()
	}
}
