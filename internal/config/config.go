// Package config owns the settings: their names, defaults, where they come from (file, environment, flags) and what each may be.
//
// It promises that a wrong setting is named together with what it may be. It never prints a secret.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/exactly-pipeline/exactly/internal/replicas"
)

// Config is every setting of every command. The koanf tag is the setting's name in the YAML file; the environment name is
// EXACTLY_ and the path in capitals with underscores (kafka.session_timeout: EXACTLY_KAFKA_SESSION_TIMEOUT).
type Config struct {
	Group       string        `koanf:"group"`         // consumer group, and prefix of every transactional.id
	Start       string        `koanf:"start"`         // first start of a source: earliest, latest or an RFC 3339 time
	LeaveOnStop bool          `koanf:"leave_on_stop"` // leave the group for good on SIGTERM; false if a restart under the same worker id is meant
	AutoHeal    bool          `koanf:"auto_heal"`     // a worker heals by itself what a person would by `exactly heal`
	StopTimeout time.Duration `koanf:"stop_timeout"`  // how long SIGTERM may take before the worker gives up finishing
	Worker      Worker        `koanf:"worker"`
	Topics      Topics        `koanf:"topics"`
	Kafka       Kafka         `koanf:"kafka"`
	Postgres    Postgres      `koanf:"postgres"`
	Registry    Registry      `koanf:"registry"`
	Geo         Geo           `koanf:"geo"`
	Ledger      Ledger        `koanf:"ledger"`
	Batch       Batch         `koanf:"batch"`
	Value       Value         `koanf:"value"`
	Validation  Validation    `koanf:"validate"`
	DeadLetters DeadLetters   `koanf:"dead_letters"`
	Counts      Counts        `koanf:"counts"`
	Retention   Retention     `koanf:"retention"`
	Privacy     Privacy       `koanf:"privacy"`
	HTTP        HTTP          `koanf:"http"`
	Console     Console       `koanf:"console"`
	Debug       Debug         `koanf:"debug"`
	Health      Health        `koanf:"health"`
	Log         Log           `koanf:"log"`
	Telemetry   Telemetry     `koanf:"telemetry"`
	Kubernetes  Kubernetes    `koanf:"kubernetes"`
}

// Worker names this process to the group.
type Worker struct {
	ID string `koanf:"id"` // group.instance.id and part of the transactional.id; unique per running worker
}

// Topics are the topics' names and the shape `setup` gives those that do not exist yet.
type Topics struct {
	Input       string `koanf:"input"`
	Output      string `koanf:"output"`
	DLQ         string `koanf:"dlq"`
	Replay      string `koanf:"replay"` // pointers to dead letters that are handed in again; empty: none, and no replays
	Partitions  int    `koanf:"partitions"`
	Replication int    `koanf:"replication"` // 0: three, or as many as there are brokers if fewer
}

// Kafka is how to reach the brokers, and the timeouts that decide how fast a dead worker is noticed.
type Kafka struct {
	Client             string        `koanf:"client"`              // confluent (librdkafka) or franz (franz-go)
	Brokers            string        `koanf:"brokers"`             // host:port, comma separated
	SessionTimeout     time.Duration `koanf:"session_timeout"`     // a silent worker loses its partitions after this
	Bulk               bool          `koanf:"bulk"`                // records cross to and from librdkafka many at a time
	MaxPollInterval    time.Duration `koanf:"max_poll_interval"`   // a worker that does not poll for so long loses its partitions; a rebalance waits as long
	HeartbeatInterval  time.Duration `koanf:"heartbeat_interval"`  // 0: a third of the session timeout, at most 3s
	TransactionTimeout time.Duration `koanf:"transaction_timeout"` // 0: the session timeout; never longer than it
	StableTimeout      time.Duration `koanf:"stable_timeout"`      // how long a group offset may stay unstable before its last owner is fenced
	FetchMaxBytes      int           `koanf:"fetch_max_bytes"`     // bytes prefetched by the consumer
	Debug              string        `koanf:"debug"`               // librdkafka debug contexts
	TLS                KafkaTLS      `koanf:"tls"`
	SASL               SASL          `koanf:"sasl"`
}

