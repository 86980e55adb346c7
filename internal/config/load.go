package config

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/providers/structs"
	"github.com/knadh/koanf/v2"
)

// EnvName is the environment variable of a setting: kafka.session_timeout is EXACTLY_KAFKA_SESSION_TIMEOUT.
func EnvName(setting string) string {
	return "EXACTLY_" + strings.ToUpper(strings.ReplaceAll(setting, ".", "_"))
}

// Names lists every setting, sorted.
func Names() []string {
	k := koanf.New(".")
	if err := k.Load(structs.Provider(Defaults(), "koanf"), nil); err != nil {
		panic("config: defaults do not load: " + err.Error())
	}
	names := k.Keys()
	sort.Strings(names)
	return names
}

// Load reads the defaults, then the YAML file (if path is not empty), the environment, then flags (setting name to value); later ones win.
// It returns an error that names every setting that is unknown or wrong.
func Load(path string, environ []string, flags map[string]string) (Config, error) {
	k, _, err := gather(path, environ, flags)
	if err != nil {
		return Config{}, err
	}
	var c Config
	err = k.UnmarshalWithConf("", &c, koanf.UnmarshalConf{Tag: "koanf", DecoderConfig: &mapstructure.DecoderConfig{
		Result: &c, WeaklyTypedInput: true, TagName: "koanf", DecodeHook: mapstructure.StringToTimeDurationHookFunc(),
	}})
	if err != nil {
		return Config{}, fmt.Errorf("settings of the wrong type: %w", err)
	}
	err = c.Validate()
	if err == nil {
		err = c.Postgres.settle(c.Postgres.DSN != Defaults().Postgres.DSN)
	}
	if err != nil {
		return Config{}, fmt.Errorf("wrong settings:\n%w", err)
	}
	if c.Kafka.TransactionTimeout == 0 {
		c.Kafka.TransactionTimeout = c.Kafka.SessionTimeout
	}
	if c.Kafka.HeartbeatInterval == 0 {
		c.Kafka.HeartbeatInterval = min(c.Kafka.SessionTimeout/3, 3*time.Second)
	}
	if c.Postgres.IdleTimeout == 0 {
		c.Postgres.IdleTimeout = c.Kafka.SessionTimeout / 2
	}
	return c, nil
}

// UnknownEnv lists the EXACTLY_ variables that are no setting: most likely misspelt. Names of the test builds' failpoints are left out.
func UnknownEnv(environ []string) []string {
	known := map[string]bool{}
	for _, n := range Names() {
		known[EnvName(n)] = true
	}
	var unknown []string
	for _, kv := range environ {
		n, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(n, "EXACTLY_") && !strings.HasPrefix(n, "EXACTLY_FAILPOINT") && !known[n] {
			unknown = append(unknown, n)
		}
	}
	sort.Strings(unknown)
	return unknown
}

// Redacted is every setting's printable value by name.
func (c Config) Redacted() map[string]any {
	c.Postgres.DSN = RedactDSN(c.Postgres.DSN)
	c.Registry.URL = redactURL(c.Registry.URL)
	c.Telemetry.OTLPEndpoint = redactURL(c.Telemetry.OTLPEndpoint)
	return c.values()
}

// Environ is every setting by its environment name, secrets included: for a child's environment, never to be shown.
func (c Config) Environ() map[string]string {
	out := map[string]string{}
	for name, v := range c.values() {
		out[EnvName(name)] = fmt.Sprint(v)
	}
	return out
}

func (c Config) values() map[string]any {
	k := koanf.New(".")
	if err := k.Load(structs.Provider(c, "koanf"), nil); err != nil {
		panic("config: settings do not load: " + err.Error())
	}
	out := map[string]any{}
	for key, v := range k.All() {
		if d, ok := v.(time.Duration); ok {
			v = d.String()
		}
		out[key] = v
	}
	return out
}
