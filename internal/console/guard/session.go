package guard

import (
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"time"
)

// session is somebody who gave a token.
type session struct {
	token [32]byte // its hash: a session ends when its token is taken out of the file
	until time.Time
	idle  time.Time
}

const (
	sessionFor  = 12 * time.Hour
	sessionIdle = time.Hour
	maxSessions = 1000
)

// cookie's name. With TLS its prefix has browsers refuse it from anybody but this host, over TLS.
func (g *Guard) cookie() string {
	if g.Secure {
		return "__Secure-exactly"
	}
	return "exactly"
}

func (g *Guard) setCookie(w http.ResponseWriter, value string, age time.Duration) {
	http.SetCookie(w, &http.Cookie{Name: g.cookie(), Value: value, Path: g.Prefix, MaxAge: int(age.Seconds()), HttpOnly: true, Secure: g.Secure, SameSite: http.SameSiteStrictMode})
}

// who asks: by certificate, by the token in the request, by session, or as whoever is on this machine. id names the session that forms are bound
// to, empty if there is none yet.
func (g *Guard) who(r *http.Request) (id string, p Person, known bool) {
	if c, err := r.Cookie(g.cookie()); err == nil && len(c.Value) == 64 {
		id = c.Value
	}
	if g.ClientCert && r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		name := r.TLS.PeerCertificates[0].Subject.CommonName
		role := Viewer
		if slices.Contains(g.Operators, name) {
			role = Operator
		}
		return id, Person{name, role, "certificate"}, name != ""
	}
	if g.open() {
		return id, g.Local, true
	}
	if g.tokens == nil {
		return "", Person{}, false
	}
	if given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		e, ok := g.tokens.find(hash(given))
		return id, Person{e.name, e.role, "token"}, ok
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s, ok := g.sessions[id]
	now := g.Now()
	if !ok || now.After(s.until) || now.After(s.idle) {
		delete(g.sessions, id)
		return "", Person{}, false
	}
	e, ok := g.tokens.find(s.token)
	if !ok {
		delete(g.sessions, id)
		return "", Person{}, false
	}
	s.idle = now.Add(sessionIdle)
	g.sessions[id] = s
	return id, Person{e.name, e.role, "token"}, true
}

// bearer says whether the request has its own token in a header: no page of another site can send that, and there is no form.
func (g *Guard) bearer(r *http.Request) bool {
	return g.tokens != nil && strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ")
}

// anonymous gives the browser a name of its own, which forms are bound to.
func (g *Guard) anonymous(w http.ResponseWriter) string {
	id := random()
	g.setCookie(w, id, sessionFor)
	return id
}

func random() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// login takes a token and opens a session.
func (g *Guard) login(w http.ResponseWriter, r *http.Request) {
	if g.tokens == nil {
		http.Redirect(w, r, g.Prefix+"/", http.StatusSeeOther)
		return
	}
	if r.Method != http.MethodPost {
		g.Login(w, r, http.StatusOK, false)
		return
	}
	if !g.limits.tries(address(r)) {
		w.Header().Set("Retry-After", "5")
		refuse(w, http.StatusTooManyRequests, "too many tries: wait a little")
		return
	}
	if r.ParseForm() != nil {
		refuse(w, http.StatusRequestEntityTooLarge, "the form is too large, or none")
		return
	}
	h := hash(strings.TrimSpace(r.PostForm.Get("token")))
	if _, ok := g.tokens.find(h); !ok {
		g.Login(w, r, http.StatusUnauthorized, true)
		return
	}
	id, now := random(), g.Now()
	g.mu.Lock()
	for k, s := range g.sessions {
		if now.After(s.until) || now.After(s.idle) || len(g.sessions) >= maxSessions {
			delete(g.sessions, k)
		}
	}
	g.sessions[id] = session{h, now.Add(sessionFor), now.Add(sessionIdle)}
	g.mu.Unlock()
	g.setCookie(w, id, sessionFor)
	http.Redirect(w, r, g.Prefix+"/", http.StatusSeeOther)
}

func (g *Guard) logout(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(g.cookie()); err == nil {
		g.mu.Lock()
		delete(g.sessions, c.Value)
		g.mu.Unlock()
	}
	g.setCookie(w, "", -time.Second)
	http.Redirect(w, r, g.Prefix+"/login", http.StatusSeeOther)
}
