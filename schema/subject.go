package schema

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/sr"
)

// Subject is what a registry holds under a subject, seen from a schema of ours.
type Subject struct {
	Versions []Version // in order; none: nothing is registered
	Level    string    // the compatibility level in force: BACKWARD, NONE, …; empty: the registry does not say
	Ours     bool      // our schema is one of the versions
	Refused  string    // why the registry would not take our schema; empty: it has it, or would
}

// Version is one version of a subject.
type Version struct {
	Version    int
	ID         int
	Unreadable string // why not all that may be written with it can be read as our schema; empty: it can
	Unusable   string // why its readers can't read what is written with our schema; empty: they can
}

// OwnLevel is the compatibility level that subjects of ours should have: every version reads what every other has written, so that readers and
// writers can be updated in any order, and back.
const OwnLevel = "FULL_TRANSITIVE"

// Versions are the numbers of a subject's versions; none: nothing is registered. Errors: *TransientError.
func (r *Registry) Versions(ctx context.Context, subject string) ([]int, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	all, err := r.cl.SubjectVersions(ctx, subject)
	if hasCode(err, sr.ErrSubjectNotFound, sr.ErrSubjectSoftDeleted) {
		return nil, nil
	}
	if err != nil {
		return nil, &TransientError{"list versions of " + subject, err}
	}
	return all, nil
}

// SetLevel makes OwnLevel the compatibility level of a subject, and returns the level that was in force before, empty if the registry does not
// say. Errors: *TransientError, also where it is forbidden: somebody may allow it.
func (r *Registry) SetLevel(ctx context.Context, subject string) (before string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout)
	defer cancel()
	if before = r.level(ctx, subject); before == OwnLevel {
		return before, nil
	}
	for _, c := range r.cl.SetCompatibility(ctx, sr.SetCompatibility{Level: sr.CompatFullTransitive}, subject) {
		if c.Err != nil {
			return before, &TransientError{"set the compatibility level of " + subject, c.Err}
		}
	}
	return before, nil
}

// level is the one in force, of the subject or, if it has none, of all. Some registries have no such request, or forbid it: then it is
// unknown, and nothing else.
func (r *Registry) level(ctx context.Context, subject string) string {
	if c := r.cl.Compatibility(sr.WithParams(ctx, sr.DefaultToGlobal), subject); len(c) == 1 && c[0].Err == nil {
		return c[0].Level.String()
	}
	return ""
}

// Examine looks at a subject without changing it. Errors: *TransientError.
func (r *Registry) Examine(ctx context.Context, subject, avsc string) (*Subject, error) {
	return r.examine(ctx, subject, sr.Schema{Schema: avsc, Type: sr.TypeAvro}, func(w *WriterSchema) (unreadable, unusable error) {
		return compatible(mustParse(avsc), w), readers(w, avsc)
	})
}

// ExamineJSON is Examine for a JSON Schema. Whether two of them are compatible nobody can tell in general: of a version it is told only whether
// it can be used at all.
func (r *Registry) ExamineJSON(ctx context.Context, subject, text string) (*Subject, error) {
	s, err := r.examine(ctx, subject, sr.Schema{Schema: text, Type: sr.TypeJSON}, func(w *WriterSchema) (unreadable, unusable error) {
		_, unreadable = registeredJSON(w)
		return unreadable, nil
	})
	if s != nil {
		s.Level = "" // registries differ in what it means for JSON Schema
	}
	return s, err
}

func (r *Registry) examine(ctx context.Context, subject string, ours sr.Schema, fits func(*WriterSchema) (unreadable, unusable error)) (*Subject, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout)
	defer cancel()
	s := &Subject{}
	what := func(err error) (*Subject, error) { return nil, &TransientError{"look at " + subject, err} }
	all, err := r.cl.Schemas(ctx, subject)
	if err != nil && !hasCode(err, sr.ErrSubjectNotFound, sr.ErrSubjectSoftDeleted) {
		return what(err)
	}
	for _, v := range all {
		w, err := r.SchemaByID(ctx, v.ID)
		if err != nil {
			return what(err)
		}
		out := Version{Version: v.Version, ID: v.ID}
		unreadable, unusable := fits(w)
		if unreadable != nil {
			out.Unreadable = unreadable.Error()
		}
		if unusable != nil {
			out.Unusable = unusable.Error()
		}
		s.Versions = append(s.Versions, out)
	}
	slices.SortFunc(s.Versions, func(a, b Version) int { return a.Version - b.Version })
	_, err = r.cl.LookupSchema(ctx, subject, ours)
	switch {
	case err == nil:
		s.Ours = true
	case !hasCode(err, sr.ErrSubjectNotFound, sr.ErrSchemaNotFound, sr.ErrSubjectSoftDeleted):
		return what(err)
	case len(s.Versions) > 0:
		if s.Refused, err = r.refused(ctx, subject, ours); err != nil {
			return what(err)
		}
	}
	s.Level = r.level(ctx, subject)
	return s, nil
}

// refused asks whether the registry would take a schema as the subject's next version.
func (r *Registry) refused(ctx context.Context, subject string, s sr.Schema) (string, error) {
	res, err := r.cl.CheckCompatibility(ctx, subject, -1, s)
	if status := statusOf(err); status == http.StatusConflict || status == http.StatusUnprocessableEntity {
		return err.Error(), nil
	}
	if err != nil {
		return "", err
	}
	if res.Is {
		return "", nil
	}
	return strings.Join(append([]string{"it is not compatible with the latest version"}, res.Messages...), "; "), nil
}

// Findings are what keeps a subject from being as ours should be, a line each; none where nothing is registered yet and the level is unknown.
func (s *Subject) Findings() []string {
	out := []string{}
	for _, v := range s.Versions {
		if v.Unreadable != "" {
			out = append(out, fmt.Sprintf("version %d: what is written with it can't be read as ours: %s", v.Version, v.Unreadable))
		}
		if v.Unusable != "" {
			out = append(out, fmt.Sprintf("version %d: its readers can't read what is written as ours: %s", v.Version, v.Unusable))
		}
	}
	if s.Refused != "" {
		out = append(out, "the registry would refuse our schema: "+s.Refused)
	}
	if len(s.Versions) > 0 && s.Level != "" && s.Level != OwnLevel {
		out = append(out, fmt.Sprintf("its compatibility level is %s, not %s: exactly schema register sets it", s.Level, OwnLevel))
	}
	return out
}

// Unreadable is why no click written with a registered schema can be read, in a format; empty: they can, but for branches of a union that can't.
func Unreadable(w *WriterSchema, format string) string {
	if format == JSON {
		if _, err := registeredJSON(w); err != nil {
			return err.Error()
		}
		return ""
	}
	if _, err := resolve(clickSchema, w); err != nil {
		return err.Error()
	}
	return ""
}
