package security

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/testca"
)

var discard = log.New(io.Discard, "", 0)

func serverTLS(p testca.Pair) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{p.TLS}} }

// registryServer answers with the Authorization it was sent, or 401 if that is not the one wanted.
func registryServer(t *testing.T, tc *tls.Config, want func() string) *httptest.Server {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if want != nil && r.Header.Get("Authorization") != want() {
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, _ = fmt.Fprint(w, "you sent ", r.Header.Get("Authorization"))
	}))
	s.Config.ErrorLog = discard
	if s.TLS = tc; tc != nil {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

// ask makes one request, on a connection of its own.
func ask(t *testing.T, r *config.Registry) error {
	t.Helper()
	tr, err := Registry(r)
	require.NoError(t, err)
	cl := &http.Client{Transport: tr}
	defer cl.CloseIdleConnections()
	return get(cl, r.URL)
}

func get(cl *http.Client, url string) error {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := cl.Do(req)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// Each way to say who we are, from a file that changes while the client lives.
func TestRegistryCredentials(t *testing.T) {
	want := "Basic dTpvbGQ=" // u:old
	s := registryServer(t, nil, func() string { return want })
	file := secretFile(t, "old\n")
	r := &config.Registry{URL: s.URL, Username: "u", PasswordFile: file}
	tr, err := Registry(r)
	require.NoError(t, err)
	cl := &http.Client{Transport: tr}
	defer cl.CloseIdleConnections()
	require.NoError(t, get(cl, s.URL))
	want = "Basic dTpuZXc=" // u:new
	err = get(cl, s.URL)
	require.True(t, Refused(err))
	host := strings.TrimPrefix(s.URL, "http://")
	require.ErrorContains(t, err, "the schema registry at "+host+" refuses us: 401 Unauthorized: see registry.username (EXACTLY_REGISTRY_USERNAME) and registry.password_file")
	require.NoError(t, os.WriteFile(file, []byte("new"), 0o600))
	require.NoError(t, get(cl, s.URL))
	want = "Bearer t0ken"
	require.NoError(t, ask(t, &config.Registry{URL: s.URL, TokenFile: secretFile(t, "t0ken\n")}))
	err = ask(t, &config.Registry{URL: s.URL, Token: "wr0ng"})
	require.ErrorContains(t, err, "see registry.token (EXACTLY_REGISTRY_TOKEN)")
	require.NotContains(t, err.Error(), "wr0ng")
	require.ErrorContains(t, ask(t, &config.Registry{URL: s.URL}), "see registry.username")
	require.ErrorContains(t, ask(t, &config.Registry{URL: s.URL, TokenFile: "/none"}), "registry.token_file (EXACTLY_REGISTRY_TOKEN_FILE): open /none")
}

// The registry's certificate is verified, and ours is shown where it is asked for.
func TestRegistryTLS(t *testing.T) {
	ca, other := testca.New(t), testca.New(t)
	mutual := serverTLS(ca.Server())
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool
	client, expired := ca.Client("exactly"), ca.ExpiredClient("exactly")
	for name, c := range map[string]struct {
		server *tls.Config
		tls    config.RegistryTLS
		says   string // nothing: it works
	}{
		"good":            {serverTLS(ca.Server()), config.RegistryTLS{CA: ca.File}, ""},
		"untrusted":       {serverTLS(other.Server()), config.RegistryTLS{CA: ca.File}, "is signed by nobody trusted here"},
		"system":          {serverTLS(ca.Server()), config.RegistryTLS{}, "see registry.tls.ca (EXACTLY_REGISTRY_TLS_CA)"},
		"expired":         {serverTLS(ca.Expired()), config.RegistryTLS{CA: ca.File}, "has expired"},
		"wrong host":      {serverTLS(ca.WrongHost()), config.RegistryTLS{CA: ca.File}, "is for another host"},
		"mutual":          {mutual, config.RegistryTLS{CA: ca.File, Cert: client.Cert, Key: client.Key}, ""},
		"mutual, none":    {mutual, config.RegistryTLS{CA: ca.File}, "refuses our side of the TLS handshake"},
		"mutual, expired": {mutual, config.RegistryTLS{CA: ca.File, Cert: expired.Cert, Key: expired.Key}, "see registry.tls.cert"},
	} {
		t.Run(name, func(t *testing.T) {
			s := registryServer(t, c.server, nil)
			err := ask(t, &config.Registry{URL: s.URL, TLS: c.tls})
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.True(t, Refused(err), "%v", err)
			require.ErrorContains(t, err, c.says)
			require.ErrorContains(t, err, strings.TrimPrefix(s.URL, "https://"))
		})
	}
	plain := registryServer(t, nil, nil)
	err := ask(t, &config.Registry{URL: strings.Replace(plain.URL, "http:", "https:", 1), TLS: config.RegistryTLS{CA: ca.File}})
	require.True(t, Refused(err), "%v", err)
	require.ErrorContains(t, err, "does not speak TLS")
	require.ErrorContains(t, err, "see registry.url (EXACTLY_REGISTRY_URL)")

	deaf := httptest.NewUnstartedServer(nil)
	deaf.Config.ErrorLog = discard
	deaf.Config.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	deaf.Start()
	defer deaf.Close()
	err = ask(t, &config.Registry{URL: deaf.URL})
	require.ErrorContains(t, err, "hangs up on us: it may want https://")
	require.False(t, Refused(err))
}

// Our certificate is read anew for each connection.
func TestRegistryCertificateChanges(t *testing.T) {
	old, next := testca.New(t), testca.New(t)
	tc := serverTLS(next.Server())
	tc.ClientAuth, tc.ClientCAs = tls.RequireAndVerifyClientCert, next.Pool
	s := registryServer(t, tc, nil)
	before, after := old.Client("exactly"), next.Client("exactly")
	r := &config.Registry{URL: s.URL, TLS: config.RegistryTLS{CA: next.File, Cert: secretFile(t, read(t, before.Cert)), Key: secretFile(t, read(t, before.Key))}}
	tr, err := Registry(r)
	require.NoError(t, err)
	cl := &http.Client{Transport: tr}
	defer cl.CloseIdleConnections()
	require.ErrorContains(t, get(cl, s.URL), "refuses our side")
	require.NoError(t, os.WriteFile(r.TLS.Cert, []byte(read(t, after.Cert)), 0o600))
	require.NoError(t, os.WriteFile(r.TLS.Key, []byte(read(t, after.Key)), 0o600))
	require.NoError(t, get(cl, s.URL))
}

func read(t *testing.T, path string) string {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}
