package pipeline

import (
	"github.com/exactly-pipeline/exactly/clicks"
	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/schema"
)

// counts is the table that clicks are counted in; nil if they are not.
func counts(c *config.Config) *engine.Counts {
	if !c.Counts.Enabled {
		return nil
	}
	return clicks.Counts(c.Counts.Window)
}

// Rebuilder makes rows of events again, and counts them if workers do.
func Rebuilder(c *config.Config, reg *schema.Registry) *clicks.Rebuilder {
	rb := clicks.NewRebuilder(schema.NewEnrichedDecoder(reg))
	rb.Count(counts(c))
	return rb
}
