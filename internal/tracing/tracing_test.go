package tracing

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/protobuf/proto"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/outbox"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeStore answers captures.
type fakeStore struct {
	engine.Store
	seqs []int64
	err  error
}

func (f *fakeStore) Capture(context.Context, []*engine.Batch) ([]int64, error) { return f.seqs, f.err }

// fakePublisher answers publishes.
type fakePublisher struct {
	engine.Publisher
	outcome engine.Outcome
	err     error
	calls   int
}

func (f *fakePublisher) Publish([]engine.Item, engine.Stamp, func() bool) (engine.Outcome, error) {
	f.calls++
	return f.outcome, f.err
}

var config = Config{Endpoint: "http://unused", Build: "v1", Worker: "w1", Group: "g", Topic: "in", Output: "out"}

func inMemory(t *testing.T) (*Tracing, *tracetest.InMemoryExporter) {
	t.Helper()
	e := tracetest.NewInMemoryExporter()
	tr := newTracing(config, sdktrace.NewSimpleSpanProcessor(e))
	t.Cleanup(tr.Close)
	return tr, e
}

// message is one event, with the headers it was captured with.
func message(offset int64, traceparent string) outbox.Message {
	m := outbox.Message{SourceOffset: offset, Topic: "out", Headers: []outbox.Header{{Key: "exactly-source", Value: []byte("in/0/0")}}}
	if traceparent != "" {
		m.Headers = append(m.Headers, outbox.Header{Key: "traceparent", Value: []byte(traceparent)})
	}
	return m
}

func traceparent(n int, flags string) string { return fmt.Sprintf("00-%032x-%016x-%s", n, n, flags) }

func batch(partition int32, from, to, epoch int64, messages ...outbox.Message) *engine.Batch {
	return &engine.Batch{Partition: partition, From: from, To: to, Epoch: epoch, Records: to - from, Rows: to - from - 1, DeadLetters: 1, Messages: messages}
}

func values(s tracetest.SpanStub) map[string]any {
	out := map[string]any{}
	for _, kv := range s.Attributes {
		out[string(kv.Key)] = kv.Value.AsInterface()
	}
	return out
}

func TestOffWrapsNothing(t *testing.T) {
	tr, err := Start(t.Context(), Config{}, zap.NewNop())
	require.NoError(t, err)
	require.Nil(t, tr)
	s, p := &fakeStore{}, &fakePublisher{}
	require.Same(t, s, tr.Store(s))
	require.Same(t, p, tr.Publisher(p))
	tr.Close()
}

// A capture and the publish of what it captured: each a span with its partitions side by side, the second linked to the first.
func TestCaptureAndPublish(t *testing.T) {
	tr, out := inMemory(t)
	s, p := tr.Store(&fakeStore{seqs: []int64{7, 0}}), tr.Publisher(&fakePublisher{outcome: engine.Committed})
	batches := []*engine.Batch{
		batch(0, 100, 110, 4, message(100, traceparent(1, "01")), message(101, "")), batch(3, 50, 60, 9, message(50, traceparent(2, "01"))),
	}
	seqs, err := s.Capture(t.Context(), batches)
	require.NoError(t, err)
	require.Equal(t, []int64{7, 0}, seqs)
	outcome, err := p.Publish([]engine.Item{
		{Partition: 0, To: 110, Epoch: 4, Bytes: 900, Messages: []outbox.Message{message(100, traceparent(1, "01")), message(101, "")}},
		{Partition: 0, To: 120, Epoch: 4, Bytes: 100, Messages: []outbox.Message{message(110, "")}},
		{Partition: 1, To: 30, Epoch: 2},
	}, nil, nil)
	require.NoError(t, err)
	require.Equal(t, engine.Committed, outcome)

	spans := out.GetSpans()
	require.Len(t, spans, 2)
	capture, publish := spans[0], spans[1]
	require.Equal(t, "capture in", capture.Name)
	require.Equal(t, capture.SpanContext.TraceID().String(), batches[1].Trace, "logs and exemplars lead to it")
	require.Equal(t, publish.SpanContext.TraceID().String(), p.(engine.Traced).Trace())
	got := values(capture)
	for name, want := range map[string]any{
		"messaging.system": "kafka", "messaging.operation.name": "capture", "messaging.operation.type": "process", "messaging.destination.name": "in",
		"messaging.batch.message_count": int64(20), "messaging.consumer.group.name": "g",
	} {
		require.Equal(t, want, got[name], name)
	}
	require.Equal(t, []int64{0, 3}, got["exactly.partitions"])
	require.Equal(t, []int64{100, 50}, got["exactly.from_offsets"])
	require.Equal(t, []int64{110, 60}, got["exactly.to_offsets"])
	require.Equal(t, []int64{4, 9}, got["exactly.epochs"])
	require.Equal(t, []int64{3}, got["exactly.refused_partitions"])
	require.Equal(t, int64(20), got["exactly.records"])
	require.Equal(t, int64(2), got["exactly.dead_letters"])
	require.Equal(t, "w1", got["exactly.worker"])
	require.Len(t, capture.Links, 2)
	require.Equal(t, fmt.Sprintf("%032x", 1), capture.Links[0].SpanContext.TraceID().String())
	require.Contains(t, capture.Resource.Attributes(), attribute.String("service.instance.id", "w1"))

	require.Equal(t, "publish out", publish.Name)
	got = values(publish)
	require.Equal(t, []int64{0, 1}, got["exactly.partitions"])
	require.Equal(t, []int64{100, 30}, got["exactly.from_offsets"])
	require.Equal(t, []int64{120, 30}, got["exactly.to_offsets"])
	require.Equal(t, int64(3), got["exactly.messages"])
	for name, want := range map[string]any{
		"messaging.system": "kafka", "messaging.operation.name": "publish", "messaging.operation.type": "send", "messaging.destination.name": "out",
		"messaging.batch.message_count": int64(3), "exactly.input": "in",
	} {
		require.Equal(t, want, got[name], name)
	}
	require.Equal(t, "committed", got["exactly.outcome"])
	require.Len(t, publish.Links, 2)
	require.Equal(t, capture.SpanContext.SpanID(), publish.Links[0].SpanContext.SpanID())
	require.Len(t, tr.captures, 0, "what is published is forgotten; what was refused was never remembered")
}

