package engine

import "context"

// Derive is what a capture writes of the records [from, …): the forward way of Rebuild, for tests outside of the package.
func Derive(ctx context.Context, h Handler, shape *Shape, sourceID int16, partition int32, from int64, records []Record) (*Batch, error) {
	p := newPreparer(h, shape, sourceID)
	return p.batch(ctx, &prepJob{partition: partition, from: from, records: records})
}
