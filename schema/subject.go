package schema

import (
	"context"
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
	Unreadable string // why what was written with it can't be read as our schema; empty: it can
}

// Examine looks at a subject without changing it. Errors: *TransientError.
func (r *Registry) Examine(ctx context.Context, subject, avsc string) (*Subject, error) {
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
		if _, err := resolve(mustParse(avsc), w); err != nil {
			out.Unreadable = err.Error()
		}
		s.Versions = append(s.Versions, out)
	}
	slices.SortFunc(s.Versions, func(a, b Version) int { return a.Version - b.Version })
	ours := sr.Schema{Schema: avsc, Type: sr.TypeAvro}
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
	// Some registries have no such request, or forbid it: then the level is unknown, and nothing else.
	if c := r.cl.Compatibility(sr.WithParams(ctx, sr.DefaultToGlobal), subject); len(c) == 1 && c[0].Err == nil {
		s.Level = c[0].Level.String()
	}
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
