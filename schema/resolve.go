package schema

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hamba/avro/v2"
)

// maxMessage bounds an error's text, in bytes.
const maxMessage = 500

// resolve makes the plan to read what writer wrote as reader (Avro 1.12, Schema Resolution). Of a union it is the branch that was written that has to be
// readable: a plan knows those that are not, and at least one must be. The reading is ours, because hamba's takes a value that ends early for a whole one,
// can't say what is left over, and spins on a block that claims 2^62 nulls; its Resolve also refuses a union of int and long. The error is an *InvalidError.
func resolve(reader *avro.RecordSchema, w *WriterSchema) (p *plan, err error) {
	defer func() {
		if r := recover(); r != nil { // a schema is a stranger's text, too
			p, err = nil, incompatible(w, "%v", r)
		}
	}()
	if w.Type != "AVRO" {
		return nil, incompatible(w, "is %s, not AVRO", w.Type)
	}
	writer, err := parse(w)
	if err != nil {
		return nil, err
	}
	r := resolver{skipped: map[string]*node{}}
	root, err := r.record(reader, writer)
	if err != nil {
		return nil, incompatible(w, "%v", err)
	}
	return &plan{root: root, nodes: r.nodes, fast: isOurs(root, len(reader.Fields()))}, nil
}

// compatible is stricter than resolve: whatever is written as w can be read as reader, in every branch of every union. hamba says so, too. The error is an
// *InvalidError.
func compatible(reader *avro.RecordSchema, w *WriterSchema) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = incompatible(w, "%v", r)
		}
	}()
	if _, err := resolve(reader, w); err != nil {
		return err
	}
	writer, err := parse(w)
	if err != nil {
		return err
	}
	if err := avro.NewSchemaCompatibility().Compatible(reader, writer); err != nil {
		return incompatible(w, "%v", err)
	}
	return nil
}

// parse reads a registered schema and those it refers to. The error is an *InvalidError.
func parse(w *WriterSchema) (avro.Schema, error) {
	cache := &avro.SchemaCache{} // not hamba's global one: versions of a type share its name
	for _, text := range w.References {
		if _, err := avro.ParseWithCache(text, "", cache); err != nil {
			return nil, incompatible(w, "what it refers to: %v", err)
		}
	}
	s, err := avro.ParseWithCache(w.Text, "", cache)
	if err != nil {
		return nil, incompatible(w, "%v", err)
	}
	return s, nil
}

// readers tells whether those who read with the registered schema w can read what is written as avsc: an *InvalidError if not.
func readers(w *WriterSchema, avsc string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = incompatible(w, "%v", r)
		}
	}()
	if w.Type != "AVRO" {
		return incompatible(w, "is %s, not AVRO", w.Type)
	}
	theirs, err := parse(w)
	if err != nil {
		return err
	}
	if err := avro.NewSchemaCompatibility().Compatible(theirs, mustParse(avsc)); err != nil {
		return incompatible(w, "%v", err)
	}
	return nil
}

type resolver struct {
	skipped map[string]*node // by full name: a type may contain itself
	nodes   int
}

// union resolves the branches of a writer's union, each by itself. One that can't be read is an error only where it is met, unless none can.
func (r *resolver) union(w *avro.UnionSchema, branch func(avro.Schema) (*node, error)) (*node, error) {
	n := &node{kind: kindUnion}
	readable := false
	var first error
	for _, t := range w.Types() {
		kid, err := branch(t)
		if err != nil {
			kid = &node{kind: kindUnreadable, why: err}
			if first == nil {
				first = err
			}
		}
		readable = readable || err == nil
		n.kids = append(n.kids, kid)
	}
	if !readable {
		if first == nil {
			first = errors.New("a union of nothing")
		}
		return nil, first
	}
	return n, nil
}

// record resolves the whole value: a record, or a union with records that can be read as ours.
func (r *resolver) record(reader *avro.RecordSchema, writer avro.Schema) (*node, error) {
	r.nodes++
	switch w := deref(writer).(type) {
	case *avro.UnionSchema:
		return r.union(w, func(t avro.Schema) (*node, error) { return r.record(reader, t) })
	case *avro.RecordSchema:
		if reader.Name() != w.Name() && !slices.Contains(reader.Aliases(), w.FullName()) {
			return nil, fmt.Errorf("reader schema %s and writer schema %s: names do not match", reader.FullName(), w.FullName())
		}
		return r.fields(reader, w)
	default:
		return nil, fmt.Errorf("is a %s, not a record", writer.Type())
	}
}

func (r *resolver) fields(reader, writer *avro.RecordSchema) (*node, error) {
	n := &node{kind: kindRecord, start: &EnrichedClick{}}
	for _, wf := range writer.Fields() {
		kid, err := r.field(readerField(reader, writer, wf), wf)
		if err != nil {
			return nil, err
		}
		n.kids, n.names = append(n.kids, kid), append(n.names, wf.Name())
	}
	for _, rf := range reader.Fields() {
		if !slices.ContainsFunc(writer.Fields(), func(wf *avro.Field) bool { return readerField(reader, writer, wf) == rf }) {
			if err := setDefault(n.start, rf); err != nil {
				return nil, err
			}
		}
	}
	return n, nil
}

// readerField is the reader's field that wf is read into, or nil. A field of the very name goes before one of an alias.
func readerField(reader, writer *avro.RecordSchema, wf *avro.Field) *avro.Field {
	for _, rf := range reader.Fields() {
		if rf.Name() == wf.Name() {
			return rf
		}
	}
	named := func(name string) bool {
		return slices.ContainsFunc(writer.Fields(), func(f *avro.Field) bool { return f.Name() == name })
	}
	for _, rf := range reader.Fields() {
		// Of several aliases that the writer has, the first counts.
		if !named(rf.Name()) && slices.Contains(rf.Aliases(), wf.Name()) && rf.Aliases()[slices.IndexFunc(rf.Aliases(), named)] == wf.Name() {
			return rf
		}
	}
	return nil
}

