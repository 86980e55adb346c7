// Package tracing owns OpenTelemetry: one span a capture and one a Kafka transaction, sent over OTLP/HTTP.
//
// It promises that nothing is spent while it is off: then neither store nor publisher is wrapped. While it is on, a span costs what a
// transaction's partitions cost, not its records, but for the look for traceparent headers; and a collector that is away costs spans, never
// a transaction. It never logs or sends a key, a value, an ip or a url.
package tracing

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
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
	Endpoint string // base URL of an OTLP/HTTP receiver; empty: no tracing
	Build    string
	Worker   string
	Group    string
	Topic    string // the input
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

// Start returns nil if no endpoint is set. It does not wait for the collector. OpenTelemetry's own variables for headers, sampling and
// certificates (OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER, …) apply.
func Start(ctx context.Context, cfg Config, log *zap.Logger) (*Tracing, error) {
	if cfg.Endpoint == "" {
		return nil, nil //nolint:nilnil // nothing to do is no error, and a nil Tracing does it
	}
	u, err := url.Parse(cfg.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("telemetry.otlp_endpoint: %w", err)
	}
	if !strings.HasSuffix(u.Path, "/v1/traces") {
		u = u.JoinPath("v1/traces")
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String()), otlptracehttp.WithTimeout(exportTimeout),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
	if err != nil {
		return nil, fmt.Errorf("telemetry.otlp_endpoint: %w", err)
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

func newTracing(cfg Config, p sdktrace.SpanProcessor) *Tracing {
	res := resource.NewSchemaless(attribute.String("service.name", "exactly"), attribute.String("service.version", cfg.Build),
		attribute.String("service.instance.id", cfg.Worker))
	t := &Tracing{cfg: cfg, captures: map[position]trace.SpanContext{}, provider: sdktrace.NewTracerProvider(
		sdktrace.WithResource(res), sdktrace.WithSpanProcessor(p))}
	t.tracer = t.provider.Tracer("github.com/exactly-pipeline/exactly")
	t.fixed = []attribute.KeyValue{
		attribute.String("messaging.system", "kafka"), attribute.String("messaging.consumer.group.name", cfg.Group),
		attribute.String("exactly.worker", cfg.Worker),
	}
	return t
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
	return &publisher{p, t}
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
		if s, ok := t.captures[at]; ok {
			l.add(s)
		}
		if done {
			delete(t.captures, at)
		}
	}
}
