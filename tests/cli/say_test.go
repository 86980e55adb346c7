package cli

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVersion(t *testing.T) {
	s := plain(t)
	s.env["EXACTLY_KAFKA_BROKERS"] = "wrong" // it asks nobody
	var v struct {
		Version, Go, Platform, Librdkafka string
		Migration                         int64
		Modified, Failpoints              *bool
	}
	require.NoError(t, json.Unmarshal([]byte(s.ok("version", "--json")), &v))
	require.Equal(t, []any{"dev", runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}, []any{v.Version, v.Go, v.Platform})
	require.Regexp(t, `^\d+\.\d+\.\d+`, v.Librdkafka)
	newest, err := filepath.Glob("../../migrations/*.sql")
	require.NoError(t, err)
	require.Regexp(t, regexp.MustCompile(`^0*`+jsonNumber(v.Migration)+`_`), filepath.Base(newest[len(newest)-1]))
	require.NotNil(t, v.Modified)
	require.False(t, *v.Failpoints)
	require.Contains(t, s.ok("version"), "migration  "+jsonNumber(v.Migration))
	require.Contains(t, s.ok("--version"), "dev")
}

func jsonNumber(n int64) string {
	b, _ := json.Marshal(n) //nolint:errcheck // a number
	return string(b)
}

func (s *shell) file(name, content string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	require.NoError(s.t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestConfigCheck(t *testing.T) {
	s := plain(t)
	require.Regexp(t, `^\d+ settings, 1 of them given: nothing is wrong with them\n$`, s.ok("config", "check"))

	s.env["EXACTLY_GRUOP"] = "x"
	out, _, code := s.run("config", "check")
	require.Equal(t, 3, code)
	require.Contains(t, out, "EXACTLY_GRUOP is no setting")
	out, _, code = s.run("config", "check", "--json")
	require.Equal(t, 3, code)
	var r struct {
		Settings, Given int
		Unknown         []string `json:"unknown_variables"`
	}
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	require.Equal(t, []string{"EXACTLY_GRUOP"}, r.Unknown)
	require.Equal(t, 1, r.Given)
	delete(s.env, "EXACTLY_GRUOP")

	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"unknown in the file": {[]string{"--config", s.file("a.yaml", "kafka:\n  broker: x\n")}, `unknown setting "kafka.broker"`},
		"no such file":        {[]string{"--config", "/nowhere.yaml"}, "/nowhere.yaml"},
		"wrong":               {[]string{"--set", "kafka.session_timeout=1h"}, "kafka.session_timeout (EXACTLY_KAFKA_SESSION_TIMEOUT): 1h0m0s must be from 1s to 30m"},
		"wrong type":          {[]string{"--set", "batch.max_records=many"}, "max_records"},
		"geo database":        {[]string{"--set", "geo.database=/nowhere.mmdb"}, "geo.database (EXACTLY_GEO_DATABASE)"},
		"signing key":         {[]string{"--set", "ledger.signing_key_file=/nowhere.key"}, "ledger.signing_key_file (EXACTLY_LEDGER_SIGNING_KEY_FILE)"},
		"key of hashes":       {[]string{"--set", "privacy.ip=hash", "--set", "privacy.ip_key_file=" + s.file("key", "short")}, "privacy.ip_key_file (EXACTLY_PRIVACY_IP_KEY_FILE)"},
		"secret's file":       {[]string{"--set", "postgres.password_file=/nowhere"}, "postgres.password_file"},
	} {
		_, errs, code := s.run(append([]string{"config", "check"}, c.args...)...)
		require.Equal(t, 2, code, "%s: %s", name, errs)
		require.Contains(t, errs, c.says, name)
	}
}

func TestConfigOrigin(t *testing.T) {
	s := plain(t)
	file := s.file("exactly.yaml", "group: of-the-file\nkafka:\n  session_timeout: 20s\npostgres:\n  dsn: postgres://u:hunter2@h/d\n")
	s.env["EXACTLY_KAFKA_SESSION_TIMEOUT"] = "6s"
	args := []string{"config", "print", "--origin", "--config", file, "--set", "worker.id=w"}
	out := s.ok(args...)
	require.NotContains(t, out, "hunter2")
	for setting, want := range map[string]string{
		"group": "file " + file + " +of-the-file", "kafka.session_timeout": "EXACTLY_KAFKA_SESSION_TIMEOUT +6s", "worker.id": "--set +w", "log.level": "default +info",
		"kafka.transaction_timeout": "default +6s", "postgres.dsn": "file " + file + " +postgres://u:xxxxx@h/d", "http.addr": "EXACTLY_HTTP_ADDR +",
	} {
		require.Regexp(t, `(?m)^`+regexp.QuoteMeta(setting)+` +EXACTLY_\S+ +`+want+`$`, out)
	}
	var of map[string]struct {
		Value  any
		Origin string
	}
	require.NoError(t, json.Unmarshal([]byte(s.ok(append(args, "--json")...)), &of))
	require.Equal(t, "file "+file, of["group"].Origin)
	require.Equal(t, "of-the-file", of["group"].Value)
	require.NotContains(t, s.ok("config", "print"), "default ", "only where it was asked for")
}

func TestCompletion(t *testing.T) {
	s := plain(t)
	for _, sh := range []string{"bash", "zsh", "fish", "powershell"} {
		require.Contains(t, s.ok("completion", sh), "exactly", sh)
	}
	if bash, err := exec.LookPath("bash"); err == nil {
		out, err := exec.Command(bash, "-n", s.file("completion", s.ok("completion", "bash"))).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	s.env["EXACTLY_KAFKA_BROKERS"] = "wrong" // a Tab asks nobody
	for typed, want := range map[string]string{
		"offsets re":              "restore\tSet a group",
		"run --set kafka.session": "kafka.session_timeout=",
		"setup --print-acls=w":    "worker",
		"dev --stack k":           "kafka",
		"dlq list --state r":      "replayed",
		"man offsets ":            "accept-loss\t",
		"completion b":            "bash",
	} {
		words := strings.Split(typed, " ")
		require.Contains(t, s.ok(append([]string{"__complete"}, words...)...), want, typed)
	}
}

// A page for each command there is, with what people look for, the same each time.
func TestManual(t *testing.T) {
	s := plain(t)
	one, two := filepath.Join(s.dir, "one"), filepath.Join(s.dir, "two")
	require.Regexp(t, `^\d+ pages in `, s.ok("man", "--dir", one))
	s.ok("man", "--dir", two)
	for _, command := range commands(t, s) {
		page := strings.ReplaceAll("exactly "+command, " ", "-") + ".1"
		text, err := os.ReadFile(filepath.Join(one, page))
		require.NoError(t, err, "exactly %s has no page", command)
		again, err := os.ReadFile(filepath.Join(two, page))
		require.NoError(t, err)
		require.Equal(t, string(text), string(again), page)
		for _, section := range []string{"NAME", "SYNOPSIS", "OPTIONS", "SEE ALSO"} {
			require.Contains(t, string(text), ".SH "+section, page)
		}
		if !strings.HasPrefix(command, "completion") {
			require.Contains(t, string(text), ".SH EXAMPLE", page)
		}
		require.Equal(t, string(text), s.ok(append([]string{"man"}, strings.Fields(command)...)...))
	}
	_, errs, code := s.run("man", "offsets", "nothing")
	require.Equal(t, 2, code)
	require.Contains(t, errs, `there is no command "exactly offsets nothing"`)
}

// commands are all there are, as their help lists them.
func commands(t *testing.T, s *shell) []string {
	t.Helper()
	var all []string
	var below func(at []string)
	below = func(at []string) {
		help := s.ok(append(at, "--help")...)
		_, listed, has := strings.Cut(help, "\nAvailable Commands:\n")
		if !has {
			return
		}
		listed, _, _ = strings.Cut(listed, "\n\n")
		for _, line := range strings.Split(listed, "\n") {
			name := strings.Fields(line)[0]
			if name == "help" {
				continue
			}
			words := append(append([]string{}, at...), name)
			all = append(all, strings.Join(words, " "))
			below(words)
		}
	}
	below(nil)
	require.Greater(t, len(all), 30)
	return all
}