// Postgres is how to reach the database.
type Postgres struct {
	DSN          string        `koanf:"dsn"`           // secret: printed without its password; once loaded it is complete: see CurrentDSN
	DSNFile      string        `koanf:"dsn_file"`      // file that holds the DSN
	Password     Secret        `koanf:"password"`      // in place of one in the DSN
	PasswordFile string        `koanf:"password_file"` // file that holds the password
	LockTimeout  time.Duration `koanf:"lock_timeout"`  // how long a claim waits for a row before it ends the backend that holds it
	Connections  int           `koanf:"connections"`   // sessions that share out a capture, each partition whole on one
	IdleTimeout  time.Duration `koanf:"idle_timeout"`  // idle_in_transaction_session_timeout; 0: half the session timeout
}

// Registry is how to reach the schema registry (Confluent API).
type Registry struct {
	URL          string      `koanf:"url"`
	Username     string      `koanf:"username"` // basic authentication
	Password     Secret      `koanf:"password"`
	PasswordFile string      `koanf:"password_file"`
	Token        Secret      `koanf:"token"` // bearer token
	TokenFile    string      `koanf:"token_file"`
	TLS          RegistryTLS `koanf:"tls"`
}

// Geo names the country database.
type Geo struct {
	Database string `koanf:"database"` // path of a GeoLite2-Country file; empty: the one built in
}

// Ledger is where the heads of the ledger's chains are published, and with which signature.
type Ledger struct {
	HeadsTopic     string `koanf:"heads_topic"`      // empty: no heads, and a rewritten ledger is not told by Kafka
	SigningKeyFile string `koanf:"signing_key_file"` // Ed25519 private key, PEM; empty: heads are not signed
}

// Batch bounds what one capture takes and what may wait between capture and publish.
type Batch struct {
	MaxRecords   int `koanf:"max_records"`   // records in one capture
	MaxBytes     int `koanf:"max_bytes"`     // input bytes in one capture
	MaxInFlight  int `koanf:"max_in_flight"` // bytes captured and not yet published
	DrainRecords int `koanf:"drain_records"` // outbox rows in one transaction of a drain
}

// HTTP is the listener for metrics and health.
type HTTP struct {
	Addr string `koanf:"addr"` // empty: no listener
}

// Log shapes what is written to standard error.
type Log struct {
	Level  string `koanf:"level"`  // debug, info, warn, error
	Format string `koanf:"format"` // console, json
	Burst  int    `koanf:"burst"`  // lines of one text in a second; of more, one in a hundred is written, but for errors. 0: all
}

// Telemetry is where traces go.
type Telemetry struct {
	OTLPEndpoint string `koanf:"otlp_endpoint"` // OTLP over HTTP; empty: no traces, and nothing is spent on them
}

// Defaults are the settings nobody has to think about on a development stack.
func Defaults() Config {
	host, _ := os.Hostname()
	return Config{
		Group: "exactly", Start: "earliest", LeaveOnStop: true, StopTimeout: 8 * time.Second,
		Worker:     Worker{ID: strings.ToLower(host)},
		Topics:     Topics{Input: "user_clicks", Output: "enriched_clicks", DLQ: "user_clicks_dlq", Replay: "user_clicks_replay", Partitions: 12},
		Kafka:      Kafka{Client: "confluent", Brokers: "127.0.0.1:9092", SessionTimeout: 10 * time.Second, MaxPollInterval: 5 * time.Minute, StableTimeout: time.Second, FetchMaxBytes: 8 << 20},
		Postgres:   Postgres{DSN: "postgres://exactly@127.0.0.1:5432/exactly", LockTimeout: 2 * time.Second, Connections: 3},
		Registry:   Registry{URL: "http://127.0.0.1:8081"},
		Ledger:     Ledger{HeadsTopic: "exactly_ledger_heads"},
		Batch:      Batch{MaxRecords: 8_000, MaxBytes: 8 << 20, MaxInFlight: 16 << 20, DrainRecords: 10_000},
		Value:      Value{Format: "avro"},
		Validation: Validation{MaxValueBytes: 1 << 20, MaxURLBytes: 8192, MaxAhead: 24 * time.Hour},
		HTTP:       HTTP{Addr: "127.0.0.1:8000"},
		Console:    Console{Addr: "127.0.0.1:8010"},

		DeadLetters: DeadLetters{MaxShare: 0.5, Free: 1000, QuarantineAfter: 2},
		Counts:      Counts{Window: time.Minute},
		Retention:   Retention{Outbox: 30 * 24 * time.Hour},
		Privacy:     Privacy{IP: "keep"},
		Health:      Health{StuckAfter: 2 * time.Minute},
		Kubernetes:  Kubernetes{AccountDir: replicas.Mount},
		Log:         Log{Level: "info", Format: "console", Burst: 100},
	}
}

