// Package tracing owns OpenTelemetry: one span a capture with those of its statements, one a Kafka transaction, and those of the clicks that a generator
// is asked to trace; sent over OTLP, by the semantic conventions of version 1.43 (messaging, database).
//
// It promises that nothing is spent while it is off: then neither store nor publisher is wrapped. While it is on, a span costs what a
// transaction's partitions cost, not its records, but for the look for traceparent headers; and a collector that is away costs spans, never
// a transaction. It never logs or sends a key, a value, an ip or a url.
package tracing

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
)

const (
	exportTimeout = 5 * time.Second        // of one request to the collector
	exportEvery   = 2 * time.Second        // spans wait at most this long
	exportQueue   = 2048                   // spans that wait; further ones are dropped
	closeTimeout  = 800 * time.Millisecond // what a stop may wait for the last spans: it has a timeout of its own
)

// Config says where spans go and whose they are.
type Config struct {
	Endpoint string // base URL of an OTLP/HTTP receiver; empty: OpenTelemetry's own variables say where to, or there is no tracing
	Build    string
	Worker   string
	Group    string
	Topic    string // the input
	Output   string // where events go
}

// Tracing makes the spans. A nil one makes none.
type Tracing struct {
	cfg      Config
	provider *sdktrace.TracerProvider
	exporter sdktrace.SpanExporter // nil: somebody else's
	tracer   trace.Tracer
	fixed    []attribute.KeyValue

	mu       sync.Mutex
	captures map[position]trace.SpanContext // of what is captured and not yet published
}

// position is where a capture ended, and therefore where its publish ends.
type position struct {
	partition int32
	to        int64
}

// Start returns nil if neither an endpoint nor OpenTelemetry's own variables (OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_ENDPOINT, …) ask for traces. It
// does not wait for the collector. The variables for headers, sampling, certificates and resources apply in either case.
func Start(ctx context.Context, cfg Config, log *zap.Logger) (*Tracing, error) {
	exporter, err := newExporter(ctx, cfg.Endpoint)
	if err != nil || exporter == nil {
		return nil, err // nothing to do is no error, and a nil Tracing does it
	}
	var once sync.Once
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		once.Do(func() { log.Warn("traces are lost: the collector does not take them", zap.Error(err)) })
	}))
	t := newTracing(cfg, sdktrace.NewBatchSpanProcessor(exporter, sdktrace.WithBatchTimeout(exportEvery),
		sdktrace.WithMaxQueueSize(exportQueue), sdktrace.WithExportTimeout(exportTimeout)))
	t.exporter = exporter
	return t, nil
}

// asked says whether OpenTelemetry's own variables ask for traces.
func asked() bool {
	if os.Getenv("OTEL_SDK_DISABLED") == "true" || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	for _, v := range []string{"OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		if os.Getenv(v) != "" {
			return true
		}
	}
	return false
}

// newExporter is nil if nobody wants traces.
func newExporter(ctx context.Context, endpoint string) (sdktrace.SpanExporter, error) {
	if endpoint == "" {
		if !asked() {
			return nil, nil //nolint:nilnil // see Start
		}
		e, err := autoexport.NewSpanExporter(ctx)
		if err != nil {
			return nil, fmt.Errorf("traces, as OTEL_TRACES_EXPORTER=%q and its like say: %w", os.Getenv("OTEL_TRACES_EXPORTER"), err)
		}
		return e, nil
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("telemetry.otlp_endpoint: %w", err)
	}
	if !strings.HasSuffix(u.Path, "/v1/traces") {
		u = u.JoinPath("v1/traces")
	}
	e, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String()), otlptracehttp.WithTimeout(exportTimeout),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	if err != nil {
		return nil, fmt.Errorf("telemetry.otlp_endpoint: %w", err)
	}
	return e, nil
}

func newTracing(cfg Config, p sdktrace.SpanProcessor) *Tracing {
	own := resource.NewWithAttributes(semconv.SchemaURL, semconv.ServiceName("exactly"), semconv.ServiceVersion(cfg.Build), semconv.ServiceInstanceID(cfg.Worker))
	res, err := resource.Merge(own, resource.Environment()) // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win
	if err != nil {
		res = own // of another version of the conventions
	}
	t := &Tracing{cfg: cfg, captures: map[position]trace.SpanContext{}, provider: sdktrace.NewTracerProvider(
		sdktrace.WithResource(res), sdktrace.WithSpanProcessor(p))}
	t.tracer = t.provider.Tracer("github.com/exactly-pipeline/exactly", trace.WithSchemaURL(semconv.SchemaURL))
	t.fixed = []attribute.KeyValue{
		semconv.MessagingSystemKafka, semconv.MessagingConsumerGroupName(cfg.Group), attribute.String("exactly.worker", cfg.Worker),
	}
	return t
}

// Postgres is what pgx is to tell of statements: a span each, within a capture's. nil: nothing.
func (t *Tracing) Postgres() pgx.QueryTracer {
	if t == nil {
		return nil
	}
	return otelpgx.NewTracer(otelpgx.WithTracerProvider(t.provider))
}

// Click begins a click's trace, as its producer, and returns what its traceparent header is, and what ends the span. Not sampled: no header, and it is "".
func (t *Tracing) Click(topic string) (traceparent string, sent func(error)) {
	_, span := t.tracer.Start(context.Background(), "send "+topic, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(
		semconv.MessagingSystemKafka, semconv.MessagingOperationName("send"), semconv.MessagingOperationTypeSend, semconv.MessagingDestinationName(topic)))
	s := span.SpanContext()
	if s.IsSampled() {
		traceparent = "00-" + s.TraceID().String() + "-" + s.SpanID().String() + "-" + s.TraceFlags().String()
	}
	return traceparent, func(err error) {
		failed(span, err, "")
		span.End()
	}
}

// Close sends what is left, for a short while.
func (t *Tracing) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil && t.exporter != nil {
		_ = t.exporter.Shutdown(ctx) // or the provider goes on trying, batch by batch, behind our back
	}
}

// Store is s, with a span for each capture.
func (t *Tracing) Store(s engine.Store) engine.Store {
	if t == nil {
		return s
	}
	return &store{s, t}
}

// Publisher is p, with a span for each Kafka transaction.
func (t *Tracing) Publisher(p engine.Publisher) engine.Publisher {
	if t == nil {
		return p
	}
	return &publisher{Publisher: p, t: t}
}

// maxCaptures bounds what is remembered of captures whose partitions were given up before they were published.
const maxCaptures = 4096

// captured remembers a span until what it captured is published.
func (t *Tracing) captured(batches []*engine.Batch, seqs []int64, s trace.SpanContext) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.captures) >= maxCaptures {
		clear(t.captures)
	}
	for i, b := range batches {
		if seqs[i] != 0 {
			t.captures[position{b.Partition, b.To}] = s
		}
	}
}

// takeCaptures links to the captures of what is being published. What is published may be asked for again: only done forgets them.
func (t *Tracing) takeCaptures(items []engine.Item, l *links, done bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range items {
		at := position{items[i].Partition, items[i].To}
		if s, ok := t.captures[at]; ok && len(l.to) < maxLinks/2 { // the other half is the clicks'
			l.add(s)
		}
		if done {
			delete(t.captures, at)
		}
	}
}
