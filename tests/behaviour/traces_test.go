package behaviour

import (
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
)

// spans is a collector, in this process.
type spans struct {
	url string
	mu  sync.Mutex
	all []*trace.Span
}

func newSpans(t *testing.T) *spans {
	s := &spans{}
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
		var req collector.ExportTraceServiceRequest
		if err != nil || proto.Unmarshal(b, &req) != nil {
			http.Error(w, "not OTLP", http.StatusBadRequest)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, rs := range req.GetResourceSpans() {
			for _, ss := range rs.GetScopeSpans() {
				s.all = append(s.all, ss.GetSpans()...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

func (s *spans) named(prefix string) (out []*trace.Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range s.all {
		if strings.HasPrefix(span.GetName(), prefix) {
			out = append(out, span)
		}
	}
	return out
}

// traceparent is how a span is named in a header.
func traceparent(s *trace.Span) string {
	return "00-" + hex.EncodeToString(s.GetTraceId()) + "-" + hex.EncodeToString(s.GetSpanId()) + "-01"
}

func linksTo(s, to *trace.Span) bool {
	return slices.ContainsFunc(s.GetLinks(), func(l *trace.Span_Link) bool {
		return string(l.GetTraceId()) == string(to.GetTraceId()) && string(l.GetSpanId()) == string(to.GetSpanId())
	})
}

// A click's trace begins with its producer and goes on, through capture, outbox and output topic, to whoever reads the output; also where the worker that
// captured it was killed and another one published it. Transactions are a span each, with links to the clicks' traces.
func TestTraceOfAClick(t *testing.T) {
	got := newSpans(t)
	b := setup(t, "EXACTLY_TELEMETRY_OTLP_ENDPOINT="+got.url)
	const traced, n = 5, 2000 // fewer than the half of a span's links that is the clicks'
	generate := func(from int) {
		b.exactly("generate", "--rate", "0", "--count", fmt.Sprint(n), "--seed", fmt.Sprint(from), "--trace-share", fmt.Sprint(float64(traced)/n))
		b.sent += n
	}
	generate(1)
	b.start("a", failpoint(fp.CaptureCommitted+"=kill@2")).killed(fp.CaptureCommitted)
	require.Greater(t, b.stored(), max(b.published(), 0), "it left nothing to be drained")
	w := b.start("b")
	b.settle()
	second := uint64(time.Now().UnixNano())
	generate(2)
	b.settle()
	w.stop() // what spans it still has are sent

	sent := got.named("send " + b.cfg.Topics.Input)
	require.Len(t, sent, 2*traced)
	headers := b.traceparents()
	require.Len(t, headers, 2*traced, "each once, in the output topic")
	require.EqualValues(t, 2*traced, b.scalar(`SELECT count(*) FROM outbox WHERE convert_from(headers, 'LATIN1') LIKE '%traceparent%'`))
	drains, publishes := got.named("drain "+b.cfg.Topics.Output), got.named("publish "+b.cfg.Topics.Output)
	captures := got.named("capture " + b.cfg.Topics.Input)
	require.NotEmpty(t, drains)
	drained := 0
	for _, s := range sent {
		require.Contains(t, headers, traceparent(s))
		by := func(spans []*trace.Span) bool {
			return slices.ContainsFunc(spans, func(o *trace.Span) bool { return linksTo(o, s) })
		}
		switch {
		case by(drains):
			drained++
		case s.GetStartTimeUnixNano() < second: // published by the one that was killed, whose spans went with it
		default:
			require.True(t, by(publishes), "no transaction links to %s", traceparent(s))
			require.True(t, by(captures), "no capture links to %s", traceparent(s))
		}
	}
	require.Positive(t, drained, "nothing that was traced was drained")
	for _, p := range publishes {
		require.LessOrEqual(t, len(p.GetLinks()), 16)
	}
	// Statements stand within captures.
	statements := 0
	for _, q := range got.named("") {
		for _, c := range captures {
			if string(q.GetParentSpanId()) == string(c.GetSpanId()) {
				statements++
			}
		}
	}
	require.GreaterOrEqual(t, statements, len(captures), "captures without their statements")
	require.Less(t, len(got.named("")), 60*(len(captures)+len(publishes)+len(drains))+2*traced, "a span a record")

	// And on, to whoever reads the output.
	exporter, err := otlptracehttp.New(b.ctx, otlptracehttp.WithEndpointURL(got.url+"/v1/traces"))
	require.NoError(t, err)
	downstream := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	ctx := propagation.TraceContext{}.Extract(b.ctx, propagation.MapCarrier{"traceparent": traceparent(sent[0])})
	_, span := downstream.Tracer("downstream").Start(ctx, "process "+b.cfg.Topics.Output)
	span.End()
	require.NoError(t, downstream.Shutdown(b.ctx))
	read := got.named("process " + b.cfg.Topics.Output)
	require.Len(t, read, 1)
	require.Equal(t, sent[0].GetTraceId(), read[0].GetTraceId(), "the trace was broken on the way")
	require.Equal(t, sent[0].GetSpanId(), read[0].GetParentSpanId())
}

// traceparents are those in the output topic, as a consumer of committed records sees them, by how often.
func (b *bundle) traceparents() map[string]int {
	b.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(b.cfg.Kafka.Brokers, ",")...), kgo.ConsumeTopics(b.cfg.Topics.Output),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(b.t, err)
	defer cl.Close()
	out := map[string]int{}
	for seen := int64(0); seen < b.sent; {
		fs := cl.PollFetches(b.ctx)
		require.NoError(b.t, fs.Err())
		fs.EachRecord(func(r *kgo.Record) {
			seen++
			for _, h := range r.Headers {
				if h.Key == "traceparent" {
					out[string(h.Value)]++
				}
			}
		})
	}
	for h, n := range out {
		require.Equal(b.t, 1, n, h)
	}
	return out
}
