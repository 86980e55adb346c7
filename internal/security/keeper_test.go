package security

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/testca"
)

// fakeClient notes what it is given.
type fakeClient struct {
	passwords, failures chan string
	tokens              chan kafka.OAuthBearerToken
}

func newFakeClient() *fakeClient {
	return &fakeClient{make(chan string, 9), make(chan string, 9), make(chan kafka.OAuthBearerToken, 9)}
}

func (f *fakeClient) SetSaslCredentials(user, password string) error {
	f.passwords <- user + ":" + password
	return nil
}
func (f *fakeClient) SetOAuthBearerToken(t kafka.OAuthBearerToken) error { f.tokens <- t; return nil }
func (f *fakeClient) SetOAuthBearerTokenFailure(s string) error          { f.failures <- s; return nil }

// A client is given the new password once its file has it, and once only.
func TestKeeperFollowsFile(t *testing.T) {
	cl := newFakeClient()
	k := &config.Kafka{SASL: config.SASL{Mechanism: config.Scram512, Username: "u", PasswordFile: secretFile(t, "old\n")}}
	kp := keep(k, cl, nil, time.Millisecond, nil)
	defer kp.Stop()
	require.NoError(t, os.WriteFile(k.SASL.PasswordFile, nil, 0o600)) // as an editor leaves it for a moment
	require.NoError(t, os.WriteFile(k.SASL.PasswordFile, []byte("new\n"), 0o600))
	require.Equal(t, "u:new", <-cl.passwords)
	require.NoError(t, os.Remove(k.SASL.PasswordFile))
	require.NoError(t, os.WriteFile(k.SASL.PasswordFile, []byte("newer"), 0o600))
	require.Equal(t, "u:newer", <-cl.passwords)
	kp.Stop()
	require.Empty(t, cl.passwords)
}

func kafkaError(code kafka.ErrorCode, text string) kafka.Error {
	return kafka.NewError(code, text, false)
}

// prober answers probes with what it is told to, and is asked by ask.
type prober struct {
	asked chan struct{}
	why   chan error
}

