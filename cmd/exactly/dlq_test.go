package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Asked for no dead letter, it says how to ask for one, before it looks for any: with no store there.
func TestDLQShowWantsToKnowWhich(t *testing.T) {
	t.Setenv("EXACTLY_POSTGRES_DSN", "postgres://127.0.0.1:1/nobody")
	_, stderr, code := command(t, "", "dlq", "show")
	require.Equal(t, 2, code, stderr)
	require.Contains(t, stderr, "which ones?")
	require.Contains(t, stderr, "exactly dlq show --partition 3 --offset 1042")
	require.Regexp(t, `(?m)^ +--offset `, stderr)

	_, stderr, code = command(t, "", "dlq", "show", "user_clicks/7")
	require.Equal(t, 2, code, stderr)
	require.Contains(t, stderr, "must be TOPIC/PARTITION/OFFSET")

	_, stderr, code = command(t, "", "dlq", "show", "user_clicks/3/7")
	require.Equal(t, 1, code, stderr)
	require.Contains(t, stderr, "postgres")

	_, stderr, code = command(t, "", "dlq", "show", "--offset", "7")
	require.Equal(t, 1, code, stderr)
	require.Contains(t, stderr, "postgres")
}