func (r *resolver) field(rf, wf *avro.Field) (*node, error) {
	to := skip
	if rf != nil {
		to = targets[rf.Name()] // skip, if the schema is ahead of the struct
	}
	if to == skip {
		return r.skip(wf.Type())
	}
	n, err := r.value(rf.Type(), wf.Type(), to)
	if err != nil {
		return nil, fmt.Errorf("field %s: %w", wf.Name(), err)
	}
	return n, nil
}

// value resolves a field's type to the reader's long or string.
func (r *resolver) value(reader, writer avro.Schema, to target) (*node, error) {
	r.nodes++
	if u, ok := deref(writer).(*avro.UnionSchema); ok {
		return r.union(u, func(t avro.Schema) (*node, error) { return r.value(reader, t, to) })
	}
	p, ok := writer.(*avro.PrimitiveSchema)
	if !ok {
		return nil, fmt.Errorf("a %s cannot be read as %s", writer.Type(), reader.Type())
	}
	// Avro ignores logical types here, so a timestamp-micros would be read as milliseconds, 50,000 years ahead.
	if want, has := logicalType(reader.(*avro.PrimitiveSchema)), logicalType(p); want != "" && has != "" && has != want {
		return nil, fmt.Errorf("a %s cannot be read as %s", has, want)
	}
	switch {
	case reader.Type() == avro.Long && p.Type() == avro.Long:
		return &node{kind: kindLong, to: to}, nil
	case reader.Type() == avro.Long && p.Type() == avro.Int:
		return &node{kind: kindInt, to: to}, nil
	case reader.Type() == avro.String && (p.Type() == avro.String || p.Type() == avro.Bytes):
		return &node{kind: kindText, to: to}, nil
	}
	return nil, fmt.Errorf("a %s cannot be read as %s", p.Type(), reader.Type())
}

// skip is the node that reads past a value.
func (r *resolver) skip(writer avro.Schema) (*node, error) {
	r.nodes++
	switch w := deref(writer).(type) {
	case *avro.NullSchema:
		return &node{kind: kindNull}, nil
	case *avro.PrimitiveSchema:
		switch w.Type() {
		case avro.Boolean:
			return &node{kind: kindBool}, nil
		case avro.Int:
			return &node{kind: kindInt}, nil
		case avro.Long:
			return &node{kind: kindLong}, nil
		case avro.Float:
			return &node{kind: kindFixed, size: 4}, nil
		case avro.Double:
			return &node{kind: kindFixed, size: 8}, nil
		case avro.String, avro.Bytes:
			return &node{kind: kindText}, nil
		}
	case *avro.FixedSchema:
		return &node{kind: kindFixed, size: w.Size()}, nil
	case *avro.EnumSchema:
		return &node{kind: kindEnum, size: len(w.Symbols())}, nil
	case *avro.ArraySchema:
		kid, err := r.skip(w.Items())
		return &node{kind: kindArray, kids: []*node{kid}}, err
	case *avro.MapSchema:
		kid, err := r.skip(w.Values())
		return &node{kind: kindMap, kids: []*node{kid}}, err
	case *avro.UnionSchema:
		n := &node{kind: kindUnion}
		for _, t := range w.Types() {
			kid, err := r.skip(t)
			if err != nil {
				return nil, err
			}
			n.kids = append(n.kids, kid)
		}
		return n, nil
	case *avro.RecordSchema:
		if n := r.skipped[w.FullName()]; n != nil {
			return n, nil
		}
		n := &node{kind: kindRecord}
		r.skipped[w.FullName()] = n // before its fields: one of them may be itself
		for _, f := range w.Fields() {
			kid, err := r.skip(f.Type())
			if err != nil {
				return nil, err
			}
			n.kids, n.names = append(n.kids, kid), append(n.names, f.Name())
		}
		return n, nil
	}
	return nil, fmt.Errorf("unknown type %s", writer.Type())
}

// setDefault puts the default of rf, which the writer lacks, into c.
func setDefault(c *EnrichedClick, rf *avro.Field) error {
	if !rf.HasDefault() {
		return fmt.Errorf("field %s is missing in the writer's schema and has no default", rf.Name())
	}
	to := targets[rf.Name()]
	if to == skip {
		return nil
	}
	switch v := rf.Default().(type) {
	case int64:
		c.setLong(to, v)
	case string:
		c.setText(to, v)
	default:
		return fmt.Errorf("field %s: default of type %T", rf.Name(), v)
	}
	return nil
}

func deref(s avro.Schema) avro.Schema {
	if r, ok := s.(*avro.RefSchema); ok {
		return r.Schema()
	}
	return s
}

// logicalType is "" where there is none. hamba keeps those that it does not know among the other properties.
func logicalType(p *avro.PrimitiveSchema) string {
	if l := p.Logical(); l != nil {
		return string(l.Type())
	}
	name, _ := p.Prop("logicalType").(string)
	return name
}

// incompatible is the error that the schema of w gives.
func incompatible(w *WriterSchema, format string, a ...any) *InvalidError {
	return &InvalidError{ClassIncompatible, presentable(fmt.Sprintf("schema %d: ", w.ID) + fmt.Sprintf(format, a...))}
}

// undecodable is the error that bytes give which do not follow their schema.
func undecodable(err error) *InvalidError {
	return &InvalidError{ClassDecode, presentable(err.Error())}
}

// presentable keeps a text that may quote a schema short, and without what a text column can't hold.
func presentable(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return text
}
