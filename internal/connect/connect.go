// Package connect owns how the settings become what the click generator and the audit are told, for whoever runs them: the commands, the demo,
// chaos.
//
// It promises that both reach Kafka, Postgres and the registry with the security that is configured. It never decides how many clicks there
// are, or what an audit's findings mean.
package connect

import (
	"context"
	"strings"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/clicks"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/internal/security"
	"github.com/exactly-pipeline/exactly/schema"
)

// Generator is a generator's settings, without what it generates and how fast; the click's schema is registered if need be. A registry that
// cannot be reached is waited for, and say told of it.
func Generator(ctx context.Context, c *config.Config, say func(string)) (clicks.GenerateConfig, error) {
	g := clicks.GenerateConfig{
		Brokers: c.Kafka.Brokers, Topic: c.Topics.Input, StopTimeout: c.StopTimeout, Debug: c.Kafka.Debug, Security: &c.Kafka, Say: say,
		Probe: func(ctx context.Context) error { return security.Probe(ctx, &c.Kafka) },
	}
	registry, err := provision.Registry(c)
	if err != nil {
		return g, err
	}
	defer registry.Close()
	g.SchemaID, err = clicks.RegisterClick(ctx, registry, c.Topics.Input, schema.ClickAvsc, say)
	return g, err
}

// Audit is an audit's settings.
func Audit(c *config.Config) (audit.Options, error) {
	transport, err := security.Registry(&c.Registry)
	if err != nil {
		return audit.Options{}, err
	}
	key, err := c.Privacy.IPKey()
	return audit.Options{
		KafkaOpts: security.KafkaOptions(&c.Kafka), RegistryTransport: transport,
		Brokers: strings.Split(strings.ReplaceAll(c.Kafka.Brokers, " ", ""), ","), DSN: c.Postgres.DSN, RegistryURL: c.Registry.URL, Group: c.Group,
		Input: c.Topics.Input, Output: c.Topics.Output, DLQ: c.Topics.DLQ, Heads: c.Ledger.HeadsTopic, IP: c.Privacy.IP, IPKey: key, Format: c.Value.Format,
	}, err
}
