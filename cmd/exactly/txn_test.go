package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

// command runs the program's command line in this process, as people type it, and returns its exit code.
func command(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&errs)
	err := root.ExecuteContext(t.Context())
	var ee *exitError
	switch {
	case errors.As(err, &ee):
		code = ee.code
	case err != nil:
		code = 1
	}
	if err != nil {
		errs.WriteString(err.Error())
	}
	return out.String(), errs.String(), code
}

// Listing, asking, refusing and aborting, as the command line does it.
func TestTxn(t *testing.T) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "user_clicks", "enriched_clicks", "user_clicks_dlq"))
	require.NoError(t, err)
	t.Cleanup(k.Close)
	t.Setenv("EXACTLY_KAFKA_BROKERS", k.ListenAddrs()[0])
	t.Setenv("EXACTLY_GROUP", "g")

	out, _, code := command(t, "", "txn", "list")
	require.Zero(t, code)
	require.Contains(t, out, "no open transactions")

	cl, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...), kgo.TransactionalID("g-w"), kgo.DefaultProduceTopic("enriched_clicks"), kgo.MaxVersions(kversion.V3_7_0()))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	require.NoError(t, cl.BeginTransaction())
	require.NoError(t, cl.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr())
	out, _, code = command(t, "", "txn", "list")
	require.Zero(t, code)
	require.Regexp(t, `(?m)^g-w +Ongoing .* enriched_clicks/0 +0 +0 +1 +1\*$`, out)
	out, _, code = command(t, "", "txn", "list", "--json", "--older-than", "1h")
	require.Zero(t, code)
	require.JSONEq(t, `{"group": "g", "all": false, "transactions": []}`, out)

	for _, wrong := range [][]string{{}, {"g-w", "--topic", "t", "--partition", "0"}, {"--topic", "t"}, {"g-w", "--partition", "0"}, {"--partition", "0"}, {"g-w", "--producer", "1"}, {"a", "b"}} {
		_, stderr, code := command(t, "y\n", append([]string{"txn", "abort"}, wrong...)...)
		require.Equal(t, 2, code, "%v: %s", wrong, stderr)
	}
	_, stderr, code := command(t, "y\n", "txn", "abort", "nobody")
	require.Equal(t, 1, code, stderr)
	for _, no := range []string{"", "n\n", "\n", "yesterday\n"} {
		_, stderr, code = command(t, no, "txn", "abort", "g-w")
		require.Equal(t, 1, code)
		require.Contains(t, stderr, "aborts the open transaction of transactional id g-w")
		require.Contains(t, stderr, "nothing was done")
	}
	out, _, _ = command(t, "", "txn", "list")
	require.Contains(t, out, "g-w")

	out, stderr, code = command(t, "y\n", "txn", "abort", "g-w", "--json")
	require.Zero(t, code, stderr)
	var done struct {
		Aborted bool `json:"aborted"`
	}
	require.NoError(t, json.Unmarshal([]byte(out), &done), out)
	require.True(t, done.Aborted)
	out, _, _ = command(t, "", "txn", "list")
	require.Contains(t, out, "no open transactions")

	cl.Close()
	again, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...), kgo.TransactionalID("g-w"), kgo.DefaultProduceTopic("enriched_clicks"), kgo.MaxVersions(kversion.V3_7_0()))
	require.NoError(t, err)
	t.Cleanup(again.Close)
	require.NoError(t, again.BeginTransaction())
	require.NoError(t, again.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr())
	out, stderr, code = command(t, "", "txn", "abort", "g-w", "--yes")
	require.Zero(t, code, stderr)
	require.Contains(t, out, "transactional id g-w: aborted; enriched_clicks/0 is stable up to 4 of 4")
}
