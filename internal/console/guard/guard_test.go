package guard

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const secret = "what nobody else may see"

// house is a guard before a handler that shows a secret, and counts what it changed.
type house struct {
	t       *testing.T
	guard   *Guard
	handler http.Handler
	changed atomic.Int64
	shown   atomic.Int64
	last    Person
	mu      sync.Mutex
}

func newHouse(t *testing.T, c Config) *house {
	t.Helper()
	h := &house{t: t}
	c.Prefix, c.Hosts = "/console", append(c.Hosts, "localhost", "127.0.0.1")
	c.Login = func(w http.ResponseWriter, _ *http.Request, code int, _ bool) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, "who is it?")
	}
	h.guard = New(c)
	h.handler = h.guard.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.shown.Add(1)
		if r.Method == http.MethodPost {
			h.changed.Add(1)
		}
		h.mu.Lock()
		h.last = From(r.Context())
		h.mu.Unlock()
		_, _ = io.WriteString(w, secret+" csrf="+CSRF(r.Context()))
	}))
	return h
}

func (h *house) ask(r *http.Request) (int, string) {
	w := httptest.NewRecorder()
	h.handler.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func request(method, path string, with ...string) *http.Request {
	r := httptest.NewRequest(method, "http://localhost"+path, nil)
	for _, kv := range with {
		k, v, _ := strings.Cut(kv, ": ")
		switch k {
		case "Host":
			r.Host = v
		case "From":
			r.RemoteAddr = v
		default:
			r.Header.Set(k, v)
		}
	}
	return r
}

func tokensFile(t *testing.T, lines ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens")
	require.NoError(t, os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600))
	return file
}

