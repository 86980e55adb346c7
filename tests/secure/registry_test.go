//go:build e2e

package secure

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/testca"
)

// guarded is the stack's registry behind TLS, which lets only those in who send what allowed says.
func guarded(t *testing.T, tc *tls.Config, allowed func(*http.Request) bool) *httptest.Server {
	t.Helper()
	behind, err := url.Parse(shared.stack.RegistryURL())
	require.NoError(t, err)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !allowed(r) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.Header.Del("Authorization")
		r.Host = behind.Host
		rp := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: behind.Scheme, Host: behind.Host})
		rp.ErrorLog = log.New(io.Discard, "", 0)
		rp.ServeHTTP(w, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = tc
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// through a registry that is guarded by TLS and, in turn, a password, a token and a certificate.
func TestGuardedRegistry(t *testing.T) {
	w := newWorld(t)
	path, err := url.Parse(shared.stack.RegistryURL())
	require.NoError(t, err)
	good := &tls.Config{Certificates: []tls.Certificate{shared.ca.Server().TLS}}
	var secret atomic.Value
	secret.Store(password("registry"))
	basic := guarded(t, good.Clone(), func(r *http.Request) bool {
		u, p, _ := r.BasicAuth()
		return u == "reg" && p == secret.Load()
	})
	at := func(s *httptest.Server) *world {
		return w.with("registry.url", s.URL+path.Path, "registry.tls.ca", shared.ca.File)
	}
	in := at(basic).with("registry.username", "reg", "registry.password_file", w.file("reg", password("registry")))
	ps := in.through(100)
	// The password changes: what comes next needs the new one. A schema the worker has not seen makes it ask.
	secret.Store(password("next"))
	in.refused("refuses us: 401 Unauthorized", "setup")
	in.refused("refuses us: 401 Unauthorized", "generate", "--count", "1")
	fresh := in.with("worker.id", "fresh").start("run")
	fresh.says("schema registry can't be used: trying on until somebody mends it")
	in.rewrite("registry.password_file", password("next"))
	fresh.says("worker starts")
	require.Equal(t, 1, fresh.count("refuses us: 401"))
	fresh.stop()
	in.generate(100)
	in.settled(200)
	ps.stop()

	bearer := guarded(t, good.Clone(), func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer "+password("token") })
	token := at(bearer).with("registry.token_file", w.file("token", password("token")))
	token.exactly("setup")
	token.with("registry.token_file", w.file("token2", password("nobody"))).refused("see registry.token_file (EXACTLY_REGISTRY_TOKEN_FILE)", "setup")

	mutual := good.Clone()
	mutual.ClientAuth, mutual.ClientCAs = tls.RequireAndVerifyClientCert, shared.ca.Pool
	certified := guarded(t, mutual, func(*http.Request) bool { return true })
	mine := shared.ca.Client("exactly")
	at(certified).with("registry.tls.cert", mine.Cert, "registry.tls.key", mine.Key).exactly("setup")
	at(certified).refused("refuses our side of the TLS handshake", "setup")

	everybody := func(*http.Request) bool { return true }
	serve := func(p testca.Pair) *world {
		return at(guarded(t, &tls.Config{Certificates: []tls.Certificate{p.TLS}}, everybody))
	}
	serve(shared.ca.Expired()).refused("has expired", "setup")
	serve(shared.ca.WrongHost()).refused("is for another host", "generate", "--count", "1")
	serve(testca.New(t).Server()).refused("is signed by nobody trusted here", "generate", "--count", "1")
	w.with("registry.url", strings.Replace(shared.stack.RegistryURL(), "http:", "https:", 1), "registry.tls.ca", shared.ca.File).refused("does not speak TLS", "setup")
}
