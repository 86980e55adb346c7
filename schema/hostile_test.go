package schema

import (
	"encoding/binary"
	"errors"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hamba/avro/v2"
	"github.com/stretchr/testify/require"
)

// A writer's schema with everything that has a length, a count or a depth in it.
const hostileWriter = `{"type":"record","name":"Click","namespace":"exactly","fields":[
	{"name":"nulls","type":{"type":"array","items":"null"}},{"name":"map","type":{"type":"map","values":{"type":"array","items":"null"}}},
	{"name":"self","type":["null",{"type":"record","name":"Self","fields":[{"name":"next","type":["null","Self"]}]}]},
	{"name":"fixed","type":{"type":"fixed","name":"F","size":2000000000}},{"name":"bytes","type":"bytes"},
	{"name":"user_id","type":"int"},{"name":"session_id","type":"bytes"},{"name":"timestamp","type":"long"},{"name":"url","type":"string"},{"name":"ip","type":"string"}]}`

// Infinitely deep without a byte.
const endlessWriter = `{"type":"record","name":"Click","namespace":"exactly","fields":[
	{"name":"endless","type":{"type":"record","name":"Endless","fields":[{"name":"again","type":"Endless"}]}},
	{"name":"user_id","type":"long"},{"name":"session_id","type":"string"},{"name":"timestamp","type":"long"},{"name":"url","type":"string"},{"name":"ip","type":"string"}]}`

func TestDecodeHostile(t *testing.T) {
	fake, reg := setup(t)
	seed(fake, 3, hostileWriter)
	seed(fake, 4, endlessWriter)
	d := NewClickDecoder(reg)
	many := binary.AppendVarint(nil, math.MaxInt64)
	least := binary.AppendVarint(nil, math.MinInt64)
	for name, value := range map[string][]byte{
		"2^63 nulls":                   append([]byte{0, 0, 0, 0, 3}, many...),
		"-2^63 nulls of 2^63 bytes":    append(append([]byte{0, 0, 0, 0, 3}, least...), many...),
		"-2^63 nulls of -2^63 bytes":   append(append([]byte{0, 0, 0, 0, 3}, least...), least...),
		"map of 2^63":                  append([]byte{0, 0, 0, 0, 3, 0}, many...),
		"map key of 2^63 bytes":        append([]byte{0, 0, 0, 0, 3, 0, 2}, many...),
		"map of array of 2^63":         append([]byte{0, 0, 0, 0, 3, 0, 2, 0}, many...),
		"a million deep":               append([]byte{0, 0, 0, 0, 3, 0, 0}, strings.Repeat("\x02", 1<<20)...),
		"a million empty blocks":       append([]byte{0, 0, 0, 0, 3}, strings.Repeat("\x01\x00", 1<<20)...),
		"fixed of two billion":         {0, 0, 0, 0, 3, 0, 0, 0, 1, 2, 3},
		"no branch":                    {0, 0, 0, 0, 3, 0, 0, 9},
		"negative branch":              {0, 0, 0, 0, 3, 0, 0, 1},
		"deep without a byte":          {0, 0, 0, 0, 4},
		"session of 2^63 bytes":        append([]byte{0, 0, 0, 0, 1, 2}, many...),
		"session of -2^63 bytes":       append([]byte{0, 0, 0, 0, 1, 2}, least...),
		"a megabyte of nothing useful": append([]byte{0, 0, 0, 0, 1}, make([]byte, 1<<20)...),
	} {
		t.Run(name, func(t *testing.T) {
			_ = d.Decode(t.Context(), value, new(Click)) // schema fetched, plan made
			var before, after runtime.MemStats
			start := time.Now()
			runtime.ReadMemStats(&before)
			err := d.Decode(t.Context(), value, new(Click))
			runtime.ReadMemStats(&after)
			requireClass(t, err, ClassDecode)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2*len(value)+16<<10))
			require.Less(t, time.Since(start), time.Second)
		})
	}
}

