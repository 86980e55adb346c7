package config

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
)

// Secret is a setting that is never printed: whatever formats it writes xxxxx. What needs the value converts it to a string.
type Secret string

const redacted = "xxxxx"

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return redacted
}

// GoString implements fmt.GoStringer.
func (s Secret) GoString() string { return fmt.Sprintf("%q", s.String()) }

// MarshalText keeps it out of JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// KafkaTLS encrypts the connections to the brokers. A name to verify other than the host's is not among the settings: librdkafka knows
// none, so the brokers' advertised names must be in their certificates.
type KafkaTLS struct {
	Enabled bool   `koanf:"enabled"`
	CA      string `koanf:"ca"`   // PEM file of the authorities trusted; empty: the system's
	Cert    string `koanf:"cert"` // PEM file of our certificate, where the brokers ask for one (mutual TLS)
	Key     string `koanf:"key"`  // PEM file of its key, not encrypted
}

// RegistryTLS is used where registry.url begins with https.
type RegistryTLS struct {
	CA   string `koanf:"ca"`
	Cert string `koanf:"cert"`
	Key  string `koanf:"key"`
}

// SASL says who we are to the brokers.
type SASL struct {
	Mechanism        string `koanf:"mechanism"` // empty: none
	Username         string `koanf:"username"`
	Password         Secret `koanf:"password"`
	PasswordFile     string `koanf:"password_file"`
	TokenURL         string `koanf:"token_url"` // of OAUTHBEARER: OAuth 2.0 client credentials (RFC 6749, 4.4)
	TokenCA          string `koanf:"token_ca"`  // PEM file of the authorities trusted with it; empty: the system's
	ClientID         string `koanf:"client_id"`
	ClientSecret     Secret `koanf:"client_secret"`
	ClientSecretFile string `koanf:"client_secret_file"`
	Scope            string `koanf:"scope"`
}

// SASL mechanisms.
const (
	Plain       = "PLAIN"
	Scram256    = "SCRAM-SHA-256"
	Scram512    = "SCRAM-SHA-512"
	OAuthBearer = "OAUTHBEARER"
)

// GetPassword reads the password as it is now.
func (s *SASL) GetPassword() (string, error) {
	return read("kafka.sasl.password", s.Password, s.PasswordFile)
}

// GetClientSecret reads the client secret as it is now.
func (s *SASL) GetClientSecret() (string, error) {
	return read("kafka.sasl.client_secret", s.ClientSecret, s.ClientSecretFile)
}

// GetPassword reads the password as it is now.
func (r *Registry) GetPassword() (string, error) {
	return read("registry.password", r.Password, r.PasswordFile)
}

// GetToken reads the bearer token as it is now.
func (r *Registry) GetToken() (string, error) {
	return read("registry.token", r.Token, r.TokenFile)
}

// read is a secret's value: of its file, as that is now, if it has one. Line ends at the file's end are not part of it.
func read(setting string, value Secret, file string) (string, error) {
	if file == "" {
		return string(value), nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", both(setting+"_file"), err)
	}
	b = bytes.TrimRight(b, "\r\n")
	if len(b) == 0 {
		return "", fmt.Errorf("%s: %s is empty", both(setting+"_file"), file)
	}
	return string(b), nil
}

// both is a setting under both of its names.
func both(setting string) string { return setting + " (" + EnvName(setting) + ")" }

// Config is the settings as Go's clients take them; the files are read now. Errors name the setting.
func (t *KafkaTLS) Config() (*tls.Config, error) {
	return tlsConfig("kafka.tls.", t.CA, t.Cert, t.Key)
}

// Config is the settings as Go's clients take them; the files are read now. Errors name the setting.
func (t *RegistryTLS) Config() (*tls.Config, error) {
	return tlsConfig("registry.tls.", t.CA, t.Cert, t.Key)
}

func tlsConfig(section, ca, cert, key string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	var err error
	if c.RootCAs, err = Authorities(section+"ca", ca); err != nil {
		return nil, err
	}
	if cert == "" && key == "" {
		return c, nil
	}
	if cert == "" || key == "" {
		return nil, fmt.Errorf("%s: a certificate and its key go together: %s must be given as well",
			both(section+cmp.Or(present(cert, "cert"), "key")), both(section+cmp.Or(present(key, "cert"), "key")))
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s: must be PEM files of a certificate and its key, not encrypted: %w", both(section+"cert"), err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}

func present(value, name string) string {
	if value == "" {
		return ""
	}
	return name
}

// Authorities reads the PEM file that a setting names; nil, the system's, if there is none.
func Authorities(setting, file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", both(setting), err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: %s must be a PEM file with at least one certificate", both(setting), file)
	}
	return pool, nil
}

