package schema

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/hamba/avro/v2"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
)

// setup is a registry with both schemas, ClickAvsc as id 1 and EnrichedClickAvsc as id 2, and a client of it.
func setup(t testing.TB) (*srfake.Registry, *Registry) {
	t.Helper()
	fake := srfake.New()
	t.Cleanup(fake.Close)
	reg, err := NewRegistry(fake.URL())
	require.NoError(t, err)
	t.Cleanup(reg.Close)
	seed(fake, 1, ClickAvsc)
	seed(fake, 2, EnrichedClickAvsc)
	return fake, reg
}

func seed(fake *srfake.Registry, id int, avsc string) {
	fake.SeedSchema("s"+string(rune('a'+id)), 1, id, sr.Schema{Schema: avsc, Type: sr.TypeAvro})
}

func sample() EnrichedClick {
	return EnrichedClick{Click{42, "0190a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b", 1_769_817_600_123, "https://shop.example/item/1234?ref=mail&utm_source=x", "203.0.113.77"}, "DE"}
}

func randomText(r *rand.Rand) string {
	b := make([]rune, r.IntN(1<<r.IntN(9)))
	for i := range b {
		b[i] = []rune{'a', 0, 'é', '世', '😀', ' '}[r.IntN(6)]
	}
	return string(b)
}

func randomClick(r *rand.Rand) EnrichedClick {
	long := func() int64 { return int64(r.Uint64()) >> r.IntN(64) }
	return EnrichedClick{Click{long(), randomText(r), long(), randomText(r), randomText(r)}, randomText(r)}
}

// The codec by hand is hamba's, byte for byte, on any value; and this holds the order of fields in the .avsc to the code.
func TestCodecAgreesWithHamba(t *testing.T) {
	_, reg := setup(t)
	ce, ee, cd, ed := NewClickEncoder(1), NewEnrichedEncoder(2), NewClickDecoder(reg), NewEnrichedDecoder(reg)
	s := rand.Uint64()
	t.Logf("seed %d", s)
	r := rand.New(rand.NewPCG(s, 0))
	for range 20_000 {
		want := randomClick(r)
		for _, c := range []struct {
			schema avro.Schema
			v      any
			ours   []byte
			id     byte
		}{
			{clickSchema, want.Click, ce.Append(nil, &want.Click), 1}, {enrichedSchema, want, ee.Append(nil, &want), 2},
		} {
			theirs, err := avro.Marshal(c.schema, c.v)
			require.NoError(t, err)
			require.Equal(t, append([]byte{0, 0, 0, 0, c.id}, theirs...), c.ours)
		}
		var click Click
		require.NoError(t, cd.Decode(t.Context(), ce.Append(nil, &want.Click), &click))
		require.Equal(t, want.Click, click)
		var enriched EnrichedClick
		require.NoError(t, ed.Decode(t.Context(), ee.Append(nil, &want), &enriched))
		require.Equal(t, want, enriched)
	}
}

func TestAppendKeepsWhatIsThere(t *testing.T) {
	c := sample()
	b := NewEnrichedEncoder(7).Append([]byte("before"), &c)
	require.Equal(t, "before\x00\x00\x00\x00\x07", string(b[:11]))
	require.Panics(t, func() { NewClickEncoder(-1) })
}

