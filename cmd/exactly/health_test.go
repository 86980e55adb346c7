package main

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// health runs the command against addr and returns what it said and its exit code.
func health(t *testing.T, addr string, flags ...string) (string, int) {
	t.Helper()
	t.Setenv("EXACTLY_HTTP_ADDR", addr)
	root := newRoot()
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetArgs(append([]string{"health"}, flags...))
	err := root.ExecuteContext(t.Context())
	var ee *exitError
	switch {
	case err == nil:
		return out.String(), 0
	case errors.As(err, &ee):
		return out.String(), ee.code
	}
	return out.String() + err.Error(), 1 // as main does
}

func TestHealth(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", ":0") // every address of this machine, as in a container
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "partition 3 is held", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/startupz", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "waits for kafka", http.StatusServiceUnavailable)
	})
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	go srv.Serve(l) //nolint:errcheck // closed below
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	for _, addr := range []string{":" + port, "0.0.0.0:" + port, "127.0.0.1:" + port, "localhost:" + port} {
		said, code := health(t, addr)
		require.Zero(t, code, "%s: %s", addr, said)
		require.Equal(t, "ok\n", said)
	}
	said, code := health(t, ":"+port, "--ready")
	require.Equal(t, 1, code)
	require.Equal(t, "partition 3 is held\n", said)
	said, code = health(t, ":"+port, "--ready", "--json")
	require.Equal(t, 1, code)
	require.JSONEq(t, `{"ok": false, "status": 503, "said": "partition 3 is held"}`, said)

	said, code = health(t, ":"+port, "--started")
	require.Equal(t, 1, code)
	require.Equal(t, "waits for kafka\n", said)
	_, code = health(t, ":"+port, "--started", "--ready")
	require.Equal(t, 2, code)

	require.NoError(t, srv.Close())
	said, code = health(t, ":"+port)
	require.Equal(t, 1, code)
	require.Contains(t, said, "no answer from http.addr :"+port)
	_, code = health(t, "")
	require.Equal(t, 2, code, "there is nobody to ask: a wrong setting")
}
