package audit

import "github.com/exactly-pipeline/exactly/outbox"

// failure is what a dead letter has beside its record's key and value: why it is one, and the record's own headers as the column holds them. The DLQ's
// record says the same in headers of ours, which stand behind the record's own.
type failure struct{ class, stage, message, headers []byte }

const (
	errorClassHeader   = "exactly-error-class"
	errorStageHeader   = "__connect.errors.stage"
	errorMessageHeader = "__connect.errors.exception.message"
)

// failureOf reads it from a message. What a replay adds stands behind ours, and is left out as they are.
func failureOf(hs []outbox.Header) failure {
	own := hs
	for i := len(hs) - 1; i >= 0; i-- {
		if hs[i].Key == sourceHeader {
			own = hs[:i]
			break
		}
	}
	value := func(key string) []byte { return []byte(header(hs, key)) }
	return failure{value(errorClassHeader), value(errorStageHeader), value(errorMessageHeader), outbox.AppendHeaders(nil, own)}
}

// letter covers a dead letter's failure.
func (s *scratch) letter(offset int64, f failure) *scratch {
	s.begin()
	s.int(offset)
	s.text(f.class)
	s.text(f.stage)
	s.text(f.message)
	s.text(f.headers)
	return s
}
