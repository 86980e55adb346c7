package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func write(t *testing.T, yaml string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "exactly.yaml")
	require.NoError(t, os.WriteFile(path, []byte(yaml), 0o600))
	return path
}

// Defaults, then the file, then the environment, then flags.
func TestPrecedence(t *testing.T) {
	file := write(t, "group: file\nkafka:\n  session_timeout: 20s\n  brokers: file:1\nbatch:\n  max_records: 7\n")
	c, err := Load("", nil, nil)
	require.NoError(t, err)
	require.Equal(t, "exactly", c.Group)
	c, err = Load(file, nil, nil)
	require.NoError(t, err)
	require.Equal(t, []any{"file", "file:1", 20 * time.Second, 7}, []any{c.Group, c.Kafka.Brokers, c.Kafka.SessionTimeout, c.Batch.MaxRecords})
	env := []string{"EXACTLY_GROUP=env", "EXACTLY_KAFKA_BROKERS=env:1,env:2", "EXACTLY_LEAVE_ON_STOP=false", "PATH=/"}
	c, err = Load(file, env, map[string]string{"group": "flag"})
	require.NoError(t, err)
	require.Equal(t, []any{"flag", "env:1,env:2", false, 7}, []any{c.Group, c.Kafka.Brokers, c.LeaveOnStop, c.Batch.MaxRecords})
}

// What is 0 is derived from the session timeout.
func TestDerived(t *testing.T) {
	c, err := Load("", []string{"EXACTLY_KAFKA_SESSION_TIMEOUT=6s"}, nil)
	require.NoError(t, err)
	require.Equal(t, 6*time.Second, c.Kafka.TransactionTimeout)
	require.Equal(t, 2*time.Second, c.Kafka.HeartbeatInterval)
	require.Equal(t, 3*time.Second, c.Postgres.IdleTimeout)
}

// Each wrong setting is named, by both of its names, and several at once.
func TestWrongSettings(t *testing.T) {
	wrong := map[string]string{
		"group": "a b", "worker.id": "", "topics.input": "a/b", "topics.output": "ü", "topics.dlq": strings.Repeat("x", 201), "start": "yesterday",
		"kafka.brokers": "localhost", "kafka.session_timeout": "31m", "kafka.transaction_timeout": "1h", "kafka.heartbeat_interval": "9s",
		"kafka.stable_timeout": "1ms", "kafka.fetch_max_bytes": "1", "postgres.dsn": "mysql://x", "postgres.lock_timeout": "1ms",
		"postgres.idle_timeout": "1h", "registry.url": "ftp://x", "topics.partitions": "0", "topics.replication": "-1",
		"batch.max_records": "0", "batch.max_bytes": "1", "batch.max_in_flight": "1", "batch.drain_records": "0", "http.addr": "8000",
		"stop_timeout": "1ms", "retention.outbox": "23h", "privacy.ip": "drop", "retention.rows": "1s", "retention.dead_letters": "-1h", "log.level": "loud", "log.format": "xml",
		"debug.addr": "0.0.0.0:6060", "health.stuck_after": "1ms", "log.burst": "-1",
		"ledger.heads_topic": "a b", "kubernetes.stateful_set": "another", "dead_letters.max_share": "1.5", "dead_letters.free": "-1", "counts.window": "7m", "dead_letters.quarantine_after": "-1",
		"console.addr": "0.0.0.0",
	}
	for setting, value := range wrong {
		_, err := Load("", nil, map[string]string{setting: value})
		require.Error(t, err, "%s = %q", setting, value)
		require.Contains(t, err.Error(), setting+" ("+EnvName(setting)+")", "%s = %q", setting, value)
		require.Equal(t, 1, strings.Count(err.Error(), "EXACTLY_"), "one is wrong: %v", err)
	}
	_, err := Load("", nil, map[string]string{"privacy.ip": "hash"})
	require.ErrorContains(t, err, "privacy.ip_key_file (EXACTLY_PRIVACY_IP_KEY_FILE)")
	_, err = Load("", nil, map[string]string{"group": "", "log.level": "loud"})
	require.ErrorContains(t, err, "group (EXACTLY_GROUP)")
	require.ErrorContains(t, err, "log.level (EXACTLY_LOG_LEVEL)")
	for setting, value := range map[string]string{"kafka.session_timeout": "soon", "batch.max_records": "many", "leave_on_stop": "perhaps"} {
		_, err := Load("", nil, map[string]string{setting: value})
		require.ErrorContains(t, err, setting[strings.LastIndex(setting, ".")+1:])
	}
}

func TestWrongFile(t *testing.T) {
	_, err := Load(write(t, "kafka:\n  session_timeuot: 1s\n"), nil, nil)
	require.ErrorContains(t, err, `unknown setting "kafka.session_timeuot"`)
	_, err = Load(write(t, "kafka: ["), nil, nil)
	require.ErrorContains(t, err, "read settings file")
	_, err = Load(filepath.Join(t.TempDir(), "none.yaml"), nil, nil)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestUnknownEnv(t *testing.T) {
	got := UnknownEnv([]string{"EXACTLY_GRUOP=x", "EXACTLY_GROUP=x", "EXACTLY_FAILPOINT_DIR=/", "EXACTLY_FAILPOINT=a", "HOME=/", "EXACTLY_B=1"})
	require.Equal(t, []string{"EXACTLY_B", "EXACTLY_GRUOP"}, got)
}

func TestEnvNamesAreUnique(t *testing.T) {
	seen := map[string]string{}
	for _, n := range Names() {
		require.Empty(t, seen[EnvName(n)], n)
		seen[EnvName(n)] = n
	}
}

// No way to write a password into a DSN lets it be printed.
func TestNoSecretIsPrinted(t *testing.T) {
	for _, dsn := range []string{
		"postgres://u:hunter2@h:5432/d", "postgresql://u:hunter2@h/d?sslmode=disable", "host=h password=hunter2 user=u", "host=h PASSWORD = 'hunter2' user=u",
		"password='hun\\'ter2 hunter2' host=h", "postgres://h/d?password=hunter2", "postgres://u@h/d?sslmode=disable&password=hunter2&application_name=x",
		"postgres://h/d?sslpassword=hunter2", "sslpassword=hunter2 host=h", "postgres://u:hun%zzter2hunter2@h/d",
	} {
		t.Run(strings.ReplaceAll(dsn, "/", "|"), func(t *testing.T) {
			require.NotContains(t, RedactDSN(dsn), "ter2")
			c := Defaults()
			c.Postgres.DSN, c.Registry.URL = dsn, "https://u:hunter2@h"
			require.NotContains(t, fmt.Sprint(c.Redacted()), "ter2")
			c.Group = ""
			require.NotContains(t, fmt.Sprint(c.Validate()), "ter2")
		})
	}
	require.Contains(t, RedactDSN("postgres://u:hunter2@h:5432/d"), "u:xxxxx@h:5432/d")
}
