package conformance

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/exactly-pipeline/exactly/schema"
)

// deleting is held while a schema is deleted for good: in Apicurio Registry 3.0 that may take with it what is being registered beside it, a
// race that no rule can assert.
var deleting sync.RWMutex

func registryRules() []rule {
	rules := append([]rule{
		{"same-schema-same-id", "every worker registers at its start: what is registered already keeps its id, in any subject, and nothing new comes of it", sameSchemaSameID, wire},
		{"id-finds-its-schema", "a record carries nothing but the id: it finds the schema as it was registered, from any client, for ever", idFindsItsSchema, wire},
		{"layout-is-no-difference", "a schema registered by another tool in another layout is the same schema: setup makes no second version of it", layoutIsNoDifference, wire},
		{"registered-at-once", "setups that run side by side register the same schema at the same time: each gets an id that leads to it, or is told to try again", registeredAtOnce, wire},
		{"references-come-along", "a writer's schema may refer to others: the id leads to all of them", referencesComeAlong, wire},
		{"incompatible-is-refused", "a schema that readers of the subject can't read is refused, as setup's error and not as one to try again", incompatibleIsRefused, wire},
		{"no-schema-is-refused", "what is no Avro schema is refused likewise", noSchemaIsRefused, wire},
		{"unknown-has-its-own-code", "an id nobody has registered makes a dead letter, a registry that is away does not: they are told apart by the registry's own code", unknownHasItsCode, wire},
		{"compatibility-is-by-subject", "whoever runs the registry sets what counts as compatible, for a subject or for all", compatibilityBySubject, wire},
		{"deleted-is-still-decoded", "a version deleted softly is not offered any more, but records written with it are still read", deletedIsStillDecoded, wire},
		{"deleted-for-good", "a schema deleted for good is gone where no other subject has it, and its id is not given to another", deletedForGood, wire},
	}, troubleRules...)
	for i := range rules {
		holds, lock, unlock := rules[i].holds, deleting.RLock, deleting.RUnlock
		if rules[i].name == "deleted-for-good" {
			lock, unlock = deleting.Lock, deleting.Unlock
		}
		rules[i].holds = func(w *world) {
			lock()
			defer unlock()
			holds(w)
		}
	}
	return rules
}

// registry is the product's client, one with nothing in its cache.
func (w *world) registry(url string) *schema.Registry {
	w.t.Helper()
	r, err := schema.NewRegistry(url)
	require.NoError(w.t, err)
	w.t.Cleanup(r.Close)
	return r
}

func (w *world) fresh() *schema.Registry { w.t.Helper(); return w.registry(shared.registry) }

// sr is franz-go's client, for what the product has no call for.
func (w *world) sr() *sr.Client {
	w.t.Helper()
	cl, err := sr.NewClient(sr.URLs(shared.registry), sr.HTTPClient(&http.Client{Timeout: patience}))
	require.NoError(w.t, err)
	return cl
}

func (w *world) subject(s string) string { return w.cfg.Group + "-" + s }

// avsc is a schema nobody else has, since a registry gives one id to the same schema anywhere.
func (w *world) avsc(fields ...string) string {
	return fmt.Sprintf(`{"type":"record","name":"R%s","fields":[%s]}`, strings.ReplaceAll(w.cfg.Group, "-", "_"), strings.Join(fields, ","))
}

const (
	fieldA         = `{"name":"a","type":"long"}`
	fieldAString   = `{"name":"a","type":"string"}`
	fieldB         = `{"name":"b","type":"long"}`
	fieldBOptional = `{"name":"b","type":"long","default":0}`
)

// tries of what says that it may be tried again: on a crowded machine an answer may take longer than the product waits.
const tries = 3

// register is the product's: the id, and what it says of it.
func (w *world) register(subject, avsc string) (int, string) {
	w.t.Helper()
	var id int
	var created bool
	var err error
	for range tries {
		if id, created, err = w.fresh().Register(w.soon(), subject, avsc); schemaClass(err) != "transient" {
			break
		}
	}
	switch {
	case err != nil:
		w.t.Logf("register: %v", err)
		return 0, schemaClass(err)
	case created:
		return id, "new"
	}
	return id, "there"
}