// The same bytes again after an abort still know their capture.
func TestAbortedAndAgain(t *testing.T) {
	tr, out := inMemory(t)
	f := &fakePublisher{outcome: engine.Aborted, err: errors.New("no room")}
	s, p := tr.Store(&fakeStore{seqs: []int64{1}}), tr.Publisher(f)
	_, err := s.Capture(t.Context(), []*engine.Batch{batch(0, 0, 5, 1)})
	require.NoError(t, err)
	item := []engine.Item{{Partition: 0, To: 5, Epoch: 1, Drain: true}}
	_, err = p.Publish(item, nil, nil)
	require.Error(t, err)
	f.outcome, f.err = engine.Committed, nil
	_, err = p.Publish(item, nil, nil)
	require.NoError(t, err)
	spans := out.GetSpans()
	require.Len(t, spans, 3)
	for _, publish := range spans[1:] {
		require.Equal(t, "drain out", publish.Name)
		require.Len(t, publish.Links, 1)
		require.Equal(t, spans[0].SpanContext.SpanID(), publish.Links[0].SpanContext.SpanID())
	}
	require.Equal(t, codes.Error, spans[1].Status.Code)
	require.Equal(t, codes.Unset, spans[2].Status.Code)
}

func TestCaptureFails(t *testing.T) {
	tr, out := inMemory(t)
	s := tr.Store(&fakeStore{err: errors.New("connection reset")})
	_, err := s.Capture(t.Context(), []*engine.Batch{batch(0, 0, 5, 1)})
	require.EqualError(t, err, "connection reset")
	spans := out.GetSpans()
	require.Len(t, spans, 1)
	require.Equal(t, codes.Error, spans[0].Status.Code)
	require.NotContains(t, values(spans[0]), "exactly.refused_partitions")
	require.Empty(t, tr.captures)
}

func TestLinksAreBounded(t *testing.T) {
	var l links
	var all []outbox.Message
	for i := range 3 * maxLinks {
		all = append(all, message(int64(i), traceparent(1+i/2, "01"))) // two records a trace
	}
	l.find(all)
	require.Len(t, l.to, maxLinks)
	seen := map[string]bool{}
	for _, s := range l.to {
		require.False(t, seen[s.TraceID().String()], "one trace, two links")
		seen[s.TraceID().String()] = true
	}
}

func TestCapturesAreBounded(t *testing.T) {
	tr, _ := inMemory(t)
	s := tr.Store(&fakeStore{seqs: []int64{1}})
	for i := range int64(maxCaptures + 10) { // nothing is ever published
		_, err := s.Capture(t.Context(), []*engine.Batch{batch(0, i, i+1, 1)})
		require.NoError(t, err)
	}
	require.LessOrEqual(t, len(tr.captures), maxCaptures)
}

func TestTraceparent(t *testing.T) {
	good := traceparent(0xabc, "01")
	for _, c := range []struct {
		header string
		ok     bool
	}{
		{good, true},
		{traceparent(1, "03"), true},
		{traceparent(1, "00"), false}, // not sampled: leads nowhere
		{"cc" + good[2:] + "-what-the-future-holds", true},
		{good + "-x", false}, // version 00 ends there
		{"ff" + good[2:], false},
		{traceparent(0, "01"), false},
		{good[:54], false},
		{"", false},
		{"00-0AF7651916CD43DD8448EB211C80319C-00f067aa0ba902b7-01", false}, // upper case
		{"00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902bx-01", false},
		{"00x0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01", false},
	} {
		_, ok := parse([]byte(c.header))
		require.Equal(t, c.ok, ok, c.header)
	}
}