func (p prober) probe(ctx context.Context) error {
	p.asked <- struct{}{}
	select {
	case err := <-p.why:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A suspicion is told once if a probe confirms it, and again after it had worked; what is no suspicion is not the keeper's.
func TestKeeperTellsOnce(t *testing.T) {
	p := prober{make(chan struct{}), make(chan error)}
	told := make(chan error, 9)
	kp := keep(&config.Kafka{}, newFakeClient(), func(err error) { told <- err }, time.Hour, p.probe)
	defer kp.Stop()
	refused := &Error{Says: "no"}
	answer := func(err error) { // to the probe that is under way
		<-p.asked
		p.why <- err
		require.Eventually(t, func() bool { kp.mu.Lock(); defer kp.mu.Unlock(); return !kp.asking }, time.Minute, time.Millisecond)
		kp.mu.Lock()
		kp.asked = time.Time{} // as if it were long ago
		kp.mu.Unlock()
	}
	auth := kafkaError(kafka.ErrAuthentication, "b:1: SASL authentication error: no (after 3ms in state AUTH_REQ)")
	down := kafkaError(kafka.ErrAllBrokersDown, "1/1 brokers are down")
	require.False(t, kp.Event(down), "perhaps they are down")
	require.True(t, kp.Event(auth), "one probe at a time")
	answer(errors.New("connection refused"))
	require.Empty(t, told, "it is away")
	for range 2 {
		require.False(t, kp.Event(down))
		answer(refused)
		require.Equal(t, error(refused), <-told)
		require.True(t, kp.Event(auth))
		require.True(t, kp.Event(down), "why was said")
		require.Empty(t, told)
		kp.Works()
	}
	for range maxDoubts - 1 { // one connection in many broke
		kp.Event(auth)
		answer(nil)
		require.Empty(t, told)
	}
	kp.Event(auth)
	answer(nil)
	require.ErrorContains(t, <-told, "kafka does not accept who we say we are: b:1: SASL authentication error: no: see kafka.sasl.mechanism")
	kp.Works()
	kp.Event(kafkaError(kafka.ErrSsl, "b:1: certificate verify failed (after 3ms in state SSL_HANDSHAKE)"))
	answer(nil) // the probe has the new certificates, the client the old ones
	require.ErrorContains(t, <-told, "no TLS with kafka")
	require.False(t, kp.Event(kafkaError(kafka.ErrTransport, "x")))
	kp.Works()
	kp.Event(auth)
	<-p.asked
	kp.Stop() // in the middle of a probe
	require.Empty(t, told)
	require.False(t, kp.Event(down))
}

// librdkafka's words are the same each time, and keep their class.
func TestExplainEvent(t *testing.T) {
	k := &config.Kafka{SASL: config.SASL{Mechanism: config.Scram512, PasswordFile: "f"}, TLS: config.KafkaTLS{Cert: "c"}}
	err := ExplainEvent(k, kafkaError(kafka.ErrAuthentication, "b:1: no (after 3ms in state AUTH_REQ)"))
	require.EqualError(t, err, "kafka does not accept who we say we are: b:1: no: see kafka.sasl.mechanism (EXACTLY_KAFKA_SASL_MECHANISM), "+
		"kafka.sasl.username (EXACTLY_KAFKA_SASL_USERNAME) and kafka.sasl.password_file (EXACTLY_KAFKA_SASL_PASSWORD_FILE)")
	var ke kafka.Error
	require.ErrorAs(t, err, &ke)
	require.ErrorContains(t, ExplainEvent(k, kafkaError(kafka.ErrSsl, "b:1: no")), "certificates that were replaced are used after a restart: see kafka.tls.ca")
	require.EqualError(t, ExplainEvent(k, kafkaError(kafka.ErrTransport, "b:1: Disconnected (after 12ms in state UP)")), "b:1: Disconnected")
	k.SASL.Mechanism = config.OAuthBearer
	require.ErrorContains(t, ExplainEvent(k, kafkaError(kafka.ErrAuthentication, "no token")), "see kafka.sasl.token_url")
}

// endpoint is a token endpoint that knows one secret, and issues one token after the other.
type endpoint struct {
	*httptest.Server
	mu      sync.Mutex
	secret  string
	expires string // of the answer, JSON
	status  int
	issued  int
	scopes  []string
	token   string // issued, in place of a number
}

func tokenEndpoint(t *testing.T, ca *testca.CA) *endpoint {
	e := &endpoint{secret: "s3cret", expires: `"expires_in":300,`}
	e.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		user, password, _ := r.BasicAuth()
		w.Header().Set("Content-Type", "application/json")
		if e.status != 0 {
			w.WriteHeader(e.status)
			return
		}
		if user != "id" || password != e.secret || r.FormValue("grant_type") != "client_credentials" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = fmt.Fprintf(w, `{"error":"invalid_client","error_description":"no such client","you_sent":%q}`, password)
			return
		}
		e.issued++
		e.scopes = append(e.scopes, r.FormValue("scope"))
		token := fmt.Sprint("token-", e.issued)
		if e.token != "" {
			token = e.token
		}
		_, _ = fmt.Fprintf(w, `{%s"token_type":"Bearer","access_token":%q}`, e.expires, token)
	}))
	e.Config.ErrorLog = discard
	if ca == nil {
		e.Start()
	} else {
		e.TLS = serverTLS(ca.Server())
		e.StartTLS()
	}
	t.Cleanup(e.Close)
	return e
}

func (e *endpoint) set(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f()
}

func oauthSettings(t *testing.T, e *endpoint) *config.SASL {
	return &config.SASL{Mechanism: config.OAuthBearer, TokenURL: e.URL + "/token", ClientID: "id", ClientSecretFile: secretFile(t, "s3cret\n"), Scope: "a  b"}
}