// schemaClass is what the product makes of a registry's answer.
func schemaClass(err error) string {
	var invalid *schema.InvalidError
	var transient *schema.TransientError
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &invalid):
		return "permanent: " + invalid.Class
	case errors.As(err, &transient):
		return "transient"
	}
	return "no class: " + err.Error()
}

// answer is a registry's, in its own codes.
func answer(err error) string {
	var re *sr.ResponseError
	if errors.As(err, &re) {
		return fmt.Sprintf("%d %d", re.StatusCode, re.ErrorCode)
	}
	return name(err)
}

// errorCode is the registry's own code alone: registries differ in the HTTP status beside it.
func errorCode(err error) string {
	var re *sr.ResponseError
	if errors.As(err, &re) {
		return fmt.Sprint(re.ErrorCode)
	}
	return name(err)
}

func (w *world) byID(id int) string {
	w.t.Helper()
	var said string
	for range tries {
		s, err := w.fresh().SchemaByID(w.soon(), id)
		if err == nil {
			return s.Type + " " + s.Text
		}
		if said = schemaClass(err); said != "transient" {
			break
		}
	}
	return said
}

func sameSchemaSameID(w *world) {
	a := w.avsc(fieldA)
	id, said := w.register(w.subject("one"), a)
	w.is("first", "new", said)
	w.is("an id that fits the wire format", true, id > 0 && int64(id) < 1<<31)
	again, said := w.register(w.subject("one"), a)
	w.is("again", "there", said)
	w.is("its id", id, again)
	other, said := w.register(w.subject("two"), a)
	w.is("in another subject", "new", said)
	w.is("its id there", id, other)
	next, said := w.register(w.subject("one"), w.avsc(fieldA, fieldBOptional))
	w.is("another schema", "new", said)
	w.is("another id", true, next != id)
	back, said := w.register(w.subject("one"), a)
	w.is("the first again", "there", said)
	w.is("its id still", id, back)
	versions, err := w.sr().SubjectVersions(w.soon(), w.subject("one"))
	require.NoError(w.t, err)
	w.is("versions", "[1 2]", versions)
}

func idFindsItsSchema(w *world) {
	a, b := w.avsc(fieldA), w.avsc(fieldA, `{"name":"c","type":["null","string"],"default":null,"doc":"é"}`)
	one, _ := w.register(w.subject("s"), a)
	two, _ := w.register(w.subject("s"), b)
	w.is("the first", "AVRO "+a, w.byID(one))
	w.is("the second", "AVRO "+b, w.byID(two))
	got, err := w.sr().SchemaByVersion(w.soon(), w.subject("s"), -1)
	require.NoError(w.t, err)
	w.is("the latest version", fmt.Sprint(2, two), fmt.Sprint(got.Version, got.ID))
	click, _ := w.register(w.subject("click"), schema.ClickAvsc)
	w.is("our own, byte for byte", "AVRO "+schema.ClickAvsc, w.byID(click))
}

func layoutIsNoDifference(w *world) {
	a := w.avsc(fieldA, fieldB)
	id, _ := w.register(w.subject("s"), a)
	again, said := w.register(w.subject("s"), strings.NewReplacer(`,`, " ,\n  ", `:`, " : ").Replace(a))
	w.is("in another layout", "there", said)
	w.is("its id", true, id == again)
}

func registeredAtOnce(w *world) {
	const workers = 8
	a := w.avsc(fieldA)
	var refused, astray atomic.Int32
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			id, _, err := w.fresh().Register(w.ctx, w.subject("s"), a)
			switch said := schemaClass(err); {
			case said == "transient":
			case said != "ok":
				refused.Add(1)
			case w.byID(id) != "AVRO "+a:
				astray.Add(1)
			}
		})
	}
	wg.Wait()
	w.is("refused for good", 0, refused.Load())
	w.is("ids that lead elsewhere", 0, astray.Load())
	_, said := w.register(w.subject("s"), a)
	w.is("afterwards", "there", said)
}

