package tracing

import (
	"encoding/hex"

	"go.opentelemetry.io/otel/trace"

	"github.com/exactly-pipeline/exactly/outbox"
)

// maxLinks bounds the links of a span: enough to get from a slow transaction to some of the clicks in it, and back.
const maxLinks = 16

// links are the spans a transaction belongs to: the captures it publishes, and some of the records' producers.
type links struct{ to []trace.SpanContext }

// add takes one more, once for each trace.
func (l *links) add(s trace.SpanContext) {
	if len(l.to) >= maxLinks {
		return
	}
	for i := range l.to {
		if l.to[i].TraceID() == s.TraceID() {
			return
		}
	}
	l.to = append(l.to, s)
}

// find looks for traceparent headers, until there are enough. Those that were not sampled lead nowhere and are left out.
func (l *links) find(messages []outbox.Message) {
	for i := range messages {
		if len(l.to) >= maxLinks {
			return
		}
		for _, h := range messages[i].Headers {
			if h.Key == "traceparent" {
				if s, ok := parse(h.Value); ok {
					l.add(s)
				}
				break
			}
		}
	}
}

func (l *links) addTo(span trace.Span) {
	for i := range l.to {
		span.AddLink(trace.Link{SpanContext: l.to[i]})
	}
}

// parse reads a traceparent header (W3C Trace Context, 3.2): version, trace id, parent id and flags in lower-case hex. It says no to one
// that is malformed or was not sampled. Later versions may be longer, behind another dash.
func parse(b []byte) (trace.SpanContext, bool) {
	if len(b) < 55 || b[2] != '-' || b[35] != '-' || b[52] != '-' || (len(b) > 55 && (b[55] != '-' || string(b[:2]) == "00")) {
		return trace.SpanContext{}, false
	}
	for _, c := range b[:55] {
		if c >= 'A' && c <= 'F' {
			return trace.SpanContext{}, false
		}
	}
	var version, flags [1]byte
	var id trace.TraceID
	var parent trace.SpanID
	for _, part := range []struct{ to, from []byte }{{version[:], b[0:2]}, {id[:], b[3:35]}, {parent[:], b[36:52]}, {flags[:], b[53:55]}} {
		if _, err := hex.Decode(part.to, part.from); err != nil {
			return trace.SpanContext{}, false
		}
	}
	s := trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: parent, TraceFlags: trace.TraceFlags(flags[0]), Remote: true})
	return s, version[0] != 0xff && s.IsValid() && s.IsSampled()
}
