package schema

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/hamba/avro/v2"
)

// FuzzResolve: any text that calls itself a schema, and any bytes that call themselves written with it, give a click or an *InvalidError of bounded length;
// whatever fits strictly can be read, and a click that hamba, too, would read is the one that hamba reads.
func FuzzResolve(f *testing.F) {
	c := sample()
	body := NewClickEncoder(1).Append(nil, &c.Click)[5:]
	f.Add(ClickAvsc, body)
	f.Add(hostileWriter, body)
	f.Add(endlessWriter, body)
	f.Add(strings.Replace(ClickAvsc, `"type": "long", "doc"`, `"type": ["null", "long"], "doc"`, 1), append([]byte{2}, body...))
	f.Add(`["null",`+ClickAvsc+`]`, binary.AppendVarint(nil, 0))
	f.Add(`{"type":"record","name":"Click","fields":[{"name":"user_id","type":["int",{"type":"record","name":"R","fields":[{"name":"r","type":"Click"}]}]}]}`, body)
	addCorpus(f)
	f.Fuzz(func(t *testing.T, text string, value []byte) {
		w := &WriterSchema{ID: 9, Type: "AVRO", Text: text}
		bounded := func(err error) {
			var invalid *InvalidError
			if !errors.As(err, &invalid) || len(invalid.Message) > maxMessage+len("…") {
				t.Fatal(err)
			}
		}
		strict := compatible(clickSchema, w)
		if strict != nil {
			bounded(strict)
		}
		p, err := resolve(clickSchema, w)
		if err != nil {
			bounded(err)
			if strict == nil {
				t.Fatalf("fits, and can't be read: %v", err)
			}
			return
		}
		var got EnrichedClick
		if err := read(p, string(value), 0, &got); err != nil {
			bounded(undecodable(err))
			return
		}
		if p.fast {
			var theirs Click
			if err := avro.Unmarshal(clickSchema, value, &theirs); err != nil || theirs != got.Click {
				t.Fatalf("ours %v, hamba's %v, %v", got, theirs, err)
			}
		}
	})
}
