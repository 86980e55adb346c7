package replicas

import (
	"context"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// api is a Kubernetes API that answers with this, and a pod's mount that leads to it.
func api(t *testing.T, status int, body string) Ask {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/apis/apps/v1/namespaces/here/statefulsets/exactly" || r.Header.Get("Authorization") != "Bearer a-token" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body)) //nolint:errcheck // a test's
	}))
	t.Cleanup(s.Close)
	dir := t.TempDir()
	for name, content := range map[string]string{
		"token": "a-token\n", "namespace": "here", "ca.crt": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})),
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	return Ask{StatefulSet: "exactly", Pod: "exactly-2", Dir: dir, Address: strings.TrimPrefix(s.URL, "https://")}
}

func TestComesBack(t *testing.T) {
	for body, want := range map[string]bool{
		`{"spec": {"replicas": 3}}`:                                                            true,
		`{"spec": {"replicas": 2}}`:                                                            false,
		`{"spec": {"replicas": 0}}`:                                                            false,
		`{"spec": {"replicas": 1, "ordinals": {"start": 2}}}`:                                  true,
		`{"spec": {"replicas": 12, "ordinals": {"start": 3}}}`:                                 false,
		`{"spec": {"replicas": 3}, "status": {"replicas": 2}}`:                                 true,
		`{"metadata": {"deletionTimestamp": "2026-01-31T00:00:00Z"}, "spec": {"replicas": 3}}`: false,
	} {
		back, err := api(t, http.StatusOK, body).ComesBack(t.Context())
		require.NoError(t, err, body)
		require.Equal(t, want, back, body)
	}
	back, err := api(t, http.StatusNotFound, "").ComesBack(t.Context())
	require.NoError(t, err)
	require.False(t, back, "the StatefulSet is gone")
}

// No answer is none, whatever the reason, and says what to look at.
func TestNoAnswer(t *testing.T) {
	_, err := api(t, http.StatusOK, `{"spec": {}}`).ComesBack(t.Context())
	require.ErrorContains(t, err, "spec.replicas")
	_, err = api(t, http.StatusForbidden, "").ComesBack(t.Context())
	require.ErrorContains(t, err, "needs get on this StatefulSet")
	a := api(t, http.StatusOK, `{"spec": {"replicas": 3}}`)
	require.NoError(t, os.Remove(filepath.Join(a.Dir, "token")))
	_, err = a.ComesBack(t.Context())
	require.ErrorContains(t, err, "automountServiceAccountToken")
	a = api(t, http.StatusOK, `{"spec": {"replicas": 3}}`)
	other := api(t, http.StatusOK, "")
	a.Address = other.Address
	require.NoError(t, os.WriteFile(filepath.Join(a.Dir, "ca.crt"), []byte("none"), 0o600))
	_, err = a.ComesBack(t.Context())
	require.ErrorContains(t, err, "no certificate")
	a = api(t, http.StatusOK, `{"spec": {"replicas": 3}}`)
	a.Pod = "exactly"
	_, err = a.ComesBack(t.Context())
	require.ErrorContains(t, err, "is no pod of the StatefulSet")
	slow := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(slow.Close)
	a = api(t, http.StatusOK, "")
	a.Address = strings.TrimPrefix(slow.URL, "https://")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = a.ComesBack(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
