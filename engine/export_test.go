package engine

import "context"

// Derive is what a capture writes of the records [from, …): the forward way of Rebuild, for tests outside of the package.
func Derive(ctx context.Context, h Handler, shape *Shape, sourceID int16, partition int32, from int64, records []Record) (*Batch, error) {
	p := newPreparer(h, shape, sourceID)
	return p.batch(ctx, &prepJob{partition: partition, from: from, records: records})
}

// Deriving is what a worker's prepare does batch after batch, for benchmarks outside of the package.
type Deriving struct{ p *preparer }

// NewDeriving begins with nothing.
func NewDeriving(h Handler, shape *Shape, sourceID int16) *Deriving {
	return &Deriving{newPreparer(h, shape, sourceID)}
}

// Batch is Derive.
func (d *Deriving) Batch(ctx context.Context, partition int32, from int64, records []Record) (*Batch, error) {
	return d.p.batch(ctx, &prepJob{partition: partition, from: from, records: records})
}

// Gone is what follows once a batch is captured and published.
func (d *Deriving) Gone(b *Batch) {
	b.captured()
	putMessages(b.Messages)
}
