package schema

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf16"
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
	s, err := compileJSON(&WriterSchema{Text: ClickJSON})
	if err != nil {
		panic("schema: an embedded schema does not compile: " + err.Error())
	}
	return s
}()

// documents are what a schema refers to, by their addresses, and all that is loaded for it: a stranger's schema must not make us read files, or ask other
// hosts.
type documents map[string]any

// Load implements jsonschema.URLLoader.
func (d documents) Load(address string) (any, error) {
	if doc, ok := d[address]; ok {
		return doc, nil
	}
	return nil, errors.New("it refers to a document that is not among its references in the registry")
}

// root is where a schema is that does not say it. It has a path, so that relative names can be told from it.
const root = "exactly:///schema"

// compileJSON compiles a schema, with what it refers to. A reference's name may be relative to the schema, or to another of those it refers to; of several
// documents by one name the first counts, as for other clients of the registry.
func compileJSON(w *WriterSchema) (*jsonschema.Schema, error) {
	doc, err := parseJSON([]byte(w.Text))
	if err != nil {
		return nil, err
	}
	bases := []*url.URL{address(doc)}
	referred := make([]any, len(w.References))
	for i, text := range w.References {
		if referred[i], err = parseJSON([]byte(text)); err != nil {
			return nil, fmt.Errorf("what it refers to: %w", err)
		}
		bases = append(bases, address(referred[i]))
	}
	known := documents{}
	for _, base := range bases {
		for i, name := range w.Names {
			if at, err := base.Parse(name); err == nil && known[at.String()] == nil {
				known[at.String()] = referred[i]
			}
		}
	}
	for i := range referred {
		if at := bases[i+1].String(); at != root && known[at] == nil {
			known[at] = referred[i]
		}
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(known)
	if err := c.AddResource(root, doc); err != nil {
		return nil, err
	}
	return c.Compile(root)
}

// address is where a document says that it is.
func address(doc any) *url.URL {
	at, _ := url.Parse(root)
	if m, ok := doc.(map[string]any); ok {
		if id, ok := m["$id"].(string); ok {
			if own, err := at.Parse(id); err == nil {
				return own
			}
		}
	}
	return at
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
	s, err := compileJSON(w)
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
	errHalf       = errors.New("an escape in it is half a character: a surrogate without the other")
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
	if !surrogatesPaired(b) {
		return nil, errHalf // encoding/json has put something else in its place
	}
	if !numbersFit(doc) {
		return nil, errJSONNumber
	}
	return doc, nil
}

// surrogatesPaired says whether every \uD800 to \uDBFF in a JSON document is followed by one of \uDC00 to \uDFFF, and none of these is without.
func surrogatesPaired(b []byte) bool {
	unit := func(at int) rune { // of the escape there, or 0
		if at+6 > len(b) || b[at] != '\\' || b[at+1] != 'u' {
			return 0
		}
		v, _ := strconv.ParseUint(string(b[at+2:at+6]), 16, 16)
		return rune(v)
	}
	for at := bytes.IndexByte(b, '\\'); at >= 0 && at < len(b); {
		next := 2
		if r := unit(at); utf16.IsSurrogate(r) {
			if utf16.DecodeRune(r, unit(at+6)) == utf8.RuneError {
				return false
			}
			next = 12
		}
		if at += next; at < len(b) {
			more := bytes.IndexByte(b[at:], '\\')
			if more < 0 {
				return true
			}
			at += more
		}
	}
	return true
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
