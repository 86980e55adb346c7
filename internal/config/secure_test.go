package config

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

func fileWith(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func load(settings ...string) (Config, error) {
	m := map[string]string{}
	for _, s := range settings {
		k, v, _ := strings.Cut(s, "=")
		m[k] = v
	}
	return Load("", nil, m)
}

// What is wrong is said under both names of the setting, with what it may be.
func TestWrongSecurity(t *testing.T) {
	empty, garbage := fileWith(t, "\n"), fileWith(t, "no certificate")
	for _, c := range []struct{ settings, says string }{
		{"kafka.sasl.mechanism=GSSAPI", "kafka.sasl.mechanism (EXACTLY_KAFKA_SASL_MECHANISM): \"GSSAPI\" must be PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, or empty"},
		{"kafka.sasl.mechanism=SCRAM-SHA-512", "kafka.sasl.username (EXACTLY_KAFKA_SASL_USERNAME): must be given for the mechanism SCRAM-SHA-512"},
		{"kafka.sasl.mechanism=PLAIN kafka.sasl.username=u", "kafka.sasl.password (EXACTLY_KAFKA_SASL_PASSWORD): must be given"},
		{"kafka.sasl.username=u kafka.sasl.password=p", `kafka.sasl.password (EXACTLY_KAFKA_SASL_PASSWORD): is of no use while kafka.sasl.mechanism (EXACTLY_KAFKA_SASL_MECHANISM) is ""`},
		{"kafka.sasl.mechanism=OAUTHBEARER kafka.sasl.client_id=c kafka.sasl.client_secret=s", "kafka.sasl.token_url (EXACTLY_KAFKA_SASL_TOKEN_URL): must be given"},
		{"kafka.sasl.mechanism=OAUTHBEARER kafka.sasl.token_url=ftp://x", "kafka.sasl.token_url (EXACTLY_KAFKA_SASL_TOKEN_URL): must be https://host/path"},
		{"kafka.sasl.mechanism=PLAIN kafka.sasl.username=u kafka.sasl.password=p kafka.sasl.scope=x", "kafka.sasl.scope (EXACTLY_KAFKA_SASL_SCOPE): is of no use"},
		{"kafka.sasl.mechanism=PLAIN kafka.sasl.username=u kafka.sasl.password_file=/none", "kafka.sasl.password_file (EXACTLY_KAFKA_SASL_PASSWORD_FILE): open /none: no such file"},
		{"kafka.sasl.mechanism=PLAIN kafka.sasl.username=u kafka.sasl.password_file=" + empty, "kafka.sasl.password_file (EXACTLY_KAFKA_SASL_PASSWORD_FILE): " + empty + " is empty"},
		{"kafka.sasl.mechanism=PLAIN kafka.sasl.username=u kafka.sasl.password=p kafka.sasl.password_file=/none", "kafka.sasl.password (EXACTLY_KAFKA_SASL_PASSWORD): given together with kafka.sasl.password_file (EXACTLY_KAFKA_SASL_PASSWORD_FILE): give one"},
		{"kafka.tls.ca=/none", "kafka.tls.ca (EXACTLY_KAFKA_TLS_CA): is of no use while kafka.tls.enabled (EXACTLY_KAFKA_TLS_ENABLED) is false"},
		{"kafka.tls.enabled=true kafka.tls.ca=/none", "kafka.tls.ca (EXACTLY_KAFKA_TLS_CA): open /none: no such file"},
		{"kafka.tls.enabled=true kafka.tls.ca=" + garbage, "kafka.tls.ca (EXACTLY_KAFKA_TLS_CA): " + garbage + " must be a PEM file"},
		{"kafka.tls.enabled=true kafka.tls.cert=/none", "kafka.tls.cert (EXACTLY_KAFKA_TLS_CERT): a certificate and its key go together: kafka.tls.key (EXACTLY_KAFKA_TLS_KEY) must be given"},
		{"kafka.tls.enabled=true kafka.tls.key=/none", "kafka.tls.key (EXACTLY_KAFKA_TLS_KEY): a certificate and its key go together: kafka.tls.cert (EXACTLY_KAFKA_TLS_CERT) must be given"},
		{"kafka.tls.enabled=true kafka.tls.key=/none kafka.tls.cert=/none", "kafka.tls.cert (EXACTLY_KAFKA_TLS_CERT): must be PEM files"},
		{"registry.tls.ca=/none", "registry.tls (EXACTLY_REGISTRY_TLS): is of no use for a registry.url that begins with http://"},
		{"registry.url=https://h registry.tls.ca=/none", "registry.tls.ca (EXACTLY_REGISTRY_TLS_CA): open /none"},
		{"registry.username=u", "registry.username (EXACTLY_REGISTRY_USERNAME): goes with registry.password"},
		{"registry.username=u registry.password=p registry.token=t", "registry.token (EXACTLY_REGISTRY_TOKEN): goes without"},
		{"registry.url=http://u:p@h registry.token=t", "registry.url (EXACTLY_REGISTRY_URL): has a user in it"},
		{"registry.token=t registry.token_file=/none", "registry.token (EXACTLY_REGISTRY_TOKEN): given together with registry.token_file"},
		{"postgres.dsn=postgres://h/d postgres.dsn_file=/none", "postgres.dsn (EXACTLY_POSTGRES_DSN): given together with postgres.dsn_file (EXACTLY_POSTGRES_DSN_FILE)"},
		{"postgres.dsn=postgres://u:p@h/d postgres.password=p", "postgres.password (EXACTLY_POSTGRES_PASSWORD): given, and so is a password in postgres.dsn"},
		{"postgres.password=p postgres.password_file=/none", "postgres.password (EXACTLY_POSTGRES_PASSWORD): given together with postgres.password_file"},
		{"postgres.dsn=postgres://h/d?sslmode=verify-full&sslrootcert=/none", "postgres.dsn (EXACTLY_POSTGRES_DSN): must be"},
	} {
		_, err := load(strings.Fields(c.settings)...)
		require.ErrorContains(t, err, c.says, c.settings)
	}
}

// A secret is the same whether it is given or in a file, and is read again from the file.
func TestSecretFiles(t *testing.T) {
	path := fileWith(t, "first\r\n")
	c, err := load("kafka.sasl.mechanism=SCRAM-SHA-512", "kafka.sasl.username=u", "kafka.sasl.password_file="+path, "registry.token_file="+path, "postgres.dsn=postgres://u@h/d",
		"postgres.password_file="+path)
	require.NoError(t, err)
	get := func() []string {
		k, err := c.Kafka.SASL.GetPassword()
		require.NoError(t, err)
		r, err := c.Registry.GetToken()
		require.NoError(t, err)
		dsn, err := c.Postgres.CurrentDSN()
		require.NoError(t, err)
		return []string{k, r, dsn}
	}
	require.Equal(t, []string{"first", "first", "postgres://u:first@h/d"}, get())
	require.Equal(t, "postgres://u:first@h/d", c.Postgres.DSN, "once loaded it is complete")
	require.NoError(t, os.WriteFile(path, []byte(" se:c@/n'd%\n\n"), 0o600))
	require.Equal(t, []string{" se:c@/n'd%", " se:c@/n'd%", "postgres://u:%20se%3Ac%40%2Fn%27d%25@h/d"}, get())

	whole := fileWith(t, "host=h user=u password=first\n")
	c, err = load("postgres.dsn_file=" + whole)
	require.NoError(t, err)
	require.Equal(t, "host=h user=u password=first", c.Postgres.DSN)
	require.NoError(t, os.WriteFile(whole, []byte("host=h2 user=u password=second"), 0o600))
	dsn, err := c.Postgres.CurrentDSN()
	require.NoError(t, err)
	require.Equal(t, "host=h2 user=u password=second", dsn)
}

// Whatever is in a password, Postgres is given just that, however the DSN is written, and however often it is put in.
func TestPasswordInDSN(t *testing.T) {
	for _, dsn := range []string{
		"postgres://u@h:1/d?sslmode=disable", "postgres://h:1/d?user=u&password=old", "postgres://u:old@h:1/d", "host=h port=1 user=u dbname=d",
		"password='old\\' one' host=h port=1 user=u dbname=d sslpassword=other", "host=h port=1 PASSWORD = old user=u dbname=d",
	} {
		for _, password := range []string{"simple", `q'u"o\te`, " sp ace ", "ü%20&?#/:@", "$1${1}"} {
			full := withPassword(withPassword(dsn, "x y"), password)
			c, err := pgconn.ParseConfig(full)
			require.NoError(t, err, dsn)
			require.Equal(t, []string{"u", password, "h", "d"}, []string{c.User, c.Password, c.Host, c.Database}, "%s in %s", password, dsn)
			require.NotContains(t, RedactDSN(full), password)
		}
	}
}

const secret = "hunter2-hunter2"

// Nothing that formats settings prints a secret, and no error does.
func TestNoSecretIsFormatted(t *testing.T) {
	c, err := load("kafka.sasl.mechanism=PLAIN", "kafka.sasl.username=u", "kafka.sasl.password="+secret, "registry.token="+secret, "postgres.password="+secret)
	require.NoError(t, err)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		text := fmt.Sprintf(verb, c.Kafka) + fmt.Sprintf(verb, c.Registry) + fmt.Sprintf(verb, &c.Registry) + fmt.Sprintf(verb, c.Redacted())
		require.NotContains(t, text, secret, verb)
		require.Contains(t, text, redacted, verb)
	}
	b, err := json.Marshal([]any{c.Redacted(), c.Kafka, c.Registry})
	require.NoError(t, err)
	require.NotContains(t, string(b), secret)
	require.Equal(t, "", fmt.Sprint(Secret("")), "what is not set is seen not to be")

	for _, dsn := range []string{
		"u:" + secret + "@h/d", "postgres://u:" + secret + "@h:port/d", "postgres://u:x/" + secret + "@h/d", "host=h password='" + secret, "host=h password=x\\ " + secret + " sslmode=bad",
		"postgres://u:" + secret + "@h/d?sslmode=bad", "postgres://h/d?password=" + secret + "&sslmode=bad", "host='h password=" + secret,
	} {
		if _, err := load("postgres.dsn=" + dsn); err != nil {
			require.NotContains(t, err.Error(), secret, dsn)
			require.Contains(t, err.Error(), "postgres.dsn", dsn)
		}
	}
	_, err = Load(write(t, "kafka:\n  sasl:\n    password: ["+secret+"]\n"), nil, nil)
	require.Error(t, err)
	require.NotContains(t, err.Error(), secret)
}