var name = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,200}$`)

// Validate returns every setting that is wrong, joined, each with its name and what it may be.
func (c *Config) Validate() error {
	var errs []error
	bad := func(setting, format string, a ...any) {
		errs = append(errs, fmt.Errorf("%s (%s): %s", setting, EnvName(setting), fmt.Sprintf(format, a...)))
	}
	for _, n := range []struct{ setting, value string }{
		{"group", c.Group}, {"worker.id", c.Worker.ID}, {"topics.input", c.Topics.Input}, {"topics.output", c.Topics.Output}, {"topics.dlq", c.Topics.DLQ},
	} {
		if !name.MatchString(n.value) {
			bad(n.setting, "%q must be 1 to 200 letters, digits, dots, underscores or hyphens", n.value)
		}
	}
	if t := c.Ledger.HeadsTopic; t != "" && !name.MatchString(t) {
		bad("ledger.heads_topic", "%q must be 1 to 200 letters, digits, dots, underscores or hyphens, or empty for none", t)
	} else if oneOf(t, c.Topics.Input, c.Topics.Output, c.Topics.DLQ) {
		bad("ledger.heads_topic", "%q is one of the other topics", t)
	}
	if t := c.Topics.Replay; t != "" && !name.MatchString(t) {
		bad("topics.replay", "%q must be 1 to 200 letters, digits, dots, underscores or hyphens, or empty for none", t)
	} else if t != "" && oneOf(t, c.Topics.Output, c.Topics.DLQ, c.Ledger.HeadsTopic) {
		bad("topics.replay", "%q is one of the other topics", t)
	}
	if strings.HasPrefix(c.Worker.ID, "replay-") { // its transactional.id would be that of another worker's replays
		bad("worker.id", "%q must not begin with replay-", c.Worker.ID)
	}
	if c.Worker.ID == "offsets-restore" {
		bad("worker.id", "%q is the name people's commands go by", c.Worker.ID)
	}
	if _, err := c.StartTime(); err != nil {
		bad("start", "%q must be earliest, latest or an RFC 3339 time such as 2026-01-31T00:00:00Z", c.Start)
	}
	for _, b := range strings.Split(c.Kafka.Brokers, ",") {
		if _, _, err := net.SplitHostPort(strings.TrimSpace(b)); err != nil {
			bad("kafka.brokers", "%q must be host:port, several separated by commas", c.Kafka.Brokers)
			break
		}
	}
	if !oneOf(c.Kafka.Client, "confluent", "franz") {
		bad("kafka.client", "%q must be confluent or franz", c.Kafka.Client)
	}
	if c.Kafka.SessionTimeout < time.Second || c.Kafka.SessionTimeout > 30*time.Minute {
		bad("kafka.session_timeout", "%v must be from 1s to 30m", c.Kafka.SessionTimeout)
	}
	if c.Kafka.MaxPollInterval < time.Second || c.Kafka.MaxPollInterval > 24*time.Hour {
		bad("kafka.max_poll_interval", "%v must be from 1s to 24h", c.Kafka.MaxPollInterval)
	}
	if t := c.Kafka.TransactionTimeout; t != 0 && (t < time.Second || t > c.Kafka.SessionTimeout) {
		bad("kafka.transaction_timeout", "%v must be from 1s to the session timeout (%v)", t, c.Kafka.SessionTimeout)
	}
	if h := c.Kafka.HeartbeatInterval; h != 0 && (h < 50*time.Millisecond || h > c.Kafka.SessionTimeout/2) {
		bad("kafka.heartbeat_interval", "%v must be from 50ms to half the session timeout (%v)", h, c.Kafka.SessionTimeout)
	}
	if c.Kafka.StableTimeout < 50*time.Millisecond || c.Kafka.StableTimeout > c.Kafka.SessionTimeout {
		bad("kafka.stable_timeout", "%v must be from 50ms to the session timeout (%v)", c.Kafka.StableTimeout, c.Kafka.SessionTimeout)
	}
	if c.Kafka.FetchMaxBytes < 64<<10 || c.Kafka.FetchMaxBytes > 1<<30 {
		bad("kafka.fetch_max_bytes", "%d must be from 65536 to 1073741824", c.Kafka.FetchMaxBytes)
	}
	if err := checkDSN(c.Postgres.DSN); err != nil {
		errs = append(errs, err)
	}
	if c.Postgres.LockTimeout < 50*time.Millisecond || c.Postgres.LockTimeout > c.Kafka.SessionTimeout {
		bad("postgres.lock_timeout", "%v must be from 50ms to the session timeout (%v)", c.Postgres.LockTimeout, c.Kafka.SessionTimeout)
	}
	if c.Postgres.IdleTimeout < 0 || c.Postgres.IdleTimeout > c.Kafka.SessionTimeout {
		bad("postgres.idle_timeout", "%v must be at most the session timeout (%v)", c.Postgres.IdleTimeout, c.Kafka.SessionTimeout)
	}
	if u, err := url.Parse(c.Registry.URL); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		bad("registry.url", "%q must be http://host:port or https://host:port", redactURL(c.Registry.URL))
	}
	if c.Topics.Partitions < 1 || c.Topics.Partitions > 10_000 {
		bad("topics.partitions", "%d must be from 1 to 10000", c.Topics.Partitions)
	}
	if c.Topics.Replication < 0 || c.Topics.Replication > 9 {
		bad("topics.replication", "%d must be from 0 (chosen for you) to 9", c.Topics.Replication)
	}
	for _, n := range []struct {
		setting   string
		v, lo, hi int
	}{
		{"postgres.connections", c.Postgres.Connections, 1, 64},
		{"batch.max_records", c.Batch.MaxRecords, 1, 1_000_000}, {"batch.max_bytes", c.Batch.MaxBytes, 1 << 10, 1 << 30},
		{"batch.max_in_flight", c.Batch.MaxInFlight, 1 << 10, 1 << 31}, {"batch.drain_records", c.Batch.DrainRecords, 1, 1_000_000},
	} {
		if n.v < n.lo || n.v > n.hi {
			bad(n.setting, "%d must be from %d to %d", n.v, n.lo, n.hi)
		}
	}
	if c.HTTP.Addr != "" {
		if _, _, err := net.SplitHostPort(c.HTTP.Addr); err != nil {
			bad("http.addr", "%q must be host:port, or empty for none", c.HTTP.Addr)
		}
	}
	if c.StopTimeout < time.Second || c.StopTimeout > 5*time.Minute {
		bad("stop_timeout", "%v must be from 1s to 5m", c.StopTimeout)
	}
	if !oneOf(c.Log.Level, "debug", "info", "warn", "error") {
		bad("log.level", "%q must be debug, info, warn or error", c.Log.Level)
	}
	if !oneOf(c.Log.Format, "console", "json") {
		bad("log.format", "%q must be console or json", c.Log.Format)
	}
	if e := c.Telemetry.OTLPEndpoint; e != "" {
		if u, err := url.Parse(e); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil {
			bad("telemetry.otlp_endpoint", "%q must be http://host:port or https://host:port, or empty for none; "+
				"a password goes into OpenTelemetry's own OTEL_EXPORTER_OTLP_HEADERS", redactURL(e))
		}
	}
	c.validateOperations(bad)
	c.Value.validate(bad)
	c.Validation.validate(bad)
	c.DeadLetters.validate(bad)
	c.Counts.validate(bad)
	c.Retention.validate(bad)
	c.Privacy.validate(bad)
	c.validateConsole(bad)
	c.Kubernetes.validate(bad, c.Worker.ID)
	return errors.Join(c.validateSecurity(errs)...)
}

// AllTopics are the topics there have to be.
func (c *Config) AllTopics() []string {
	all := []string{c.Topics.Input, c.Topics.Output, c.Topics.DLQ}
	if c.Ledger.HeadsTopic != "" {
		all = append(all, c.Ledger.HeadsTopic)
	}
	return all
}

// StartTime is the first start as a time: zero for earliest and latest.
func (c *Config) StartTime() (time.Time, error) {
	if oneOf(c.Start, "earliest", "latest") {
		return time.Time{}, nil
	}
	return time.Parse(time.RFC3339, c.Start)
}

// TransactionalID is the id of a worker's transactional producer: one per worker (KIP-447), the same for each of its incarnations.
func (c *Config) TransactionalID(worker string) string { return c.Group + "-" + worker }

func oneOf(s string, of ...string) bool {
	for _, o := range of {
		if s == o {
			return true
		}
	}
	return false
}
