package tracing

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/exactly-pipeline/exactly/engine"
)

// store traces captures. Its other calls are the store's own.
type store struct {
	engine.Store
	t *Tracing
}

// Capture implements engine.Store.
func (s *store) Capture(ctx context.Context, batches []*engine.Batch) ([]int64, error) {
	ctx, span := s.t.tracer.Start(ctx, "capture "+s.t.cfg.Topic, trace.WithSpanKind(trace.SpanKindConsumer))
	defer span.End()
	if c := span.SpanContext(); c.IsSampled() {
		for _, b := range batches {
			b.Trace = c.TraceID().String()
		}
	}
	seqs, err := s.Store.Capture(ctx, batches)
	if !span.IsRecording() {
		return seqs, err
	}
	var r ranges
	var l links
	var records, rows, dead, events int64
	var refused []int
	for i, b := range batches {
		r.add(b.Partition, b.From, b.To, b.Epoch)
		l.find(b.Messages)
		records, rows, dead, events = records+b.Records, rows+b.Rows, dead+b.DeadLetters, events+int64(len(b.Messages))
		if err == nil && seqs[i] == 0 {
			refused = append(refused, int(b.Partition))
		}
	}
	span.SetAttributes(s.t.fixed...)
	span.SetAttributes(r.attributes()...)
	span.SetAttributes(semconv.MessagingOperationName("capture"), semconv.MessagingOperationTypeProcess, semconv.MessagingDestinationName(s.t.cfg.Topic),
		semconv.MessagingBatchMessageCount(int(records)))
	span.SetAttributes(attribute.Int64("exactly.records", records), attribute.Int64("exactly.rows", rows),
		attribute.Int64("exactly.dead_letters", dead), attribute.Int64("exactly.events", events))
	if len(refused) > 0 {
		span.SetAttributes(attribute.IntSlice("exactly.refused_partitions", refused))
	}
	l.addTo(span)
	if err != nil {
		failed(span, err, "the outcome is unknown")
		return seqs, err
	}
	s.t.captured(batches, seqs, span.SpanContext())
	return seqs, nil
}

// publisher traces Kafka transactions. Its other calls are the publisher's own.
type publisher struct {
	engine.Publisher
	t     *Tracing
	trace string // of the last transaction
}

// Trace implements engine.Traced.
func (p *publisher) Trace() string { return p.trace }

// failed marks a span.
func failed(span trace.Span, err error, says string) {
	if err == nil {
		return
	}
	span.RecordError(err)
	span.SetAttributes(semconv.ErrorType(err))
	span.SetStatus(codes.Error, says)
}

// Publish implements engine.Publisher.
func (p *publisher) Publish(items []engine.Item, s engine.Stamp, cancelled func() bool) (engine.Outcome, error) {
	name := "publish"
	if slices.ContainsFunc(items, func(it engine.Item) bool { return it.Drain }) {
		name = "drain"
	}
	_, span := p.t.tracer.Start(context.Background(), name+" "+p.t.cfg.Output, trace.WithSpanKind(trace.SpanKindProducer))
	defer span.End()
	p.trace = ""
	if c := span.SpanContext(); c.IsSampled() {
		p.trace = c.TraceID().String()
	}
	outcome, err := p.Publisher.Publish(items, s, cancelled)
	if !span.IsRecording() {
		return outcome, err
	}
	var r ranges
	var l links
	p.t.takeCaptures(items, &l, outcome == engine.Committed || outcome == engine.Lost)
	messages, bytes := 0, 0
	for i := range items {
		it := &items[i]
		from := it.To // nothing owed: only the group offset moves
		if len(it.Messages) > 0 {
			from = it.Messages[0].SourceOffset
		}
		r.add(it.Partition, from, it.To, it.Epoch)
		l.find(it.Messages)
		messages, bytes = messages+len(it.Messages), bytes+it.Bytes
	}
	span.SetAttributes(p.t.fixed...)
	span.SetAttributes(r.attributes()...)
	span.SetAttributes(semconv.MessagingOperationName(name), semconv.MessagingOperationTypeSend, semconv.MessagingDestinationName(p.t.cfg.Output),
		semconv.MessagingBatchMessageCount(messages))
	span.SetAttributes(attribute.String("exactly.input", p.t.cfg.Topic), attribute.Int("exactly.messages", messages), attribute.Int("exactly.bytes", bytes),
		attribute.String("exactly.outcome", outcome.String()))
	l.addTo(span)
	failed(span, err, outcome.String())
	return outcome, err
}

// ranges are the offsets of a transaction, one range a partition.
type ranges struct {
	partitions      []int
	from, to, epoch []int64
}

func (r *ranges) add(partition int32, from, to, epoch int64) {
	if i := slices.Index(r.partitions, int(partition)); i >= 0 { // items stand in the order of capture
		r.to[i], r.epoch[i] = to, epoch
		return
	}
	r.partitions = append(r.partitions, int(partition))
	r.from, r.to, r.epoch = append(r.from, from), append(r.to, to), append(r.epoch, epoch)
}

// attributes are slices side by side: the i-th range is [from, to) of the i-th partition, written under the i-th epoch.
func (r *ranges) attributes() []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.IntSlice("exactly.partitions", r.partitions), attribute.Int64Slice("exactly.from_offsets", r.from),
		attribute.Int64Slice("exactly.to_offsets", r.to), attribute.Int64Slice("exactly.epochs", r.epoch),
	}
}
