// Package guard owns who may ask the console for what: the names it answers to, who somebody is, how much anybody may ask, and that a request
// which changes something comes from one of the console's own pages.
//
// It promises that a request it lets through has a Person in its context, and that one it does not was shown nothing and changed nothing. It
// never knows what the pages are about.
package guard

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/exactly-pipeline/exactly/internal/config"
)

// Role is what somebody may do.
type Role string

// The roles.
const (
	Viewer   Role = "viewer"   // looks; addresses and raw bytes are masked
	Operator Role = "operator" // sees them, and does deeds where the console may write
)

// Person is who asks.
type Person struct {
	Name string
	Role Role
	Via  string // how that is known: token, certificate, this machine
}

// MayWrite says whether somebody may do deeds, as far as it is up to who they are.
func (p Person) MayWrite() bool { return p.Role == Operator }

// MaySeeAddresses says whether somebody may see people's addresses, and raw bytes that may hold them.
func (p Person) MaySeeAddresses() bool { return p.Role == Operator }

// Config is what a Guard is told.
type Config struct {
	Prefix     string   // of every path: /console
	Hosts      []string // names it may be asked for by, without ports
	TokensFile string   // empty: nobody has a token
	ClientCert bool     // who has a verified certificate is known by it
	Operators  []string // common names of certificates
	Local      Person   // who everybody is where there are neither tokens nor certificates
	Secure     bool     // served over TLS

	// Login writes the page that asks for a token; wrong: the one given was none.
	Login func(w http.ResponseWriter, r *http.Request, code int, wrong bool)
	Now   func() time.Time // nil: time.Now
}

// Guard stands before a handler.
type Guard struct {
	Config
	key      []byte // of what is signed; made anew with each process
	cross    *http.CrossOriginProtection
	tokens   *tokens
	mu       sync.Mutex
	sessions map[string]session
	limits   *limits
}

// New makes a guard.
func New(c Config) *Guard {
	if c.Now == nil {
		c.Now = time.Now
	}
	g := &Guard{Config: c, key: make([]byte, 32), cross: http.NewCrossOriginProtection(), sessions: map[string]session{}, limits: newLimits(c.Now)}
	_, _ = rand.Read(g.key) // never fails
	if c.TokensFile != "" {
		g.tokens = &tokens{file: c.TokensFile}
	}
	return g
}

// open says whether everybody who gets here is the same local person.
func (g *Guard) open() bool { return g.tokens == nil && !g.ClientCert }

// Bounds of a request.
const (
	maxBody = 256 << 10
	maxURL  = 4 << 10
)

// Wrap is next behind the guard. Paths below /assets/ are for anybody who asks by the right name; they are the same for all.
func (g *Guard) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		headers(w.Header(), g.Secure)
		if !g.known(r.Host) {
			refuse(w, http.StatusMisdirectedRequest, "this console does not go by that name: console.hosts lists the names it answers to")
			return
		}
		done, ok := g.limits.enter(address(r))
		if !ok {
			w.Header().Set("Retry-After", "1")
			refuse(w, http.StatusTooManyRequests, "too many requests: wait a second")
			return
		}
		defer done()
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodPost:
			refuse(w, http.StatusMethodNotAllowed, "only GET and POST")
			return
		case len(r.RequestURI) > maxURL:
			refuse(w, http.StatusRequestURITooLong, "the address is too long")
			return
		case r.ContentLength > maxBody:
			refuse(w, http.StatusRequestEntityTooLarge, "the request is too large")
			return
		case foreign(r) || g.cross.Check(r) != nil:
			refuse(w, http.StatusForbidden, "the request comes from another site")
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if strings.HasPrefix(r.URL.Path, g.Prefix+"/assets/") {
			next.ServeHTTP(w, r)
			return
		}
		g.identify(w, r, next)
	})
}

// identify finds out who asks, and demands the token of the page's form where something is to be done.
func (g *Guard) identify(w http.ResponseWriter, r *http.Request, next http.Handler) {
	id, p, known := g.who(r)
	switch {
	case r.URL.Path == g.Prefix+"/login":
		g.login(w, r)
		return
	case !known:
		w.Header().Set("WWW-Authenticate", `Bearer realm="exactly console"`)
		if r.Method == http.MethodPost || r.Header.Get("X-Live") != "" {
			refuse(w, http.StatusUnauthorized, "who are you? A token is needed")
			return
		}
		g.Login(w, r, http.StatusUnauthorized, false)
		return
	}
	if id == "" { // known without a session: one that only binds forms to this browser
		id = g.anonymous(w)
	}
	if r.Method == http.MethodPost && !g.bearer(r) {
		if err := r.ParseForm(); err != nil {
			refuse(w, http.StatusRequestEntityTooLarge, "the form is too large, or none")
			return
		}
		if !hmac.Equal([]byte(r.PostForm.Get("csrf")), []byte(g.sign("csrf", id))) {
			refuse(w, http.StatusForbidden, "the form is not of this console's pages, or of before it was started anew: load the page again")
			return
		}
	}
	if r.URL.Path == g.Prefix+"/logout" && r.Method == http.MethodPost {
		g.logout(w, r)
		return
	}
	ctx := context.WithValue(r.Context(), personKey{}, p)
	next.ServeHTTP(w, r.WithContext(context.WithValue(ctx, csrfKey{}, g.sign("csrf", id))))
}

type personKey struct{}
type csrfKey struct{}

// From is who asks.
func From(ctx context.Context) Person {
	p, _ := ctx.Value(personKey{}).(Person)
	return p
}

// CSRF is what a form must carry.
func CSRF(ctx context.Context) string {
	s, _ := ctx.Value(csrfKey{}).(string)
	return s
}

func (g *Guard) sign(what, s string) string {
	m := hmac.New(sha256.New, g.key)
	m.Write([]byte(what + "\x00" + s))
	return hex.EncodeToString(m.Sum(nil))
}

// known says whether the name in the request is one of ours: a page of somebody else's whose name resolves to us (DNS rebinding) is not.
func (g *Guard) known(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	for _, h := range g.Hosts {
		if host == strings.ToLower(h) {
			return true
		}
	}
	return false
}

// foreign says whether a page of another site asks, but for a link that somebody followed.
func foreign(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	if site != "cross-site" && site != "same-site" {
		return false
	}
	return r.Method != http.MethodGet || r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document"
}

func address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// refuse says why, and nothing else.
func refuse(w http.ResponseWriter, code int, why string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(why + "\n")) // whoever asked is gone
}

// headers are those of every answer.
func headers(h http.Header, secure bool) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	h.Set("Cache-Control", "no-store")
	if secure {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// Hosts are the names that a console listening on addr answers to: the address's own, loopback's if it is one, and more.
func Hosts(addr string, more []string) []string {
	out := append([]string{}, more...)
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return out
	}
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		out = append(out, host)
	}
	if config.Loopback(addr) {
		out = append(out, "localhost", "127.0.0.1", "::1")
	}
	return out
}
