package security

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/exactly-pipeline/exactly/internal/config"
)

const (
	tokenTimeout  = 10 * time.Second
	tokenLifetime = 5 * time.Minute // of a token that says nothing of it
)

// tokens fetches tokens by client credentials (RFC 6749, 4.4) for one client, and keeps the last while it has most of its life before
// it. It is safe for concurrent use.
type tokens struct {
	sasl *config.SASL

	mu      sync.Mutex
	last    *oauth2.Token
	fetched time.Time
}

// get is a token with at least a quarter of its lifetime left: librdkafka asks for the next at four fifths, franz-go at 95%.
func (t *tokens) get(ctx context.Context) (*oauth2.Token, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last != nil && time.Until(t.last.Expiry) > t.last.Expiry.Sub(t.fetched)/4 {
		return t.last, nil
	}
	now := time.Now()
	tok, err := t.fetch(ctx)
	if err != nil {
		return nil, err
	}
	t.last, t.fetched = tok, now
	return tok, nil
}

func (t *tokens) fetch(ctx context.Context) (*oauth2.Token, error) {
	secret, err := t.sasl.GetClientSecret()
	if err != nil {
		return nil, &Error{Says: "fetch a token for kafka", Err: err}
	}
	roots, err := config.Authorities("kafka.sasl.token_ca", t.sasl.TokenCA)
	if err != nil {
		return nil, &Error{Says: "fetch a token for kafka", Err: err}
	}
	tr := http.DefaultTransport.(*http.Transport).Clone()
	tr.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	tr.DisableKeepAlives = true // the next fetch is minutes away
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: tr}), tokenTimeout)
	defer cancel()
	c := clientcredentials.Config{ClientID: t.sasl.ClientID, ClientSecret: secret, TokenURL: t.sasl.TokenURL, Scopes: strings.Fields(t.sasl.Scope)}
	tok, err := c.Token(ctx)
	if err != nil {
		return nil, t.explain(err)
	}
	if tok.Expiry.IsZero() {
		tok.Expiry = expiry(tok.AccessToken)
	}
	return tok, nil
}

func (t *tokens) explain(err error) error {
	who := "the token endpoint " + t.sasl.TokenURL
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) && refused.Response != nil {
		// Its own text has the whole answer in it, whatever that is.
		said := errors.New(strings.TrimSpace(refused.Response.Status + " " + refused.ErrorCode + " " + refused.ErrorDescription))
		if refused.Response.StatusCode >= 500 {
			return fmt.Errorf("fetch a token for kafka: %s: %w", who, said)
		}
		return &Error{Says: who + " gives us no token", Err: said,
			Settings: []string{"kafka.sasl.client_id", inUse("kafka.sasl.client_secret", t.sasl.ClientSecretFile), "kafka.sasl.scope"}}
	}
	if e := handshake(err, who, "kafka.sasl.token_", "kafka.sasl.token_url"); e != nil {
		return e
	}
	return fmt.Errorf("fetch a token for kafka: %w", err)
}

// expiry is a JSON Web Token's (RFC 7519, 4.1.4), unverified: it only decides when the next is fetched.
func expiry(token string) time.Time {
	if parts := strings.Split(token, "."); len(parts) == 3 {
		var claims struct {
			Exp float64 `json:"exp"`
		}
		if b, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil && json.Unmarshal(b, &claims) == nil && claims.Exp > 0 {
			return time.Unix(int64(claims.Exp), 0)
		}
	}
	return time.Now().Add(tokenLifetime)
}