// FuzzDecode: any bytes after the prefix of any of these schemas give a value or an *InvalidError; and what reads as a value under our own
// schema is what hamba reads, and is written back the same. What is valid besides, both sinks can hold.
func FuzzDecode(f *testing.F) {
	fake, reg := setup(f)
	seed(fake, 3, hostileWriter)
	seed(fake, 4, endlessWriter)
	seed(fake, 5, strings.Replace(ClickAvsc, `"fields": [`, `"fields": [{"name":"x","type":["null","string",{"type":"array","items":["null","long"]}]},`, 1))
	d, ed := NewClickDecoder(reg), NewEnrichedDecoder(reg)
	c := sample()
	good := NewEnrichedEncoder(2).Append(nil, &c)
	f.Add(good)
	for id := range byte(6) {
		f.Add(append([]byte{0, 0, 0, 0, id}, good[5:]...))
		f.Add(append([]byte{0, 0, 0, 0, id, 0, 0, 0}, good[5:]...))
	}
	click := NewClickEncoder(1).Append(nil, &c.Click)
	f.Add(click)
	f.Add(append([]byte{0, 0, 0, 0, 5, 4, 3, 2, 2, 14, 0}, click[5:]...))
	f.Add(binary.AppendVarint([]byte{0, 0, 0, 0, 1, 2}, math.MinInt64))
	addCorpus(f)
	f.Fuzz(func(t *testing.T, value []byte) {
		if len(value) > 4 { // ids that exist: the registry is not what is fuzzed
			value[0], value[1], value[2], value[3], value[4] = 0, 0, 0, 0, 1+value[4]%5
		}
		var got Click
		var invalid *InvalidError
		defer func() { storable(t, &got) }()
		if err := d.Decode(t.Context(), value, &got); err != nil {
			if !errors.As(err, &invalid) {
				t.Fatal(err)
			}
		} else if value[4] == 1 {
			var theirs Click
			if err := avro.Unmarshal(clickSchema, value[5:], &theirs); err != nil || theirs != got {
				t.Fatalf("ours %v, hamba's %v, %v", got, theirs, err)
			}
			var back Click
			if err := d.Decode(t.Context(), NewClickEncoder(1).Append(nil, &got), &back); err != nil || back != got {
				t.Fatalf("%v became %v, %v", got, back, err)
			}
		}
		if err := ed.Decode(t.Context(), value, new(EnrichedClick)); err != nil && !errors.As(err, &invalid) {
			t.Fatal(err)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	fake, reg := setup(b)
	seed(fake, 9, strings.Replace(ClickAvsc, `"fields": [`, `"fields": [{"name":"x","type":["null","string"]},`, 1))
	e := sample()
	ours := NewClickEncoder(1).Append(nil, &e.Click)
	d, ed := NewClickDecoder(reg), NewEnrichedDecoder(reg)
	run := func(name string, f func() error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	var c Click
	run("click", func() error { return d.Decode(b.Context(), ours, &c) })
	evolved := append(append([]byte{0, 0, 0, 0, 9}, 0), ours[5:]...)
	run("click_of_another_schema", func() error { return d.Decode(b.Context(), evolved, &c) })
	enriched := NewEnrichedEncoder(2).Append(nil, &e)
	run("enriched", func() error { return ed.Decode(b.Context(), enriched, &e) })
	run("click_by_hamba", func() error { return avro.Unmarshal(clickSchema, ours[5:], &c) })
}

func BenchmarkEncode(b *testing.B) {
	e := sample()
	enc := NewEnrichedEncoder(2)
	dst := make([]byte, 0, 512)
	b.Run("enriched", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			dst = enc.Append(dst[:0], &e)
		}
	})
	b.Run("enriched_by_hamba", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := avro.Marshal(enrichedSchema, &e); err != nil {
				b.Fatal(err)
			}
		}
	})
}