// A token serves until three quarters of its life are over; then the secret is read anew.
func TestTokens(t *testing.T) {
	e := tokenEndpoint(t, nil)
	s := oauthSettings(t, e)
	tk := &tokens{sasl: s}
	get := func() string {
		tok, err := tk.get(t.Context())
		require.NoError(t, err)
		return tok.AccessToken
	}
	require.Equal(t, "token-1", get())
	require.Equal(t, "token-1", get())
	require.Equal(t, []string{"a b"}, e.scopes)
	tk.fetched = tk.fetched.Add(-20 * time.Minute) // 5 of 25 minutes are left
	e.set(func() { e.secret = "other" })
	_, err := tk.get(t.Context())
	require.True(t, Refused(err))
	require.ErrorContains(t, err, "the token endpoint "+s.TokenURL+" gives us no token: 401 Unauthorized invalid_client no such client: see kafka.sasl.client_id")
	require.ErrorContains(t, err, "kafka.sasl.client_secret_file")
	require.NotContains(t, err.Error(), "s3cret", "the endpoint's whole answer is not repeated")
	require.NoError(t, os.WriteFile(s.ClientSecretFile, []byte("other"), 0o600))
	require.Equal(t, "token-2", get())
	e.set(func() { e.status = http.StatusServiceUnavailable })
	tk.last = nil
	_, err = tk.get(t.Context())
	require.ErrorContains(t, err, "503")
	require.False(t, Refused(err), "an endpoint in trouble is no refusal")
}

// A token's end is in the answer, or in the token, or soon.
func TestTokenExpiry(t *testing.T) {
	e := tokenEndpoint(t, nil)
	tk := &tokens{sasl: oauthSettings(t, e)}
	exp := time.Now().Add(42 * time.Minute).Truncate(time.Second)
	e.set(func() {
		e.expires = ""
		e.token = "h." + base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, exp.Unix())) + ".s"
	})
	tok, err := tk.get(t.Context())
	require.NoError(t, err)
	require.True(t, tok.Expiry.Equal(exp))
	for _, opaque := range []string{"opaque", "a.b.c", "a.e30.c"} {
		require.WithinDuration(t, time.Now().Add(tokenLifetime), expiry(opaque), time.Minute)
	}
}

// The endpoint's certificate is verified.
func TestTokenEndpointTLS(t *testing.T) {
	ca := testca.New(t)
	s := oauthSettings(t, tokenEndpoint(t, ca))
	_, err := (&tokens{sasl: s}).get(t.Context())
	require.True(t, Refused(err))
	require.ErrorContains(t, err, "see kafka.sasl.token_ca (EXACTLY_KAFKA_SASL_TOKEN_CA)")
	s.TokenCA = ca.File
	_, err = (&tokens{sasl: s}).get(t.Context())
	require.NoError(t, err)
}

// librdkafka asks for a token, and is given one, or why there is none.
func TestKeeperFetchesToken(t *testing.T) {
	e := tokenEndpoint(t, nil)
	s := oauthSettings(t, e)
	cl := newFakeClient()
	kp := Keep(&config.Kafka{SASL: *s}, cl, nil)
	require.True(t, kp.Event(kafka.OAuthBearerTokenRefresh{}))
	tok := <-cl.tokens
	require.Equal(t, []string{"token-1", "id"}, []string{tok.TokenValue, tok.Principal})
	require.WithinDuration(t, time.Now().Add(5*time.Minute), tok.Expiration, time.Minute)
	e.set(func() { e.secret = "other" })
	kp.tokens.last = nil
	kp.Event(kafka.OAuthBearerTokenRefresh{})
	require.Contains(t, <-cl.failures, "gives us no token: 401")
	kp.Stop()
	kp.Event(kafka.OAuthBearerTokenRefresh{}) // comes while the client closes
	kp.Stop()
	require.Empty(t, cl.tokens)
	require.Empty(t, cl.failures)
}
