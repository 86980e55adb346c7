package engine

import (
	"fmt"

	"github.com/exactly-pipeline/exactly/outbox"
)

// tooLarge is a message that could never be published. It must not be captured: what is, is owed, and tried again for as long as it takes, with all that
// stands behind it. So an event makes its record a dead letter; a dead letter, which has to be the record untouched, stops its partition.
type tooLarge struct {
	what        string
	topic       string
	offset      int64
	size, limit int
}

// unpublishable says what of a message is too large; nil: nothing.
func (s *Shape) unpublishable(m *outbox.Message) *tooLarge {
	if s.MaxMessage <= 0 {
		return nil
	}
	n := m.WireSize()
	if n <= s.MaxMessage {
		return nil
	}
	what := "event"
	if m.Topic == s.DLQ {
		what = "dead letter"
	}
	return &tooLarge{what, m.Topic, m.SourceOffset, n, s.MaxMessage}
}

func (e *tooLarge) permanent() *Permanent {
	return &Permanent{Class: ClassTooLarge, Stage: "publish", Message: fmt.Sprintf("its %s for %s takes %d bytes, no more than %d can be published", e.what, e.topic, e.size, e.limit)}
}

func (e *tooLarge) Error() string { return e.Broken() }

// Broken makes the engine stop the partition until a person has decided.
func (e *tooLarge) Broken() string {
	return fmt.Sprintf("the %s of offset %d would take %d bytes of %s, and no more than %d can be published: nothing from there on is. Raise max.message.bytes of the output topics "+
		"(no client here sends more than 16 MiB) and restart the worker; or go on behind it, on the record: exactly offsets reset --to %d --reason …", e.what, e.offset, e.size, e.topic, e.limit, e.offset+1)
}

// Reason is what metrics call it.
func (e *tooLarge) Reason() string { return ReasonKafka }

// unpublishable is the first message of a gap that can't be published, an older program's; nil: all can.
func (w *Worker) unpublishable(ms []outbox.Message) error {
	for i := range ms {
		if big := w.cfg.Shape.unpublishable(&ms[i]); big != nil {
			return big
		}
	}
	return nil
}
