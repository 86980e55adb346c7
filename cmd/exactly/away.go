package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/exactly-pipeline/exactly/internal/config"
)

// away says, of a store that nobody answers at, which setting names it and where to look. Any other error stays as it is.
func away(c *config.Config, err error) error {
	var dial *net.OpError
	if !errors.As(err, &dial) || dial.Op != "dial" {
		return err
	}
	store, setting, value := "", "", ""
	var postgres *pgconn.ConnectError
	var http *url.Error
	switch {
	case errors.As(err, &postgres):
		store, setting, value = "Postgres", "postgres.dsn", config.RedactDSN(c.Postgres.DSN)
	case errors.As(err, &http) && strings.HasPrefix(http.URL, c.Registry.URL):
		store, setting, value = "the schema registry", "registry.url", http.URL
		if u, perr := url.Parse(c.Registry.URL); perr == nil {
			value = u.Redacted()
		}
	case isBroker(c, dial):
		store, setting, value = "Kafka", "kafka.brokers", c.Kafka.Brokers
	default:
		return err
	}
	return fmt.Errorf("%w\n%s does not answer. Look at %s (%s), which is %s, and whether it is up; exactly doctor looks at every store at once, exactly dev runs all of them here, for development",
		err, store, setting, config.EnvName(setting), value)
}

// isBroker says whether what was dialled is one of those in kafka.brokers, by its address or by a name that nobody knows.
func isBroker(c *config.Config, dial *net.OpError) bool {
	brokers := strings.Split(strings.ReplaceAll(c.Kafka.Brokers, " ", ""), ",")
	if dial.Addr != nil && slices.Contains(brokers, dial.Addr.String()) {
		return true
	}
	var name *net.DNSError
	if errors.As(dial, &name) {
		return slices.ContainsFunc(brokers, func(b string) bool { return strings.HasPrefix(b, name.Name+":") })
	}
	return dial.Addr != nil && !strings.Contains(c.HTTP.Addr, dial.Addr.String()) && slices.ContainsFunc(brokers, func(b string) bool {
		host, port, err := net.SplitHostPort(b)
		_, dialled, derr := net.SplitHostPort(dial.Addr.String())
		return err == nil && derr == nil && net.ParseIP(host) == nil && port == dialled // a name that was looked up
	})
}
