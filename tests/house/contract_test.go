package house

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/teststack"
)

// What the outside relies on: scripts name commands, dashboards query tables, checks read topics. Add freely; change one only with a
// migration and a line in CHANGELOG.md.

// commands of the program, with their flags that scripts use.
var commands = map[string][]string{
	"demo": {"--json"}, "dev": {"--data", "--env-file"}, "setup": {"--print-acls", "--principal"}, "migrate": nil, "generate": {"--rate", "--count", "--seed"}, "run": nil,
	"audit": {"--settled", "--json"}, "offsets": nil, "offsets show": {"--json"}, "offsets restore": {"--partition", "--reason"},
	"offsets accept-loss": {"--partition", "--to", "--reason"}, "offsets reset": {"--partition", "--to", "--reason", "--by"}, "offsets hold": {"--partition", "--reason"}, "offsets release": {"--partition"},
	"ledger": nil, "ledger show": {"--partition", "--json"}, "ledger verify": {"--public-key", "--json"}, "ledger keygen": {"--out"},
	"schema": nil, "schema register": {"--keep-level", "--json"}, "schema check": {"--json"}, "schema show": {"--json"},
	"config print": {"--json", "--origin"}, "health": {"--ready", "--started"}, "chaos": {"--i-understand", "--kills", "--seed", "--out", "--json"},
	"doctor": {"--json", "--dev"}, "txn": nil, "txn list": {"--json", "--all"}, "txn abort": {"--json", "--yes", "--topic", "--partition"},
	"config check": {"--json"}, "version": {"--json"}, "man": {"--dir"},
	"console": nil, "console token": {"--name", "--role", "--json"}, "prune": {"--dry-run", "--json"}, "erase": {"--user", "--again", "--reason", "--dry-run", "--json"},
	"dlq": nil, "dlq list": {"--class", "--stage", "--partition", "--offset", "--since", "--until", "--state", "--limit", "--counts", "--pointers", "--json"},
	"dlq show": {"--class", "--state", "--limit", "--pointers"}, "dlq export": {"--class", "--state", "--limit", "--pointers"},
	"dlq replay": {"--all", "--class", "--dry-run", "--wait", "--reason", "--by", "--json"},
	"heal":       nil, "heal postgres": {"--partition", "--reason", "--dry-run", "--json"}, "heal kafka": {"--reason", "--dry-run", "--out-of-order", "--json"},
}

// tables and their columns.
var tables = map[string]string{
	"sources":           "source_id topic topic_id cluster_id group_id",
	"enriched_clicks":   `source_id source_partition source_offset user_id session_id "timestamp" url ip country geo_build`,
	"partition_offsets": "source_id source_partition next_offset epoch published_at_least ledger_seq ledger_head worker state updated_at",
	"workers":           "worker incarnation started_at",
	"offset_ledger": "source_id source_partition seq kind from_offset to_offset records rows dead_letters events digest prev_hash hash epoch worker " +
		"committed_at",
	"outbox":          `source_id source_partition source_offset seq topic partition "timestamp" key value headers created_at`,
	"dead_letters":    "source_id source_partition source_offset error_class error_stage error_message key value headers created_at replayed_at",
	"replays":         "source_id source_partition source_offset attempt letter_source_id letter_partition letter_offset replay who why requested_at",
	"replay_captures": "source_id source_partition source_offset of_source_id of_partition of_offset attempt captured_at",
	"click_counts":    "window_start country source_id source_partition clicks",
	"pruned":          "table_name time_partition source_id source_partition from_offset to_offset records published ledger_seq dropped_at who why",
	"erasures":        "source_id source_partition ledger_seq erasure offsets rows messages dead_letters who why erased_at",
}

var settings = []string{
	"EXACTLY_KAFKA_TLS_ENABLED", "EXACTLY_KAFKA_TLS_CA", "EXACTLY_KAFKA_TLS_CERT", "EXACTLY_KAFKA_TLS_KEY", "EXACTLY_KAFKA_SASL_MECHANISM", "EXACTLY_KAFKA_SASL_USERNAME",
	"EXACTLY_KAFKA_SASL_PASSWORD", "EXACTLY_KAFKA_SASL_PASSWORD_FILE", "EXACTLY_POSTGRES_DSN_FILE", "EXACTLY_POSTGRES_PASSWORD_FILE", "EXACTLY_REGISTRY_PASSWORD_FILE", "EXACTLY_REGISTRY_TOKEN_FILE",
	"EXACTLY_COUNTS_ENABLED", "EXACTLY_COUNTS_WINDOW", "EXACTLY_KAFKA_BROKERS", "EXACTLY_POSTGRES_DSN", "EXACTLY_REGISTRY_URL", "EXACTLY_GEO_DATABASE", "EXACTLY_GROUP", "EXACTLY_WORKER_ID", "EXACTLY_HTTP_ADDR",
}

