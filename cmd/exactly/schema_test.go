package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/exactly-pipeline/exactly/schema"
)

// What schema register, check and show say and exit with: of a registry with nothing, with ours, and with a version that does not fit.
func TestSchemaCommands(t *testing.T) {
	fake := srfake.New()
	t.Cleanup(fake.Close)
	t.Setenv("EXACTLY_REGISTRY_URL", fake.URL())
	run := func(want int, args ...string) string {
		t.Helper()
		stdout, stderr, code := command(t, "", append([]string{"schema"}, args...)...)
		require.Equal(t, want, code, "%s%s", stdout, stderr)
		return stdout + stderr
	}
	require.Contains(t, run(0, "check"), "user_clicks-value: fits all of its versions (0)")
	require.Contains(t, run(0, "show"), "nothing is registered")

	out := run(0, "register")
	require.Contains(t, out, "user_clicks-value")
	require.Contains(t, out, "enriched_clicks-value")
	require.Contains(t, run(0, "register"), "nothing to change")
	var did struct{ Changed []string }
	require.NoError(t, json.Unmarshal([]byte(run(0, "register", "--json")), &did))
	require.Equal(t, []string{}, did.Changed)
	require.Contains(t, run(0, "check"), "user_clicks-value: fits all of its versions (1)")
	require.Regexp(t, `user_clicks-value +FULL_TRANSITIVE +1 +\d+ +yes`, run(0, "show"))

	// A version that somebody registered when the level did not forbid it: what is in it, one can read, but not all that may be.
	nullable := strings.Replace(schema.ClickAvsc, `"type": "long", "doc"`, `"type": ["null", "long"], "doc"`, 1)
	require.NotEqual(t, schema.ClickAvsc, nullable)
	fake.SeedSchema("user_clicks-value", 2, 70, sr.Schema{Schema: nullable, Type: sr.TypeAvro})
	require.Contains(t, run(3, "check"), "user_clicks-value: version 2: what is written with it can't be read as ours")
	require.Contains(t, run(3, "check", "--json"), `"unreadable"`)
	require.Contains(t, run(0, "show"), "can't be read")
	require.Contains(t, run(0, "show", "70"), "clicks written with it can be read")
	fake.SeedSchema("else", 1, 71, sr.Schema{Schema: `"string"`, Type: sr.TypeAvro})
	require.Contains(t, run(0, "show", "71"), "clicks written with it can't be read: ")

	run(2, "show", "seven")
	run(1, "show", "404")
	fake.Intercept(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(http.StatusForbidden); return true })
	run(1, "check")
	run(1, "show")
	run(1, "register")
}
