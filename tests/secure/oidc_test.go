//go:build e2e

package secure

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/exactly-pipeline/exactly/internal/testca"
)

const (
	issuer   = "https://issuer.example.org"
	audience = "kafka"
)

// oidc is as much of an OpenID provider as it takes: tokens for client credentials, and the keys that they are signed with. The broker
// fetches the keys by plain HTTP, the program its tokens by HTTPS.
type oidc struct {
	tokens, keys *httptest.Server
	key          *rsa.PrivateKey

	mu      sync.Mutex
	secrets map[string]string // by client id, which is the subject, too
	life    time.Duration
	issued  map[string]int
	refused int
}

func startOIDC(ca *testca.CA) (*oidc, error) {
	o := &oidc{secrets: map[string]string{}, life: time.Minute, issued: map[string]int{}}
	var err error
	if o.key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		return nil, err
	}
	o.tokens = httptest.NewUnstartedServer(http.HandlerFunc(o.token))
	o.tokens.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Server().TLS}}
	o.tokens.Config.ErrorLog = log.New(io.Discard, "", 0)
	o.tokens.StartTLS()
	o.keys = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]any{"keys": []any{map[string]any{
			"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "k", "n": b64(o.key.N.Bytes()), "e": b64(big.NewInt(int64(o.key.E)).Bytes()),
		}}})
	}))
	return o, nil
}

func (o *oidc) close() {
	o.tokens.Close()
	o.keys.Close()
}

func (o *oidc) tokenURL() string { return o.tokens.URL + "/token" }
func (o *oidc) jwksURL() string  { return o.keys.URL + "/keys" }

// set changes what a client has to know, and how long its tokens last.
func (o *oidc) set(client, secret string, life time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.secrets[client], o.life = secret, life
}

func (o *oidc) counts(client string) (issued, refused int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.issued[client], o.refused
}

func (o *oidc) token(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	id, secret, _ := r.BasicAuth()
	if id == "" {
		id, secret = r.FormValue("client_id"), r.FormValue("client_secret")
	}
	if secret == "" || o.secrets[id] != secret || r.FormValue("grant_type") != "client_credentials" {
		o.refused++
		reply(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client", "error_description": "wrong client secret"})
		return
	}
	o.issued[id]++
	now := time.Now()
	head, _ := json.Marshal(map[string]any{"alg": "RS256", "kid": "k", "typ": "JWT"})
	claims, _ := json.Marshal(map[string]any{
		"iss": issuer, "aud": audience, "sub": id, "scope": r.FormValue("scope"), "iat": now.Unix(), "exp": now.Add(o.life).Unix(), "jti": fmt.Sprint(o.issued[id]),
	})
	signed := b64(head) + "." + b64(claims)
	sum := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(rand.Reader, o.key, crypto.SHA256, sum[:])
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	reply(w, http.StatusOK, map[string]any{"access_token": signed + "." + b64(sig), "token_type": "Bearer", "expires_in": int(o.life.Seconds())})
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