func TestCommands(t *testing.T) {
	bin, err := teststack.Build(t.TempDir())
	require.NoError(t, err)
	help := func(command ...string) string {
		cmd := exec.Command(bin, append(command, "--help")...)
		cmd.Env = append(os.Environ(), "EXACTLY_KAFKA_BROKERS=wrong") // help needs no settings
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%v: %s", command, out)
		return string(out)
	}
	all := help()
	for command, flags := range commands {
		words := strings.Fields(command)
		require.Regexp(t, `(?m)^  `+words[0]+` `, all, "exactly --help does not list %s", words[0])
		text := help(words...)
		require.Contains(t, text, "exactly "+command, "the help is another command's")
		require.Contains(t, text, "Examples:", "%s: help without an example", command)
		for _, f := range append([]string{"--config", "--set"}, flags...) {
			require.Contains(t, text, f, "exactly %s --help", command)
		}
	}
}

func TestTables(t *testing.T) {
	var sql strings.Builder
	files, err := filepath.Glob(root + "/migrations/*.sql")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		sql.Write(b)
	}
	for table, columns := range tables {
		m := regexp.MustCompile(`(?s)CREATE TABLE ` + table + ` \((.*?)\n\)`).FindStringSubmatch(sql.String())
		require.NotNil(t, m, "no table %s", table)
		for _, c := range strings.Fields(columns) {
			require.Regexp(t, `(?m)^    `+regexp.QuoteMeta(c)+` `, m[1], "table %s: column %s", table, c)
		}
	}
	require.True(t, strings.Contains(sql.String(), "CREATE TRIGGER offset_ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON offset_ledger"))
}

func TestSettings(t *testing.T) {
	names := map[string]bool{}
	for _, n := range config.Names() {
		names[config.EnvName(n)] = true
	}
	for _, s := range settings {
		require.True(t, names[s], s)
	}
	d := config.Defaults()
	require.Equal(t, []string{"user_clicks", "enriched_clicks", "user_clicks_dlq"}, []string{d.Topics.Input, d.Topics.Output, d.Topics.DLQ})
	require.Equal(t, 12, d.Topics.Partitions)
	require.Equal(t, "127.0.0.1:8000", d.HTTP.Addr)
	require.Equal(t, "earliest", d.Start)
}

// configs/exactly.yaml is the defaults, all of them, each with a word about it.
func TestDefaultSettingsFile(t *testing.T) {
	path := root + "/configs/exactly.yaml"
	want, err := config.Load("", nil, nil)
	require.NoError(t, err)
	got, err := config.Load(path, nil, nil)
	require.NoError(t, err)
	require.Equal(t, want, got)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	said := map[string]bool{}
	section, sub := "", ""
	for _, line := range strings.Split(string(b), "\n") {
		if m := regexp.MustCompile(`^(?:# )?([a-z_]+):\s*(#.*)?$`).FindStringSubmatch(line); m != nil {
			section, sub = m[1]+".", ""
		} else if m := regexp.MustCompile(`^  ([a-z_]+):\s*(#.*)?$`).FindStringSubmatch(line); m != nil {
			sub = m[1] + "."
		} else if m := regexp.MustCompile(`^    ([a-z_]+): \S`).FindStringSubmatch(line); m != nil {
			said[section+sub+m[1]] = true
		} else if m := regexp.MustCompile(`^([a-z_]+): \S`).FindStringSubmatch(line); m != nil {
			said[m[1]] = true
		} else if m := regexp.MustCompile(`^(?:#)?   ?([a-z_]+): \S`).FindStringSubmatch(line); m != nil {
			said[section+m[1]] = true
		}
	}
	for _, n := range config.Names() {
		require.True(t, said[n], "configs/exactly.yaml does not name %s", n)
	}
	require.Len(t, said, len(config.Names()), "it names settings that do not exist")
}
