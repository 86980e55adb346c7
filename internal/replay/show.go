package replay

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/exactly-pipeline/exactly/schema"
)

// Shown is a dead letter for people and programs.
type Shown struct {
	Origin     string    `json:"origin"` // topic/partition/offset of the first record
	Attempt    int       `json:"attempt"`
	State      string    `json:"state"`
	CapturedAt time.Time `json:"captured_at"`
	Class      string    `json:"class"`
	Stage      string    `json:"stage"`
	Message    string    `json:"message"`

	*Content
}

// Content is what was sent.
type Content struct {
	SchemaID *int          `json:"schema_id,omitempty"` // of the Confluent wire format
	Key      any           `json:"key"`                 // text, or hexadecimal: {"hex": …}
	Value    any           `json:"value"`               // the click, text, or hexadecimal
	Headers  []ShownHeader `json:"headers"`
	KeyRaw   []byte        `json:"key_base64"`
	ValueRaw []byte        `json:"value_base64"`
}

// ShownHeader is one header, in its place.
type ShownHeader struct {
	Key   string `json:"key"`
	Value any    `json:"value"`
}

// Head is a letter without what was sent.
func Head(l *Letter) Shown {
	return Shown{Origin: l.Origin(), Attempt: l.Attempt, State: l.State, CapturedAt: l.CreatedAt, Class: l.Class, Stage: l.Stage, Message: l.Message}
}

// Whole is a letter with what was sent, decoded as far as that goes.
func Whole(ctx context.Context, l *Letter, d *schema.ClickDecoder) Shown {
	s := Head(l)
	c := &Content{Key: readable(l.Key), KeyRaw: l.Key, ValueRaw: l.Value, Headers: []ShownHeader{}}
	if id, err := schema.SchemaID(l.Value); err == nil {
		c.SchemaID = &id
	}
	c.Value = value(ctx, l.Value, d)
	for _, h := range l.Headers {
		c.Headers = append(c.Headers, ShownHeader{h.Key, readable(h.Value)})
	}
	s.Content = c
	return s
}

// value is a click if its bytes are one, valid or not; a JSON document; or what readable makes of it.
func value(ctx context.Context, b []byte, d *schema.ClickDecoder) any {
	var click schema.Click
	if d != nil && d.Decode(ctx, b, &click) == nil {
		return map[string]any{"user_id": click.UserID, "session_id": click.SessionID, "timestamp_ms": click.TimestampMs, "url": click.URL, "ip": click.IP}
	}
	if len(b) > 0 && (b[0] == '{' || b[0] == '[') && json.Valid(b) {
		return json.RawMessage(b)
	}
	return readable(b)
}

func readable(b []byte) any {
	if b == nil {
		return nil
	}
	if utf8.Valid(b) {
		for _, r := range string(b) {
			if !unicode.IsPrint(r) && !unicode.IsSpace(r) {
				return map[string]string{"hex": hex.EncodeToString(b)}
			}
		}
		return string(b)
	}
	return map[string]string{"hex": hex.EncodeToString(b)}
}
