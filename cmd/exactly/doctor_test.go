package main

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/stack"
)

// The exit codes of doctor: 3 found, 0 clean, 1 could not look.
func TestDoctor(t *testing.T) {
	s, err := stack.Start(t.Context(), stack.Options{Dir: filepath.Join(t.TempDir(), "stack"), NoSyncKafka: true, NoSyncPostgres: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	for k, v := range s.Env() {
		t.Setenv(k, v)
	}
	stdout, stderr, code := command(t, "", "doctor", "--dev")
	require.Equal(t, 3, code, stderr)
	require.Contains(t, stdout, "error: topic-missing")
	require.Contains(t, stdout, "  run    exactly setup")

	_, stderr, code = command(t, "", "setup")
	require.Zero(t, code, stderr)
	stdout, stderr, code = command(t, "", "doctor", "--dev")
	require.Zero(t, code, "%s%s", stdout, stderr)
	require.Contains(t, stdout, "accepted: broker-count: the cluster has 1")
	require.Regexp(t, `\d+ rules: 0 findings, \d+ accepted, \d+ not checked or only in part\n$`, stdout)
	stdout, _, code = command(t, "", "doctor", "--json")
	require.Equal(t, 3, code)
	var r struct {
		Verdict  string `json:"verdict"`
		Findings []struct {
			Rule, Severity, Found, Why, Run string
		} `json:"findings"`
	}
	require.NoError(t, json.Unmarshal([]byte(stdout), &r), stdout)
	require.Equal(t, "found", r.Verdict)
	require.NotEmpty(t, r.Findings)
	for _, f := range r.Findings {
		require.Equal(t, "development", f.Severity, "%+v", f)
	}

	t.Setenv("EXACTLY_REGISTRY_URL", "http://127.0.0.1:1")
	stdout, stderr, code = command(t, "", "doctor", "--dev")
	require.Equal(t, 1, code, stdout)
	require.Contains(t, stderr, "schema registry could not be looked at")
	_, _, code = command(t, "", "doctor", "--set", "kafka.session_timeout=1")
	require.Equal(t, 2, code)
}
