package provision

import (
	"context"
	"fmt"
	"net/http"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/security"
	"github.com/exactly-pipeline/exactly/schema"
)

// Registry is a client of the schema registry, secured as the settings say. around is put around what carries the requests.
func Registry(c *config.Config, around ...func(http.RoundTripper) http.RoundTripper) (*schema.Registry, error) {
	transport, err := security.Registry(&c.Registry)
	if err != nil {
		return nil, err
	}
	for _, a := range around {
		transport = a(transport)
	}
	return schema.NewRegistry(c.Registry.URL, transport)
}

// Subject is one of ours in the registry, and the schema that belongs there.
type Subject struct {
	Name, Avsc string
	JSON       string // a JSON Schema, in place of Avsc
}

// Subjects are those of the input and of the output.
func Subjects(c *config.Config) []Subject {
	in := Subject{Name: c.Topics.Input + "-value", Avsc: schema.ClickAvsc}
	if c.Value.Format == schema.JSON {
		in.Avsc, in.JSON = "", schema.ClickJSON
	}
	return []Subject{in, {Name: c.Topics.Output + "-value", Avsc: schema.EnrichedClickAvsc}}
}

// Schemas registers what is not registered yet, and returns what it changed, a line each. A subject that is new gets schema.OwnLevel; others
// too if levels is true. Where only the level is refused, that is no error: the line says so.
func Schemas(ctx context.Context, c *config.Config, levels bool) ([]string, error) {
	reg, err := Registry(c)
	if err != nil {
		return nil, err
	}
	defer reg.Close()
	var did []string
	for _, s := range Subjects(c) {
		is, err := reg.Versions(ctx, s.Name)
		if err != nil {
			return did, err
		}
		var id int
		var created bool
		if s.JSON != "" {
			id, created, err = reg.RegisterJSON(ctx, s.Name, s.JSON)
		} else {
			id, created, err = reg.Register(ctx, s.Name, s.Avsc)
		}
		if err != nil {
			return did, fmt.Errorf("register schema %s: %w", s.Name, err)
		}
		if created {
			did = append(did, fmt.Sprintf("registered schema %s, id %d", s.Name, id))
		}
		if s.JSON != "" || !levels && (len(is) > 0 || !created) { // what JSON Schemas are compatible, registries differ in
			continue
		}
		switch before, err := reg.SetLevel(ctx, s.Name); {
		case err != nil:
			did = append(did, fmt.Sprintf("left the compatibility level of %s as it is: %v", s.Name, err))
		case before != schema.OwnLevel:
			did = append(did, fmt.Sprintf("set the compatibility level of %s to %s", s.Name, schema.OwnLevel))
		}
	}
	return did, nil
}

// Examine looks at a subject without changing it.
func Examine(ctx context.Context, reg *schema.Registry, s Subject) (*schema.Subject, error) {
	if s.JSON != "" {
		return reg.ExamineJSON(ctx, s.Name, s.JSON)
	}
	return reg.Examine(ctx, s.Name, s.Avsc)
}
