package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/sr"
)

func clickJSON(c Click, more string) []byte {
	s, _ := json.Marshal(c.SessionID)
	u, _ := json.Marshal(c.URL)
	return fmt.Appendf(nil, `{"user_id":%d,"session_id":%s,"timestamp":%d,"url":%s,"ip":%q%s}`, c.UserID, s, c.TimestampMs, u, c.IP, more)
}

func framed(id byte, body []byte) []byte { return append([]byte{0, 0, 0, 0, id}, body...) }

func TestDecodeJSON(t *testing.T) {
	fake, reg := setup(t)
	add := func(id int, text string) {
		fake.SeedSchema("json"+string(rune('a'+id)), 1, id, sr.Schema{Schema: text, Type: sr.TypeJSON})
	}
	add(60, ClickJSON)
	add(61, strings.Replace(ClickJSON, `"required": [`, `"required": ["referrer", `, 1))
	add(62, strings.Replace(ClickJSON, `{"type": "integer", "description": "1`, `{"$ref": "file:///etc/passwd", "description": "1`, 1))
	add(63, `{"type": 7}`)
	add(64, `{"type":"object","properties":{"url":{"enum":["secret"]}}}`)
	refer := func(id int, text string, refs ...sr.SchemaReference) {
		fake.SeedSchema("refers"+string(rune('a'+id)), 1, id, sr.Schema{Schema: text, Type: sr.TypeJSON, References: refs})
	}
	add(65, `{"$id":"https://elsewhere.example/types/id.json","type":"integer","minimum":7,"$comment":"x"}`)
	refer(66, `{"$ref":"id.json","maximum":50}`, sr.SchemaReference{Name: "https://elsewhere.example/types/id.json", Subject: "json" + string(rune('a'+65)), Version: 1})
	refer(67, `{"properties":{"user_id":{"$ref":"id.json"}}}`, sr.SchemaReference{Name: "id.json", Subject: "json" + string(rune('a'+65)), Version: 1})
	refer(68, `{"$id":"https://site.example/click.json","properties":{"user_id":{"$ref":"types/id.json#"}}}`,
		sr.SchemaReference{Name: "types/id.json", Subject: "json" + string(rune('a'+65)), Version: 1})
	id := sr.SchemaReference{Name: "id.json", Subject: "json" + string(rune('a'+65)), Version: 1}
	refer(71, `{"allOf":[{"$ref":"id.json"},{"maximum":50}]}`, id)
	refer(69, `{"properties":{"user_id":{"$ref":"bounded.json"}}}`, sr.SchemaReference{Name: "bounded.json", Subject: "refers" + string(rune('a'+71)), Version: 1})
	refer(70, `{"properties":{"user_id":{"$ref":"https://elsewhere.example/types/id.json"}}}`, sr.SchemaReference{Name: "other name", Subject: "json" + string(rune('a'+65)), Version: 1})
	d := NewClickDecoder(reg)
	d.Format(JSON)
	want := sample().Click
	small := want
	small.UserID = 3
	body := clickJSON(want, "")
	for name, value := range map[string][]byte{
		"as it is": body, "with more": clickJSON(want, `,"x":{"y":[1e300,null]}`), "framed": framed(60, body), "framed with more": framed(61, clickJSON(want, `,"referrer":"r"`)),
		"a schema by reference": framed(67, body), "by reference, relative to its id": framed(68, body), "by the other's id": framed(70, body), "by reference to a reference": framed(69, body), "a pair of surrogates": clickJSON(want, `,"x":"\\\ud83d\ude00\\ud800"`),
		"white space": []byte("\n " + string(body) + "\n"),
	} {
		var got Click
		require.NoError(t, d.Decode(t.Context(), value, &got), name)
		require.Equal(t, want, got, name)
	}
	text := string(body)
	for _, c := range []struct {
		name, class, says string
		value             []byte
	}{
		{"null", ClassNoValue, "no value", nil},
		{"garbage", ClassDecode, "not JSON", []byte("{")},
		{"two", ClassDecode, "not JSON", append(body, body...)},
		{"not UTF-8", ClassDecode, "not UTF-8", []byte("\"\xff\"")},
		{"an array", ClassDecode, "the document: breaks its schema's keyword type", []byte("[]")},
		{"without ip", ClassDecode, "keyword required", []byte(strings.Replace(text, `"ip"`, `"IP"`, 1))},
		{"user as text", ClassDecode, "field user_id: breaks its schema's keyword type", []byte(strings.Replace(text, `"user_id":42`, `"user_id":"42"`, 1))},
		{"user 1.5", ClassDecode, "field user_id", []byte(strings.Replace(text, `"user_id":42`, `"user_id":1.5`, 1))},
		{"user 4.2e1", ClassDecode, "field user_id: must be a whole number", []byte(strings.Replace(text, `"user_id":42`, `"user_id":4.2e1`, 1))},
		{"user of 65 bits", ClassDecode, "field user_id: must be a whole number", []byte(strings.Replace(text, `"user_id":42`, `"user_id":9223372036854775808`, 1))},
		{"a number that fills the memory", ClassDecode, "too many digits", []byte(strings.Replace(text, `"user_id":42`, `"user_id":1e999999999`, 1))},
		{"a long number", ClassDecode, "too many digits", []byte(strings.Replace(text, `"user_id":42`, `"user_id":1`+strings.Repeat("0", 100), 1))},
		{"deep", ClassDecode, "not JSON", []byte(strings.Repeat("[", 1<<20))},
		{"their schema wants more", ClassDecode, "keyword required", framed(61, body)},
		{"their enum", ClassDecode, "field url: breaks its schema's keyword enum", framed(64, body)},
		{"what their reference forbids", ClassDecode, "field user_id: breaks its schema's keyword minimum", framed(67, clickJSON(small, ""))},
		{"likewise, relative to its id", ClassDecode, "field user_id: breaks its schema's keyword minimum", framed(68, clickJSON(small, ""))},
		{"likewise, by the other's id", ClassDecode, "field user_id: breaks its schema's keyword minimum", framed(70, clickJSON(small, ""))},
		{"likewise, two references away", ClassDecode, "field user_id: breaks its schema's keyword minimum", framed(69, clickJSON(small, ""))},
		{"refers to what is not there", ClassIncompatible, "not among its references", framed(66, body)},
		{"half a character", ClassDecode, "half a character", clickJSON(want, `,"x":"\ud800"`)},
		{"the other half", ClassDecode, "half a character", clickJSON(want, `,"x":"\\\udc00"`)},
		{"two first halves", ClassDecode, "half a character", clickJSON(want, `,"x":"\ud800\ud800\udc00"`)},
		{"half a character, at the end", ClassDecode, "half a character", []byte(`"\ud800"`)},
		{"unknown id", ClassUnknown, "77", framed(77, body)},
		{"an Avro id", ClassIncompatible, "is AVRO, not JSON", framed(1, body)},
		{"refers to a file", ClassIncompatible, "schema 62", framed(62, body)},
		{"no schema", ClassIncompatible, "schema 63", framed(63, body)},
		{"short prefix", ClassNotAvro, "3 bytes", []byte{0, 0, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 2 {
				into := Click{UserID: -5}
				err := d.Decode(t.Context(), c.value, &into)
				requireClass(t, err, c.class)
				require.ErrorContains(t, err, c.says)
				require.NotContains(t, err.Error(), "shop.example")
				require.Equal(t, Click{UserID: -5}, into)
			}
		})
	}
	avro := NewClickDecoder(reg)
	requireClass(t, avro.Decode(t.Context(), body, new(Click)), ClassNotAvro)
	requireClass(t, avro.Decode(t.Context(), framed(60, body), new(Click)), ClassIncompatible)
}

// FuzzDecodeJSON: any bytes give a click that encoding/json reads the same, or an *InvalidError.
func FuzzDecodeJSON(f *testing.F) {
	fake, reg := setup(f)
	fake.SeedSchema("json", 1, 60, sr.Schema{Schema: ClickJSON, Type: sr.TypeJSON})
	d := NewClickDecoder(reg)
	d.Format(JSON)
	c := sample().Click
	f.Add(clickJSON(c, ""))
	f.Add(framed(60, clickJSON(c, `,"x":[{"y":null}]`)))
	c.UserID = math.MinInt64
	f.Add(clickJSON(c, `,"user_id":1E-400`))
	f.Add([]byte("[[1e400]]"))
	addCorpus(f)
	f.Fuzz(func(t *testing.T, value []byte) {
		if len(value) > 4 && value[0] == 0 {
			value[1], value[2], value[3], value[4] = 0, 0, 0, 60
		}
		var got Click
		var invalid *InvalidError
		if err := d.Decode(t.Context(), value, &got); err != nil {
			if !errors.As(err, &invalid) || len(invalid.Message) > maxMessage+len("…") {
				t.Fatal(err)
			}
			return
		}
		storable(t, &got)
	})
}
