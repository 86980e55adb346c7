package schema

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// ClickJSON is the JSON Schema of clicks, as it is registered where they are JSON.
//
//go:embed click.schema.json
var ClickJSON string

// The formats that clicks may be written in.
const (
	Avro = "avro" // Confluent's wire format
	JSON = "json" // a JSON object, as it is (our schema holds) or behind Confluent's prefix (the registry's holds, and ours)
)

const (
	maxNumber   = 64  // characters of a number in JSON
	maxExponent = 400 // beyond a double's; a big.Rat of 1e1000000000 would take the memory it says
)

var ourJSON = func() *jsonschema.Schema {
	s, err := compileJSON(ClickJSON)
	if err != nil {
		panic("schema: an embedded schema does not compile: " + err.Error())
	}
	return s
}()

// closed loads nothing: a stranger's schema must not make us read files, or ask other hosts.
type closed struct{}

func (closed) Load(string) (any, error) {
	return nil, errors.New("it refers to another document, which is not supported for JSON Schema")
}

func compileJSON(text string) (*jsonschema.Schema, error) {
	doc, err := parseJSON([]byte(text))
	if err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(closed{})
	if err := c.AddResource("urn:exactly:schema", doc); err != nil {
		return nil, err
	}
	return c.Compile("urn:exactly:schema")
}

// Format says what clicks are written in: Avro, which is the default, or JSON. Set it before the first Decode.
func (d *ClickDecoder) Format(format string) { d.json = format == JSON }

// decodeJSON is Decode for JSON.
func (d *ClickDecoder) decodeJSON(ctx context.Context, value []byte, into *Click) error {
	if len(value) == 0 {
		return &InvalidError{ClassNoValue, "the record has no value"}
	}
	var theirs *jsonschema.Schema
	if value[0] == 0 {
		id, err := SchemaID(value)
		if err != nil {
			return err
		}
		if theirs, err = d.jsonSchema(ctx, id); err != nil {
			return err
		}
		value = value[wireHeader:]
	}
	doc, err := parseJSON(value)
	if err != nil {
		return &InvalidError{ClassDecode, err.Error()}
	}
	for _, s := range []*jsonschema.Schema{theirs, ourJSON} {
		if s == nil {
			continue
		}
		if err := s.Validate(doc); err != nil {
			return &InvalidError{ClassDecode, violation(err)}
		}
	}
	m, ok := doc.(map[string]any)
	if !ok {
		return &InvalidError{ClassDecode, "not a JSON object"}
	}
	c := Click{}
	for name, to := range map[string]*int64{"user_id": &c.UserID, "timestamp": &c.TimestampMs} {
		n, _ := m[name].(json.Number)
		if *to, err = strconv.ParseInt(n.String(), 10, 64); err != nil {
			return &InvalidError{ClassDecode, "field " + name + ": must be a whole number of 64 bits, written without a fraction or an exponent"}
		}
	}
	for name, to := range map[string]*string{"session_id": &c.SessionID, "url": &c.URL, "ip": &c.IP} {
		*to, _ = m[name].(string)
	}
	*into = c
	return nil
}

// jsonSchema is the registered schema with that id, compiled. Errors: as those of Decode.
func (d *ClickDecoder) jsonSchema(ctx context.Context, id int) (*jsonschema.Schema, error) {
	d.mu.Lock()
	c, ok := d.compiled[id]
	d.mu.Unlock()
	if ok {
		return c.schema, c.err
	}
	w, err := d.writer(ctx, id)
	if err != nil {
		return nil, err
	}
	c.schema, c.err = registeredJSON(w)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.compiled == nil {
		d.compiled = map[int]compiled{}
	}
	d.compiled[id] = c
	return c.schema, c.err
}

// registeredJSON compiles a registered schema. The error is an *InvalidError.
func registeredJSON(w *WriterSchema) (*jsonschema.Schema, error) {
	if w.Type != "JSON" {
		return nil, incompatible(w, "is %s, not JSON", w.Type)
	}
	s, err := compileJSON(w.Text)
	if err != nil {
		return nil, incompatible(w, "%v", err)
	}
	return s, nil
}

// compiled is a JSON Schema, or why there is none.
type compiled struct {
	schema *jsonschema.Schema
	err    error
}

var (
	errNotJSON    = errors.New("not JSON")
	errNotUTF8    = errors.New("not UTF-8")
	errJSONNumber = errors.New("a number in it has too many digits, or too large an exponent")
)

// parseJSON reads one document and nothing behind it. No error quotes it.
func parseJSON(b []byte) (any, error) {
	if !utf8.Valid(b) {
		return nil, errNotUTF8 // encoding/json would put something else in its place
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var doc any
	if err := dec.Decode(&doc); err != nil {
		return nil, errNotJSON
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errNotJSON
	}
	if !numbersFit(doc) {
		return nil, errJSONNumber
	}
	return doc, nil
}

func numbersFit(doc any) bool {
	switch v := doc.(type) {
	case json.Number:
		if len(v) > maxNumber {
			return false
		}
		if _, e, ok := strings.Cut(strings.ToLower(string(v)), "e"); ok {
			n, err := strconv.Atoi(e)
			return err == nil && -maxExponent <= n && n <= maxExponent
		}
	case []any:
		for _, x := range v {
			if !numbersFit(x) {
				return false
			}
		}
	case map[string]any:
		for _, x := range v {
			if !numbersFit(x) {
				return false
			}
		}
	}
	return true
}

// violation says where a document breaks which keyword of its schema, and nothing of its values.
func violation(err error) string {
	var v *jsonschema.ValidationError
	if !errors.As(err, &v) {
		return "does not follow its schema"
	}
	for len(v.Causes) > 0 {
		v = v.Causes[0]
	}
	where := "the document"
	if n := len(v.InstanceLocation); n > 0 {
		where = "something in it" // names may be anybody's, except for ours
		if name := v.InstanceLocation[0]; targets[name] != skip {
			where = "field " + name
		}
	}
	keyword := "schema"
	if path := v.ErrorKind.KeywordPath(); len(path) > 0 {
		keyword = path[len(path)-1]
	}
	return fmt.Sprintf("%s: breaks its schema's keyword %s", where, keyword)
}