// A receiver of the real protocol gets them, at the standard path, before Close returns.
func TestOverTheWire(t *testing.T) {
	got := make(chan *collector.ExportTraceServiceRequest, 4)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(r.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			body = z
		}
		b, err := io.ReadAll(body)
		req := &collector.ExportTraceServiceRequest{}
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(b, req) != nil {
			http.Error(w, "not OTLP: "+r.URL.Path, http.StatusBadRequest)
			return
		}
		got <- req
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer srv.Close()
	for _, endpoint := range []string{srv.URL, srv.URL + "/", srv.URL + "/v1/traces", ""} {
		if endpoint == "" { // OpenTelemetry's own variables say it
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", srv.URL)
		}
		cfg := config
		cfg.Endpoint = endpoint
		core, logs := observer.New(zap.WarnLevel)
		tr, err := Start(t.Context(), cfg, zap.New(core))
		require.NoError(t, err)
		_, err = tr.Store(&fakeStore{seqs: []int64{1}}).Capture(t.Context(), []*engine.Batch{batch(2, 0, 5, 1, message(0, traceparent(9, "01")))})
		require.NoError(t, err)
		tr.Close()
		require.Empty(t, logs.All(), endpoint)
		require.Len(t, got, 1, endpoint)
		spans := (<-got).GetResourceSpans()[0].GetScopeSpans()[0].GetSpans()
		require.Len(t, spans, 1)
		require.Equal(t, "capture in", spans[0].GetName())
		require.Len(t, spans[0].GetLinks(), 1)
	}
}

// Nobody asks for traces, or somebody asks for none.
func TestNotAsked(t *testing.T) {
	for _, env := range []map[string]string{
		{}, {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"},
	} {
		for _, n := range []string{"OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SDK_DISABLED"} {
			t.Setenv(n, env[n])
		}
		tr, err := Start(t.Context(), Config{}, zap.NewNop())
		require.NoError(t, err)
		require.Nil(t, tr)
		require.Nil(t, tr.Postgres())
	}
	t.Setenv("OTEL_SDK_DISABLED", "")
	t.Setenv("OTEL_TRACES_EXPORTER", "carrier pigeon")
	_, err := Start(t.Context(), Config{}, zap.NewNop())
	require.ErrorContains(t, err, "carrier pigeon")
}

// A click's trace begins with its producer; what is not sampled has no header.
func TestClick(t *testing.T) {
	tr, out := inMemory(t)
	header, sent := tr.Click("in")
	sent(nil)
	_, sent = tr.Click("in")
	sent(errors.New("queue full"))
	spans := out.GetSpans()
	require.Len(t, spans, 2)
	s, ok := parse([]byte(header))
	require.True(t, ok)
	require.Equal(t, spans[0].SpanContext.TraceID(), s.TraceID())
	require.Equal(t, spans[0].SpanContext.SpanID(), s.SpanID())
	require.Equal(t, "send in", spans[0].Name)
	require.Equal(t, "in", values(spans[0])["messaging.destination.name"])
	require.Equal(t, codes.Unset, spans[0].Status.Code)
	require.Equal(t, codes.Error, spans[1].Status.Code)
	require.NotEmpty(t, values(spans[1])["error.type"])

	t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
	tr, out = inMemory(t)
	header, sent = tr.Click("in")
	sent(nil)
	require.Empty(t, header)
	require.Empty(t, out.GetSpans())
}

// A collector that never answers costs the transactions nothing, and the stop little; it is said once.
func TestCollectorIsAway(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0") // accepts, never answers
	require.NoError(t, err)
	defer l.Close()
	cfg := config
	cfg.Endpoint = "http://" + l.Addr().String()
	core, logs := observer.New(zap.WarnLevel)
	tr, err := Start(t.Context(), cfg, zap.New(core))
	require.NoError(t, err)
	f := &fakePublisher{outcome: engine.Committed}
	p := tr.Publisher(f)
	start := time.Now()
	for range 4 * exportQueue { // more than can wait: the rest is dropped
		_, err := p.Publish([]engine.Item{{Partition: 0, To: 1}}, nil, nil)
		require.NoError(t, err)
	}
	require.Less(t, time.Since(start), 8*exportTimeout, "the transactions waited for the collector")
	require.Equal(t, 4*exportQueue, f.calls)
	start = time.Now()
	tr.Close()
	require.Less(t, time.Since(start), 2*exportTimeout, "the stop waited for the collector")
	require.LessOrEqual(t, logs.Len(), 1)
	// A connection that was made for a request given up meanwhile stays idle for a while, and sends nothing.
	idle := []goleak.Option{goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"), goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop")}
	for err = goleak.Find(idle...); err != nil && time.Since(start) < 3*exportTimeout; err = goleak.Find(idle...) { // each waits about a second
	}
	require.NoError(t, err, "something still tries to send")
}
