package stack

import (
	"context"
	"fmt"

	"github.com/exactly-pipeline/exactly/internal/stack/apache"
	"github.com/exactly-pipeline/exactly/internal/stack/apicurio"
	"github.com/exactly-pipeline/exactly/internal/stack/child"
)

// String names the stack: what its Kafka is, and how many brokers it has.
func (s *Stack) String() string { return s.opt.String() }

// String names the stack that these options make.
func (o Options) String() string {
	switch n := max(1, o.Apache.Brokers); {
	case o.Kind != Kafka:
		return "embedded stack"
	case n == 1:
		return "apache kafka, 1 broker"
	default:
		return fmt.Sprintf("apache kafka, %d brokers", n)
	}
}

// Kind is the kind of the stack.
func (s *Stack) Kind() Kind { return s.opt.Kind }

// Env is the settings that point a command at this stack. The DSN holds a password: write it to a file, never to a log.
func (s *Stack) Env() map[string]string {
	env := map[string]string{}
	for _, p := range []struct {
		part  Parts
		name  string
		value func() string
	}{
		{Broker, "EXACTLY_KAFKA_BROKERS", s.Brokers}, {Postgres, "EXACTLY_POSTGRES_DSN", s.DSN}, {Registry, "EXACTLY_REGISTRY_URL", s.RegistryURL},
	} {
		if s.opt.Only&p.part != 0 {
			env[p.name] = p.value()
		}
	}
	return env
}

// Brokers is the brokers' host:port, separated by commas.
func (s *Stack) Brokers() string {
	if s.opt.Beside != nil {
		return s.opt.Beside.Brokers
	}
	if s.cluster != nil {
		return s.cluster.Addrs(apache.Plaintext)
	}
	return child.Loopback(s.state.KafkaPort)
}

// Cluster is the brokers of a stack of kind Kafka, to be asked who leads and coordinates, and to be killed, frozen and started again.
// It is nil in other stacks, and where the brokers are another stack's.
func (s *Stack) Cluster() *apache.Cluster { return s.cluster }

// RegistryURL is the schema registry's base address.
func (s *Stack) RegistryURL() string {
	if s.opt.Beside != nil {
		return s.opt.Beside.RegistryURL
	}
	if s.apicurio != nil {
		return s.apicurio.URL()
	}
	return "http://" + child.Loopback(s.state.RegistryPort)
}

// Registry is the registry's process of a stack of kind Kafka, to be killed and started again. It is nil in other stacks.
func (s *Stack) Registry() *apicurio.Registry { return s.apicurio }

// DSN is the address of the database `exactly`, with its password.
func (s *Stack) DSN() string { return s.postgres.dsn(database) }

// PostgresPID is the process id of the Postgres server.
func (s *Stack) PostgresPID() int { return s.postgres.pid() }

// KillPostgres ends the Postgres server with SIGKILL and returns when it is gone. RestartPostgres brings it back.
func (s *Stack) KillPostgres() { s.postgres.kill() }

// RestartPostgres shuts the Postgres server down at once, unless it was killed, and starts it again on the same port: sessions break,
// commits under way have an unknown outcome, and what was acknowledged is there.
func (s *Stack) RestartPostgres(ctx context.Context) error { return s.postgres.restart(ctx) }

// Failed is closed when a process of the stack has ended though nobody here ended it; Err then says which, and how.
func (s *Stack) Failed() <-chan struct{} { return s.failed }

// Err is why Failed is closed, nil before.
func (s *Stack) Err() error {
	select {
	case <-s.failed:
		return s.err
	default:
		return nil
	}
}