// What a stranger sends changes nothing and shows nothing.
func TestStrangers(t *testing.T) {
	token, line, err := NewToken("anna", Operator)
	require.NoError(t, err)
	h := newHouse(t, Config{TokensFile: tokensFile(t, "# people", line)})
	long := strings.Repeat("x", 5000)
	for name, c := range map[string]struct {
		r    *http.Request
		want int
	}{
		"no token":              {request("GET", "/console/"), http.StatusUnauthorized},
		"no token, a form":      {request("POST", "/console/letters/replay"), http.StatusUnauthorized},
		"no token, a part":      {request("GET", "/console/now/live", "X-Live: 1"), http.StatusUnauthorized},
		"another token":         {request("GET", "/console/", "Authorization: Bearer exactly_"+long[:43]), http.StatusUnauthorized},
		"an empty token":        {request("GET", "/console/", "Authorization: Bearer "), http.StatusUnauthorized},
		"the hash for a token":  {request("GET", "/console/", "Authorization: Bearer "+strings.Fields(line)[2]), http.StatusUnauthorized},
		"a made-up session":     {request("GET", "/console/", "Cookie: exactly="+strings.Repeat("a", 64)), http.StatusUnauthorized},
		"another name":          {request("GET", "/console/", "Host: evil.example:8010", "Authorization: Bearer "+token), http.StatusMisdirectedRequest},
		"a name that begins so": {request("GET", "/console/", "Host: localhost.evil.example", "Authorization: Bearer "+token), http.StatusMisdirectedRequest},
		"another site's form":   {request("POST", "/console/x", "Origin: http://evil.example", "Authorization: Bearer "+token), http.StatusForbidden},
		"another site's script": {request("GET", "/console/", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: cors", "Authorization: Bearer "+token), http.StatusForbidden},
		"another site's frame":  {request("GET", "/console/", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe", "Authorization: Bearer "+token), http.StatusForbidden},
		"a neighbour's form":    {request("POST", "/console/x", "Sec-Fetch-Site: same-site", "Authorization: Bearer "+token), http.StatusForbidden},
		"another method":        {request("DELETE", "/console/", "Authorization: Bearer "+token), http.StatusMethodNotAllowed},
		"a long address":        {request("GET", "/console/?q="+long, "Authorization: Bearer "+token), http.StatusRequestURITooLong},
		"a large form":          {large(token), http.StatusRequestEntityTooLarge},
	} {
		h.guard.limits = newLimits(time.Now)
		code, body := h.ask(c.r)
		require.Equal(t, c.want, code, name)
		require.NotContains(t, body, secret, name)
	}
	require.Zero(t, h.shown.Load())
	require.Zero(t, h.changed.Load())
	code, body := h.ask(request("GET", "/console/", "Authorization: Bearer "+token)) // the same question, rightly asked
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, secret)
	require.Equal(t, Person{"anna", Operator, "token"}, h.last)
}

func large(token string) *http.Request {
	r := httptest.NewRequest("POST", "http://localhost/console/x", strings.NewReader(strings.Repeat("x", maxBody+1)))
	r.Header.Set("Authorization", "Bearer "+token)
	return r
}

// A body that does not say how long it is ends at the bound.
func TestLargeBodyWithoutLength(t *testing.T) {
	h := newHouse(t, Config{Local: Person{"root@here", Operator, "this machine"}})
	r := httptest.NewRequest("POST", "http://localhost/console/x", io.NopCloser(strings.NewReader("a="+strings.Repeat("x", 2*maxBody))))
	r.ContentLength = -1
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	code, _ := h.ask(r)
	require.Equal(t, http.StatusRequestEntityTooLarge, code)
	require.Zero(t, h.changed.Load())
}

// A thousand at once: most are turned away, none is shown anything, and whoever may, is let in again a moment later.
func TestThousandAtOnce(t *testing.T) {
	token, line, err := NewToken("anna", Viewer)
	require.NoError(t, err)
	now := time.Now()
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	h := newHouse(t, Config{TokensFile: tokensFile(t, line), Now: clock})
	codes := map[int]int{}
	var g sync.WaitGroup
	for range 1000 {
		g.Go(func() {
			code, body := h.ask(request("POST", "/console/letters/replay", "From: 192.0.2.1:1000"))
			require.NotContains(t, body, secret)
			mu.Lock()
			codes[code]++
			mu.Unlock()
		})
	}
	g.Wait()
	require.Zero(t, h.shown.Load())
	require.GreaterOrEqual(t, codes[http.StatusTooManyRequests], 1000-burst-1, "%v", codes)
	require.Equal(t, 1000, codes[http.StatusTooManyRequests]+codes[http.StatusUnauthorized], "%v", codes)
	code, _ := h.ask(request("GET", "/console/", "From: 192.0.2.2:1000", "Authorization: Bearer "+token))
	require.Equal(t, http.StatusOK, code, "another address")
	mu.Lock()
	now = now.Add(time.Second)
	mu.Unlock()
	code, _ = h.ask(request("GET", "/console/", "From: 192.0.2.1:1000", "Authorization: Bearer "+token))
	require.Equal(t, http.StatusOK, code, "the same address, later")
}

// Tokens can't be guessed by trying.
func TestTriesAreFew(t *testing.T) {
	_, line, err := NewToken("anna", Viewer)
	require.NoError(t, err)
	h := newHouse(t, Config{TokensFile: tokensFile(t, line)})
	last := 0
	for range tryBurst + 1 {
		last, _ = h.ask(form("/console/login", url.Values{"token": {"exactly_wrong"}}))
	}
	require.Equal(t, http.StatusTooManyRequests, last)
}

func form(path string, v url.Values, with ...string) *http.Request {
	r := request("POST", path, append(with, "Content-Type: application/x-www-form-urlencoded")...)
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(v.Encode())), int64(len(v.Encode()))
	return r
}

// A session begins with a token, its forms need its own word, and it ends with its token or when nobody uses it.
func TestSession(t *testing.T) {
	token, line, err := NewToken("anna", Operator)
	require.NoError(t, err)
	file := tokensFile(t, line)
	now := time.Now()
	h := newHouse(t, Config{TokensFile: file, Now: func() time.Time { return now }})
	enter := func() string {
		w := httptest.NewRecorder()
		h.handler.ServeHTTP(w, form("/console/login", url.Values{"token": {token}}))
		require.Equal(t, http.StatusSeeOther, w.Code)
		c := w.Result().Cookies()[0]
		require.True(t, c.HttpOnly)
		require.Equal(t, http.SameSiteStrictMode, c.SameSite)
		return "Cookie: " + c.Name + "=" + c.Value
	}
	cookie := enter()
	code, body := h.ask(request("GET", "/console/", cookie))
	require.Equal(t, http.StatusOK, code)
	_, csrf, _ := strings.Cut(body, "csrf=")
	for name, v := range map[string]url.Values{"none": {}, "another's": {"csrf": {strings.Repeat("0", 64)}}} {
		code, _ = h.ask(form("/console/x", v, cookie))
		require.Equal(t, http.StatusForbidden, code, name)
	}
	require.Zero(t, h.changed.Load())
	code, _ = h.ask(form("/console/x", url.Values{"csrf": {csrf}}, cookie))
	require.Equal(t, http.StatusOK, code)
	require.EqualValues(t, 1, h.changed.Load())
	other := enter()
	code, _ = h.ask(form("/console/x", url.Values{"csrf": {csrf}}, other))
	require.Equal(t, http.StatusForbidden, code, "another session's word")

	now = now.Add(sessionIdle + time.Second)
	code, _ = h.ask(request("GET", "/console/", cookie))
	require.Equal(t, http.StatusUnauthorized, code, "idle")
	cookie = enter()
	require.NoError(t, os.WriteFile(file, []byte("# nobody\n"), 0o600))
	h.guard.tokens.checked = time.Time{}
	code, _ = h.ask(request("GET", "/console/", cookie))
	require.Equal(t, http.StatusUnauthorized, code, "its token is gone")
}

// Whoever is on this machine needs no token, but another site's page in their browser gets nothing.
func TestLocal(t *testing.T) {
	h := newHouse(t, Config{Local: Person{"root@here", Viewer, "this machine"}})
	w := httptest.NewRecorder()
	h.handler.ServeHTTP(w, request("GET", "/console/"))
	require.Equal(t, http.StatusOK, w.Code)
	require.Contains(t, w.Header().Get("Content-Security-Policy"), "script-src 'self'")
	require.NotContains(t, w.Header().Get("Content-Security-Policy"), "unsafe")
	cookie := "Cookie: " + w.Result().Cookies()[0].Name + "=" + w.Result().Cookies()[0].Value
	_, csrf, _ := strings.Cut(w.Body.String(), "csrf=")
	code, _ := h.ask(form("/console/x", url.Values{"csrf": {csrf}}))
	require.Equal(t, http.StatusForbidden, code, "the word without its cookie")
	code, _ = h.ask(form("/console/x", url.Values{"csrf": {csrf}}, cookie, "Origin: http://evil.example"))
	require.Equal(t, http.StatusForbidden, code)
	code, _ = h.ask(form("/console/x", url.Values{"csrf": {csrf}}, cookie, "Origin: http://localhost"))
	require.Equal(t, http.StatusOK, code)
	code, _ = h.ask(request("GET", "/console/", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"))
	require.Equal(t, http.StatusOK, code, "a link that somebody followed")
}

// A certificate says who somebody is; without one, or a token, nobody is anybody.
func TestCertificates(t *testing.T) {
	h := newHouse(t, Config{ClientCert: true, Operators: []string{"anna"}, Secure: true, Local: Person{"nobody", Operator, ""}})
	with := func(name string, verified bool) (int, Person) {
		r := request("GET", "/console/")
		c := &x509.Certificate{Subject: pkix.Name{CommonName: name}}
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}
		if verified {
			r.TLS.VerifiedChains = [][]*x509.Certificate{{c}}
		}
		code, _ := h.ask(r)
		return code, h.last
	}
	code, p := with("anna", true)
	require.Equal(t, []any{http.StatusOK, Person{"anna", Operator, "certificate"}}, []any{code, p})
	code, p = with("bert", true)
	require.Equal(t, []any{http.StatusOK, Person{"bert", Viewer, "certificate"}}, []any{code, p})
	code, _ = with("anna", false)
	require.Equal(t, http.StatusUnauthorized, code)
	code, _ = h.ask(request("GET", "/console/"))
	require.Equal(t, http.StatusUnauthorized, code)
}

func TestTokensFile(t *testing.T) {
	_, line, err := NewToken("anna", Viewer)
	require.NoError(t, err)
	require.NoError(t, CheckTokens(tokensFile(t, "", "# x", line)))
	for _, wrong := range []string{"", "anna viewer", "anna root " + strings.Fields(line)[2], "anna viewer sha256:00", "a/b viewer " + strings.Fields(line)[2], line + " more"} {
		require.Error(t, CheckTokens(tokensFile(t, wrong)), wrong)
	}
	for _, name := range []string{"", "a b", "a\nb", strings.Repeat("x", 65)} {
		_, _, err := NewToken(name, Viewer)
		require.Error(t, err, name)
	}
	_, _, err = NewToken("anna", "root")
	require.Error(t, err)
}
