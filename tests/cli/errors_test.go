package cli

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What goes wrong says what to look at, or what to run.
func TestErrorsSayWhatToDo(t *testing.T) {
	nowhere := plain(t)
	for k, v := range map[string]string{"EXACTLY_KAFKA_BROKERS": "127.0.0.1:1", "EXACTLY_REGISTRY_URL": "http://127.0.0.1:1", "EXACTLY_POSTGRES_DSN": "postgres://u:hunter2@127.0.0.1:1/d"} {
		nowhere.env[k] = v
	}
	fresh := onStack(t)
	ready := onStack(t)
	ready.ok("setup")
	for _, c := range []struct {
		in   *shell
		args []string
		code int
		says []string
	}{
		{nowhere, []string{"offsets", "shwo"}, 2, []string{"did you mean exactly offsets show?"}},
		{nowhere, []string{"nonsense"}, 2, []string{"exactly --help lists all"}},
		{nowhere, []string{"audit", "--setled"}, 2, []string{"unknown flag: --setled", "exactly audit --help"}},
		{nowhere, []string{"audit", "now"}, 2, []string{"exactly audit --help"}},
		{nowhere, []string{"run", "--set", "kafka.broker=x"}, 2, []string{"known are", "kafka.brokers"}},
		{nowhere, []string{"migrate"}, 1, []string{"Postgres does not answer", "postgres.dsn (EXACTLY_POSTGRES_DSN)", "exactly doctor"}},
		{nowhere, []string{"setup", "--dry-run"}, 1, []string{"Postgres does not answer"}},
		{nowhere, []string{"txn", "list"}, 1, []string{"Kafka does not answer", "kafka.brokers (EXACTLY_KAFKA_BROKERS)"}},
		{nowhere, []string{"audit"}, 1, []string{"Kafka does not answer"}},
		{nowhere, []string{"schema", "check"}, 1, []string{"the schema registry does not answer", "registry.url (EXACTLY_REGISTRY_URL)"}},
		{nowhere, []string{"health", "--set", "http.addr=127.0.0.1:1"}, 1, []string{"http.addr 127.0.0.1:1 (EXACTLY_HTTP_ADDR)", "does a worker run here"}},
		{nowhere, []string{"offsets", "hold", "--partition", "0"}, 2, []string{"--reason"}},
		{nowhere, []string{"ledger", "archive", "--out", "/nowhere", "--reason", "x"}, 2, []string{"must be a folder that is there"}},
		{fresh, []string{"run"}, 1, []string{"run `exactly migrate`"}},
		{fresh, []string{"offsets", "show"}, 1, []string{"run `exactly migrate`"}},
		{ready, []string{"run", "--set", "group=another"}, 1, []string{"run `exactly setup`"}},
		{ready, []string{"offsets", "release", "--partition", "77"}, 1, []string{"partition 77"}},
		{ready, []string{"dlq", "replay"}, 2, []string{"--all, or which ones"}},
		{ready, []string{"dlq", "show"}, 2, []string{"which ones?", "exactly dlq list"}},
	} {
		out, errs, code := c.in.run(c.args...)
		require.Equal(t, c.code, code, "exactly %v: %s%s", c.args, out, errs)
		for _, s := range c.says {
			require.Contains(t, errs, s, "exactly %v", c.args)
		}
		require.NotContains(t, errs, "hunter2", "exactly %v", c.args)
		require.NotContains(t, errs, "goroutine", "exactly %v", c.args)
	}
}