func referencesComeAlong(w *world) {
	cl := w.sr()
	ref := func(subject, name string) sr.SchemaReference {
		return sr.SchemaReference{Name: name, Subject: subject, Version: 1}
	}
	create := func(subject, avsc string, refs ...sr.SchemaReference) int {
		s, err := cl.CreateSchema(w.soon(), subject, sr.Schema{Schema: avsc, References: refs})
		require.NoError(w.t, err)
		return s.ID
	}
	ns := "n" + strings.ReplaceAll(w.cfg.Group, "-", "_")
	leaf := `{"type":"enum","name":"Leaf","namespace":"` + ns + `","symbols":["A","B"]}`
	middle := `{"type":"record","name":"Middle","namespace":"` + ns + `","fields":[{"name":"l","type":"` + ns + `.Leaf"}]}`
	top := `{"type":"record","name":"Top","namespace":"` + ns + `","fields":[{"name":"m","type":"` + ns + `.Middle"}]}`
	create(w.subject("leaf"), leaf)
	create(w.subject("middle"), middle, ref(w.subject("leaf"), ns+".Leaf"))
	id := create(w.subject("top"), top, ref(w.subject("middle"), ns+".Middle"))
	got, err := w.fresh().SchemaByID(w.soon(), id)
	require.NoError(w.t, err)
	w.is("the schema itself", top, got.Text)
	w.is("what it refers to, innermost first", fmt.Sprint([]string{leaf, middle}), got.References)
	by, err := cl.SchemaReferences(w.soon(), w.subject("leaf"), 1)
	require.NoError(w.t, err)
	w.is("who refers to the innermost", 1, len(by))
	w.is("deleting what is referred to", "42206", errorCode(cl.DeleteSchema(w.soon(), w.subject("leaf"), 1, sr.SoftDelete)))
}

func (w *world) compatibility(level sr.CompatibilityLevel, subjects ...string) {
	w.t.Helper()
	for _, r := range w.sr().SetCompatibility(w.soon(), sr.SetCompatibility{Level: level}, subjects...) {
		require.NoError(w.t, r.Err)
	}
}

func incompatibleIsRefused(w *world) {
	s := w.subject("s")
	id, _ := w.register(s, w.avsc(fieldA))
	w.compatibility(sr.CompatBackward, s)
	check := func(avsc string) string {
		got, err := w.sr().CheckCompatibility(w.soon(), s, -1, sr.Schema{Schema: avsc})
		if err != nil {
			return answer(err)
		}
		return fmt.Sprint(got.Is)
	}
	w.is("asked: another type", "false", check(w.avsc(fieldAString)))
	w.is("asked: a field without default", "false", check(w.avsc(fieldA, fieldB)))
	w.is("asked: a field with default", "true", check(w.avsc(fieldA, fieldBOptional)))
	_, err := w.sr().RegisterSchema(w.soon(), s, sr.Schema{Schema: w.avsc(fieldAString)}, -1, -1)
	w.is("the registry's answer", "409 409", answer(err))
	_, said := w.register(s, w.avsc(fieldA, fieldB))
	w.is("registered", "permanent: "+schema.ClassIncompatible, said)
	_, said = w.register(s, w.avsc(fieldA, fieldBOptional))
	w.is("a compatible one", "new", said)
	back, said := w.register(s, w.avsc(fieldA))
	w.is("the first, as setup finds it", fmt.Sprint("there ", id), fmt.Sprint(said, " ", back))
}

func noSchemaIsRefused(w *world) {
	for _, c := range []struct{ point, avsc string }{{"no JSON", "{"}, {"no type", `{"name":"x"}`}, {"an unknown name", w.avsc(`{"name":"a","type":"Unknown"}`)}} {
		_, said := w.register(w.subject("s"), c.avsc)
		w.is(c.point, "permanent: "+schema.ClassIncompatible, said)
	}
}

func unknownHasItsCode(w *world) {
	const nobodys = 2_000_000_001
	w.is("an id", "permanent: "+schema.ClassUnknown, w.byID(nobodys))
	_, err := w.sr().SchemaByID(w.soon(), nobodys)
	w.is("the registry's answer", "404 40403", answer(err))
	_, err = w.sr().SubjectVersions(w.soon(), w.subject("never"))
	w.is("a subject", "404 40401", answer(err))
	_, err = w.sr().LookupSchema(w.soon(), w.subject("never"), sr.Schema{Schema: w.avsc(fieldA)})
	w.is("a schema of an unknown subject", "404 40401", answer(err))
	w.register(w.subject("s"), w.avsc(fieldA))
	_, err = w.sr().LookupSchema(w.soon(), w.subject("s"), sr.Schema{Schema: w.avsc(fieldB)})
	w.is("a schema of a known subject", "404 40403", answer(err))
	_, err = w.sr().SchemaByVersion(w.soon(), w.subject("s"), 7)
	w.is("a version", "404 40402", answer(err))
}