// validateSecurity appends what is wrong with how connections are secured.
func (c *Config) validateSecurity(errs []error) []error {
	bad := func(setting, format string, a ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", both(setting), fmt.Sprintf(format, a...)))
	}
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if t := &c.Kafka.TLS; t.Enabled {
		_, err := t.Config()
		add(err)
	} else {
		for _, s := range []struct{ name, value string }{{"ca", t.CA}, {"cert", t.Cert}, {"key", t.Key}} {
			if s.value != "" {
				bad("kafka.tls."+s.name, "is of no use while %s is false: set that to true, or this to nothing", both("kafka.tls.enabled"))
			}
		}
	}
	c.Kafka.SASL.validate(bad, add)
	r := &c.Registry
	if u, err := url.Parse(r.URL); err == nil {
		if u.Scheme == "https" {
			_, err := r.TLS.Config()
			add(err)
		} else if r.TLS != (RegistryTLS{}) {
			bad("registry.tls", "is of no use for a registry.url that begins with %s://: that must be https://…", u.Scheme)
		}
		if u.User != nil && (r.Username != "" || r.hasToken()) {
			bad("registry.url", "has a user in it, and there is %s or %s, too: give one", both("registry.username"), both("registry.token"))
		}
	}
	add(c.Registry.secrets())
	if r.hasToken() && (r.Username != "" || r.hasPassword()) {
		bad("registry.token", "goes without %s and %s: one of the two ways", both("registry.username"), both("registry.password"))
	} else if (r.Username != "") != r.hasPassword() {
		bad("registry.username", "goes with %s or %s: both, or none of it", both("registry.password"), both("registry.password_file"))
	}
	return errs
}

func (r *Registry) hasToken() bool    { return r.Token != "" || r.TokenFile != "" }
func (r *Registry) hasPassword() bool { return r.Password != "" || r.PasswordFile != "" }

func (r *Registry) secrets() error {
	return errors.Join(check("registry.password", r.Password, r.PasswordFile), check("registry.token", r.Token, r.TokenFile))
}

// check finds a secret that is given twice, and a file that can't be read.
func check(setting string, value Secret, file string) error {
	if value != "" && file != "" {
		return fmt.Errorf("%s: given together with %s: give one of them", both(setting), both(setting+"_file"))
	}
	_, err := read(setting, value, file)
	return err
}

func (s *SASL) validate(bad func(setting, format string, a ...any), add func(error)) {
	add(check("kafka.sasl.password", s.Password, s.PasswordFile))
	add(check("kafka.sasl.client_secret", s.ClientSecret, s.ClientSecretFile))
	type field struct {
		name string
		has  bool
	}
	user := []field{{"username", s.Username != ""}, {"password", s.Password != "" || s.PasswordFile != ""}}
	token := []field{{"token_url", s.TokenURL != ""}, {"client_id", s.ClientID != ""}, {"client_secret", s.ClientSecret != "" || s.ClientSecretFile != ""}}
	more := []field{{"token_ca", s.TokenCA != ""}, {"scope", s.Scope != ""}}
	var need, no []field
	switch s.Mechanism {
	case "":
		no = slices.Concat(user, token, more)
	case Plain, Scram256, Scram512:
		need, no = user, slices.Concat(token, more)
	case OAuthBearer:
		need, no = token, user
		if u, err := url.Parse(s.TokenURL); s.TokenURL != "" && (err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil) {
			bad("kafka.sasl.token_url", "must be https://host/path, or http:// for a test, without a user in it")
		}
		_, err := Authorities("kafka.sasl.token_ca", s.TokenCA)
		add(err)
	default:
		bad("kafka.sasl.mechanism", "%q must be %s, or empty for none", s.Mechanism, strings.Join([]string{Plain, Scram256, Scram512, OAuthBearer}, ", "))
		return
	}
	for _, f := range need {
		if !f.has {
			bad("kafka.sasl."+f.name, "must be given for the mechanism %s", s.Mechanism)
		}
	}
	for _, f := range no {
		if f.has {
			bad("kafka.sasl."+f.name, "is of no use while %s is %q", both("kafka.sasl.mechanism"), s.Mechanism)
		}
	}
}