func TestDecodeInvalid(t *testing.T) {
	fake, reg := setup(t)
	fake.SeedSchema("proto", 1, 30, sr.Schema{Schema: `syntax = "proto3"; message Click {}`, Type: sr.TypeProtobuf})
	for id, avsc := range map[int]string{31: `{"type":"record","name":"Other","fields":[]}`, 32: `"string"`, 33: `{"type":"a\u0000b` + strings.Repeat("é", 1000) + `"}`} {
		fake.SeedSchema("bad", id, id, sr.Schema{Schema: avsc})
	}
	d := NewClickDecoder(reg)
	click := sample().Click
	good := NewClickEncoder(1).Append(nil, &click)
	huge := []byte{0, 0, 0, 0, 1, 84, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01}
	for _, c := range []struct {
		name  string
		value []byte
		class string
		text  string
	}{
		{"null", nil, ClassNoValue, "no value"},
		{"empty", []byte{}, ClassNoValue, "no value"},
		{"json", []byte(`{"user_id":1}`), ClassNotAvro, "0x7b"},
		{"short prefix", []byte{0, 0, 0}, ClassNotAvro, "3 bytes"},
		{"unknown id", []byte{0, 0xFF, 0xFF, 0xFF, 0xFF, 1}, ClassUnknown, "4294967295"},
		{"protobuf", []byte{0, 0, 0, 0, 30, 1}, ClassIncompatible, "PROTOBUF"},
		{"other record", []byte{0, 0, 0, 0, 31, 1}, ClassIncompatible, "names do not match"},
		{"no record", []byte{0, 0, 0, 0, 32, 1}, ClassIncompatible, "schema 32"},
		{"no schema", []byte{0, 0, 0, 0, 33, 1}, ClassIncompatible, "schema 33"},
		{"enriched", NewEnrichedEncoder(2).Append(nil, &EnrichedClick{}), ClassIncompatible, "names do not match"},
		{"nothing after the prefix", good[:5], ClassDecode, "field user_id"},
		{"one byte short", good[:len(good)-1], ClassDecode, "field ip: ends early"},
		{"one byte too many", append(good[:len(good):len(good)], 0), ClassDecode, "1 of"},
		{"huge length", huge, ClassDecode, "field session_id"},
		{"negative length", []byte{0, 0, 0, 0, 1, 2, 1}, ClassDecode, "field session_id"},
		{"long of eleven bytes", []byte("\x00\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), ClassDecode, "field user_id"},
		{"long of 65 bits", []byte("\x00\x00\x00\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), ClassDecode, "field user_id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 { // the second is answered by what is cached
				into := Click{UserID: -5}
				err := d.Decode(t.Context(), c.value, &into)
				var invalid *InvalidError
				require.ErrorAs(t, err, &invalid)
				require.Equal(t, c.class, invalid.Class)
				require.Contains(t, invalid.Message, c.text)
				require.LessOrEqual(t, len(invalid.Message), maxMessage+len("…"))
				require.NotContains(t, invalid.Message, "\x00")
				require.Equal(t, Click{UserID: -5}, into, "untouched after an error")
			}
		})
	}
	for n := range len(good) { // no cut of a good value is a value
		require.Error(t, d.Decode(t.Context(), good[:n], new(Click)), "%d bytes", n)
	}
}

// A reader that has a default and an alias, which ours has not yet.
const evolvedReader = `{"type":"record","name":"Click","namespace":"exactly","fields":[
	{"name":"user_id","type":"long"},{"name":"session_id","type":"string","aliases":["sid","session"]},
	{"name":"timestamp","type":{"type":"long","logicalType":"timestamp-millis"},"default":77},
	{"name":"url","type":"string"},{"name":"ip","type":"string","default":"::"},{"name":"later","type":"boolean","default":true}]}`

func TestDecodeEvolution(t *testing.T) {
	record := func(fields string) string {
		return `{"type":"record","name":"Click","namespace":"exactly","fields":[` + fields + `]}`
	}
	const rest = `{"name":"timestamp","type":"long"},{"name":"url","type":"string"},{"name":"ip","type":"string"}`
	const tree = `{"type":"record","name":"Tree","fields":[{"name":"v","type":"int"},{"name":"kids","type":{"type":"array","items":"Tree"}}]}`
	want := sample().Click
	values := map[string]any{"user_id": want.UserID, "session_id": want.SessionID, "timestamp": want.TimestampMs, "url": want.URL, "ip": want.IP}
	for _, c := range []struct {
		name, writer string
		evolved      bool // read with evolvedReader
		add          map[string]any
		want         func(*Click)
		refused      string
		met          string // a branch that can't be read was written
	}{
		{name: "added fields, in another order", writer: record(`{"name":"ip","type":"string"},{"name":"note","type":["null","string"],"default":null},
			{"name":"url","type":"string"},{"name":"tags","type":{"type":"map","values":{"type":"array","items":"double"}}},{"name":"timestamp","type":"long"},
			{"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]}},{"name":"f","type":{"type":"fixed","name":"F","size":3}},
			{"name":"session_id","type":"string"},{"name":"b","type":"boolean"},{"name":"user_id","type":"long"},{"name":"x","type":"float"}`),
			add: map[string]any{"note": "hello", "tags": map[string]any{"a": []any{1.5, 2.5}, "b": []any{}}, "e": "B", "f": [3]byte{1, 2, 3}, "b": true, "x": float32(1)}},
		{name: "added recursive record", writer: record(`{"name":"user_id","type":"long"},{"name":"t","type":` + tree + `},{"name":"t2","type":"Tree"},{"name":"session_id","type":"string"},` + rest),
			add: map[string]any{"t": leaf(1, leaf(2), leaf(3, leaf(4))), "t2": leaf(5)}},
		{name: "removed fields with defaults", evolved: true, writer: record(`{"name":"user_id","type":"long"},{"name":"session_id","type":"string"},{"name":"url","type":"string"}`),
			want: func(c *Click) { c.TimestampMs, c.IP = 77, "::" }},
		{name: "removed field without a default", writer: record(`{"name":"user_id","type":"long"},{"name":"session_id","type":"string"},{"name":"timestamp","type":"long"},{"name":"url","type":"string"}`),
			refused: "ip is missing"},
		{name: "int read as long", writer: record(`{"name":"user_id","type":"int"},{"name":"session_id","type":"string"},` + rest), add: map[string]any{"user_id": 42}},
		{name: "bytes read as string", writer: record(`{"name":"user_id","type":"long"},{"name":"session_id","type":"bytes"},` + rest), add: map[string]any{"session_id": []byte(want.SessionID)}},
		{name: "union of what can be read", writer: record(`{"name":"user_id","type":["int","long"]},{"name":"session_id","type":"string"},` + rest), add: map[string]any{"user_id": int64(42)}},
		{name: "nullable", writer: record(`{"name":"user_id","type":["null","long"]},{"name":"session_id","type":"string"},` + rest), add: map[string]any{"user_id": int64(42)}},
		{name: "nullable, and null", writer: record(`{"name":"user_id","type":["null","long"]},{"name":"session_id","type":"string"},` + rest), add: map[string]any{"user_id": nil},
			met: "field user_id: a null cannot be read as long"},
		{name: "nothing of a union", writer: record(`{"name":"user_id","type":["null","boolean"]},{"name":"session_id","type":"string"},` + rest), refused: "field user_id: a null cannot be read as long"},
		{name: "microseconds of a union", writer: record(`{"name":"user_id","type":"long"},{"name":"session_id","type":"string"},{"name":"timestamp","type":["string",{"type":"long","logicalType":"timestamp-micros"}]},{"name":"url","type":"string"},{"name":"ip","type":"string"}`),
			refused: "timestamp: a string cannot be read as long"},
		{name: "a click or nothing", writer: `["null",` + record(`{"name":"user_id","type":"long"},{"name":"session_id","type":"string"},`+rest) + `]`,
			add: map[string]any{"exactly.Click": values}},
		{name: "alias of a field", evolved: true, writer: record(`{"name":"user_id","type":"long"},{"name":"sid","type":"string"},` + rest), add: map[string]any{"sid": want.SessionID}},
		{name: "alias and name: the name counts", evolved: true, writer: record(`{"name":"sid","type":"string"},{"name":"user_id","type":"long"},{"name":"session_id","type":"string"},` + rest), add: map[string]any{"sid": "other"}},
		{name: "alias that the reader lacks", writer: record(`{"name":"user_id","type":"long"},{"name":"sid","type":"string"},` + rest), refused: "session_id is missing"},
		{name: "string for long", writer: record(`{"name":"user_id","type":"string"},{"name":"session_id","type":"string"},` + rest), refused: "a string cannot be read as long"},
		{name: "microseconds", writer: record(`{"name":"user_id","type":"long"},{"name":"session_id","type":"string"},{"name":"timestamp","type":{"type":"long","logicalType":"timestamp-micros"}},{"name":"url","type":"string"},{"name":"ip","type":"string"}`),
			refused: "timestamp-micros cannot be read as timestamp-millis"},
		{name: "nanoseconds, unknown to hamba", writer: record(`{"name":"user_id","type":"long"},{"name":"session_id","type":"string"},{"name":"timestamp","type":{"type":"long","logicalType":"timestamp-nanos"}},{"name":"url","type":"string"},{"name":"ip","type":"string"}`),
			refused: "timestamp-nanos cannot be read as timestamp-millis"},
		{name: "union of records", writer: `[` + record(`{"name":"user_id","type":"long"},{"name":"session_id","type":"string"},`+rest) + `]`,
			add: map[string]any{"exactly.Click": values}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fake, reg := setup(t)
			seed(fake, 9, c.writer)
			d := NewClickDecoder(reg)
			if c.evolved {
				d.reader = mustParse(evolvedReader)
			}
			v := map[string]any{}
			for k, x := range values {
				v[k] = x
			}
			for k, x := range c.add {
				v[k] = x
			}
			if u, ok := v["exactly.Click"]; ok {
				v = map[string]any{"exactly.Click": u}
			}
			var body []byte
			if c.refused == "" {
				w, err := avro.ParseWithCache(c.writer, "", &avro.SchemaCache{})
				require.NoError(t, err)
				body, err = avro.Marshal(w, v)
				require.NoError(t, err)
			}
			value := append([]byte{0, 0, 0, 0, 9}, body...)
			var got Click
			err := d.Decode(t.Context(), value, &got)
			if c.refused != "" {
				var invalid *InvalidError
				require.ErrorAs(t, err, &invalid)
				require.Equal(t, ClassIncompatible, invalid.Class)
				require.Contains(t, invalid.Message, c.refused)
				return
			}
			if c.met != "" {
				requireClass(t, err, ClassDecode)
				require.ErrorContains(t, err, c.met)
				return
			}
			require.NoError(t, err)
			expect := want
			if c.want != nil {
				c.want(&expect)
			}
			require.Equal(t, expect, got)
			for n := range len(value) {
				require.Error(t, d.Decode(t.Context(), value[:n], &got), "%d of %d bytes", n, len(value))
			}
			require.ErrorContains(t, d.Decode(t.Context(), append(value, 0), &got), "left over")
		})
	}
}

func leaf(v int, kids ...any) map[string]any {
	return map[string]any{"v": v, "kids": append([]any{}, kids...)}
}

// Docs and the like make another schema, not another layout.
func TestDecodeFastPath(t *testing.T) {
	for _, c := range []struct {
		name, avsc string
		fast       bool
	}{
		{"ours", ClickAvsc, true},
		{"without docs", stripped(t), true},
		{"user_id int", strings.Replace(ClickAvsc, `"long"`, `"int"`, 1), false},
	} {
		p, err := resolve(clickSchema, &WriterSchema{ID: 1, Type: "AVRO", Text: c.avsc})
		require.NoError(t, err, c.name)
		require.Equal(t, c.fast, p.fast, c.name)
	}
	p, err := resolve(enrichedSchema, &WriterSchema{ID: 1, Type: "AVRO", Text: EnrichedClickAvsc})
	require.NoError(t, err)
	require.True(t, p.fast)
}

func stripped(t *testing.T) string {
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(ClickAvsc), &m))
	delete(m, "doc")
	for _, f := range m["fields"].([]any) {
		delete(f.(map[string]any), "doc")
	}
	b, err := json.Marshal(m)
	require.NoError(t, err)
	return string(b)
}

func TestDecodeConcurrently(t *testing.T) {
	fake, reg := setup(t)
	for id := 10; id < 30; id++ {
		seed(fake, id, ClickAvsc)
	}
	d := NewClickDecoder(reg)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for id := 10; id < 30; id++ {
				want := sample().Click
				var got Click
				if err := d.Decode(context.Background(), NewClickEncoder(id).Append(nil, &want), &got); err != nil || got != want {
					t.Errorf("id %d: %v %v", id, got, err)
				}
			}
		})
	}
	wg.Wait()
}