func compatibilityBySubject(w *world) {
	s := w.subject("s")
	w.register(s, w.avsc(fieldA))
	level := func(subjects ...string) string {
		r := w.sr().Compatibility(sr.WithParams(w.soon(), sr.DefaultToGlobal), subjects...)
		if r[0].Err != nil {
			return answer(r[0].Err)
		}
		return r[0].Level.String()
	}
	w.is("of all, as it comes", "BACKWARD", level())
	w.is("of a subject without one: that of all", level(), level(s))
	w.compatibility(sr.CompatFull, s)
	w.is("set", "FULL", level(s))
	w.compatibility(sr.CompatNone, s)
	w.is("set again", "NONE", level(s))
	_, said := w.register(s, w.avsc(fieldAString))
	w.is("then anything goes", "new", said)
	for _, r := range w.sr().ResetCompatibility(w.soon(), s) {
		w.is("taken back", "ok", answer(r.Err))
	}
	w.is("that of all again", level(), level(s))
	bad := w.sr().SetCompatibility(w.soon(), sr.SetCompatibility{Level: sr.CompatibilityLevel(99)}, s)
	w.is("a level that does not exist is refused", true, bad[0].Err != nil)
}

func deletedIsStillDecoded(w *world) {
	s := w.subject("s")
	one, two := w.avsc(fieldA), w.avsc(fieldA, fieldBOptional)
	id, _ := w.register(s, one)
	w.register(s, two)
	w.is("deleted", "ok", answer(w.sr().DeleteSchema(w.soon(), s, 1, sr.SoftDelete)))
	versions, err := w.sr().SubjectVersions(w.soon(), s)
	require.NoError(w.t, err)
	w.is("versions", "[2]", versions)
	w.is("by its id", "AVRO "+one, w.byID(id))
	back, said := w.register(s, one)
	w.is("registered again", "new", said)
	w.is("with its id", id, back)
	gone, err := w.sr().DeleteSubject(w.soon(), s, sr.SoftDelete)
	w.is("the subject deleted", "ok", answer(err))
	w.is("versions that went with it", true, len(gone) >= 2)
	_, err = w.sr().SubjectVersions(w.soon(), s)
	w.is("the subject then", "404 40401", answer(err))
	w.is("by its id, even so", "AVRO "+one, w.byID(id))
	back, said = w.register(s, one)
	w.is("registered anew", fmt.Sprint("new ", id), fmt.Sprint(said, " ", back))
}

func deletedForGood(w *world) {
	cl := w.sr()
	only, both := w.avsc(fieldA), w.avsc(fieldB)
	gone, _ := w.register(w.subject("s"), only)
	kept, _ := w.register(w.subject("s2"), both)
	w.register(w.subject("t"), both)
	for _, s := range []string{"s", "s2"} {
		w.is("softly", "ok", answer(deleteSubject(cl, w, s, sr.SoftDelete)))
		w.is("for good", "ok", answer(deleteSubject(cl, w, s, sr.HardDelete)))
	}
	found := w.byID(gone)
	if found == "AVRO "+only {
		found = "there still"
	}
	w.is("an id of nobody else's", "permanent: "+schema.ClassUnknown, found)
	w.is("an id that another subject has", "AVRO "+both, w.byID(kept))
	next, _ := w.register(w.subject("s"), w.avsc(fieldAString))
	w.is("given to another", false, next == gone)
	_, said := w.register(w.subject("s"), only)
	w.is("registered anew", "new", said)
	w.is("for good without softly first", "40405", errorCode(deleteSubject(cl, w, "t", sr.HardDelete)))
}

func deleteSubject(cl *sr.Client, w *world, subject string, how sr.DeleteHow) error {
	_, err := cl.DeleteSubject(w.soon(), w.subject(subject), how)
	return err
}
