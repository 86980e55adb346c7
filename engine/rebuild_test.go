package engine_test

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/clicks"
	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/outbox"
	"github.com/exactly-pipeline/exactly/schema"
)

var shape = &engine.Shape{Input: "in", DLQ: "dlq", Partitions: map[string]int{"out": 12, "dlq": 5}}

// registry knows ClickAvsc as 1 and EnrichedClickAvsc as 2.
func registry(t testing.TB) *schema.Registry {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		avsc, ok := map[string]string{"1": schema.ClickAvsc, "2": schema.EnrichedClickAvsc}[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"error_code": 40403, "message": "Schema not found"}`))
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"schema": avsc})
	}))
	t.Cleanup(srv.Close)
	reg, err := schema.NewRegistry(srv.URL, nil)
	require.NoError(t, err)
	t.Cleanup(reg.Close)
	return reg
}

// records are clicks and what is none, with all that a record's key and headers can be.
func records(r *rand.Rand, from int64, n int) []engine.Record {
	enc := schema.NewClickEncoder(1)
	gen := clicks.NewGenerator(clicks.GeneratorConfig{Seed: r.Uint64(), BadShare: 0.2})
	headers := []outbox.Header{
		{Key: "traceparent", Value: []byte("00-1-2-01")}, {Key: "a", Value: nil}, {Key: "a", Value: []byte{}}, {Key: "", Value: []byte("x")},
		{Key: "exactly-source", Value: []byte("in/9/9")}, {Key: "exactly-geo", Value: []byte("theirs")}, {Key: "exactly-error-class", Value: []byte("theirs")},
		{Key: "__connect.errors.stage", Value: nil},
	}
	var out []engine.Record
	for i := range n {
		var c schema.Click
		defect := gen.Next(&c)
		rec := engine.Record{Partition: 3, Offset: from + int64(i), TimestampMs: c.TimestampMs, Value: defect.Damage(enc.Append(nil, &c))}
		switch r.IntN(6) {
		case 0: // no key
		case 1:
			rec.Key = []byte{}
		case 2:
			c.IP = "::ffff:192.0.2.7"
			rec.Value = enc.Append(nil, &c)
			fallthrough
		default:
			rec.Key = strconv.AppendInt(nil, c.UserID, 10)
		}
		switch r.IntN(12) {
		case 0:
			rec.Value = nil
		case 1:
			rec.Value = []byte{}
		case 2:
			rec.TimestampMs = 0
		}
		for range r.IntN(4) {
			rec.Headers = append(rec.Headers, headers[r.IntN(len(headers))])
		}
		out = append(out, rec)
	}
	return out
}

// What a capture writes can be made again out of what it publishes: every row and every dead letter, byte for byte.
func TestRebuildIsTheInverse(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	reg := registry(t)
	geo, err := clicks.OpenGeo("")
	require.NoError(t, err)
	h := clicks.NewHandler("out", schema.NewClickDecoder(reg), schema.NewEnrichedEncoder(2), geo)
	rb := clicks.NewRebuilder(schema.NewEnrichedDecoder(reg))
	require.Equal(t, h.Tables(), rb.Tables())
	h.Count(clicks.Counts(time.Minute))
	rb.Count(clicks.Counts(time.Minute))
	for range 20 {
		from := r.Int64N(1 << 40)
		recs := records(r, from, 1+r.IntN(300))
		n := int64(len(recs))
		b, err := engine.Derive(t.Context(), h, shape, 7, 3, from, recs)
		require.NoError(t, err)
		require.Positive(t, b.DeadLetters+b.Rows)
		got, err := engine.Rebuild(t.Context(), rb, shape, 7, 3, from, from+n, b.Messages)
		require.NoError(t, err)
		require.Equal(t, b.Tables, got.Tables)
		require.Equal(t, b.Counts, got.Counts)
		var counted int64
		for _, n := range b.Counts {
			counted += n
		}
		require.Equal(t, b.Rows, counted)
		require.Equal(t, b.DeadRows, got.DeadRows)
		require.Equal(t, b.Messages, got.Messages)
		require.NotEqual(t, b.Outbox, got.Outbox, "salts are drawn anew")
		require.Len(t, got.Outbox, len(b.Outbox))
		require.Len(t, got.Digest, 32)
		require.Equal(t, []int64{b.From, b.To, b.Records, b.Rows, b.DeadLetters}, []int64{got.From, got.To, got.Records, got.Rows, got.DeadLetters})
	}
}

// What none of ours has published is refused, never guessed at.
func TestRebuildRefuses(t *testing.T) {
	reg := registry(t)
	rb := clicks.NewRebuilder(schema.NewEnrichedDecoder(reg))
	click := schema.EnrichedClick{Click: schema.Click{UserID: 1, SessionID: "s", TimestampMs: 5, URL: "u", IP: "192.0.2.1"}, Country: "ZZ"}
	nowhere := click
	nowhere.IP = "nowhere"
	enc := schema.NewEnrichedEncoder(2)
	geo := outbox.Header{Key: "exactly-geo", Value: []byte("b")}
	for name, c := range map[string]struct {
		m    outbox.Message
		says string
	}{
		"no geo header":       {outbox.Message{Topic: "out", Value: enc.Append(nil, &click)}, "no header exactly-geo"},
		"null geo header":     {outbox.Message{Topic: "out", Value: enc.Append(nil, &click), Headers: []outbox.Header{{Key: "exactly-geo"}}}, "no header exactly-geo"},
		"no address":          {outbox.Message{Topic: "out", Value: enc.Append(nil, &nowhere), Headers: []outbox.Header{geo}}, "no address"},
		"no event":            {outbox.Message{Topic: "out", Value: []byte("x"), Headers: []outbox.Header{geo}}, "in/3/9"},
		"too few headers":     {outbox.Message{Topic: "dlq", Headers: []outbox.Header{geo}}, "lacks the headers of a dead letter"},
		"no dead letter's":    {outbox.Message{Topic: "dlq", Headers: make([]outbox.Header, 9)}, "stands where"},
		"another way around":  {outbox.Message{Topic: "dlq", Value: enc.Append(nil, &click), Headers: []outbox.Header{geo}}, "lacks"},
		"a dead letter's way": {outbox.Message{Topic: "out", Headers: []outbox.Header{geo}}, "in/3/9"},
	} {
		c.m.SourceOffset = 9
		_, err := engine.Rebuild(t.Context(), rb, shape, 7, 3, 9, 10, []outbox.Message{c.m})
		require.ErrorContains(t, err, c.says, name)
	}
}
