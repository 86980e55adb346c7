package security

import (
	"encoding/base64"
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
	kp := keep(k, cl, time.Millisecond)
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

// A refusal is told once, however it is worded, and again after it had worked; what is not one is not the keeper's.
func TestKeeperTellsOnce(t *testing.T) {
	kp := Keep(&config.Kafka{SASL: config.SASL{Mechanism: config.Scram512, PasswordFile: secretFile(t, "p")}}, newFakeClient())
	defer kp.Stop()
	refused := func(n int) kafka.Error {
		return kafkaError(kafka.ErrAuthentication, fmt.Sprintf("sasl_ssl://b%d:1: SASL authentication error: no (after %dms in state AUTH_REQ)", n, n))
	}
	_, mine := kp.Event(kafkaError(kafka.ErrAllBrokersDown, "1/1 brokers are down"))
	require.False(t, mine, "nothing was refused yet")
	for range 2 {
		err, mine := kp.Event(refused(1))
		require.True(t, mine)
		require.EqualError(t, err, "kafka does not accept who we say we are: sasl_ssl://b1:1: SASL authentication error: no: see kafka.sasl.mechanism "+
			"(EXACTLY_KAFKA_SASL_MECHANISM), kafka.sasl.username (EXACTLY_KAFKA_SASL_USERNAME) and kafka.sasl.password_file (EXACTLY_KAFKA_SASL_PASSWORD_FILE)")
		var ke kafka.Error
		require.ErrorAs(t, err, &ke, "its class is still to be had")
		for n := range 3 {
			err, mine = kp.Event(refused(n))
			require.NoError(t, err)
			require.True(t, mine)
		}
		_, mine = kp.Event(kafkaError(kafka.ErrAllBrokersDown, "1/1 brokers are down"))
		require.True(t, mine, "why was said")
		err, _ = kp.Event(kafkaError(kafka.ErrSsl, "ssl://b:1: handshake failed (after 3ms in state SSL_HANDSHAKE)"))
		require.ErrorContains(t, err, "no TLS with kafka")
		kp.Works()
	}
	_, mine = kp.Event(kafkaError(kafka.ErrTransport, "x"))
	require.False(t, mine)
	require.EqualError(t, kp.Explain(kafkaError(kafka.ErrTransport, "b:1: Disconnected (after 12ms in state UP)")), "b:1: Disconnected")
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
	kp := Keep(&config.Kafka{SASL: *s}, cl)
	_, mine := kp.Event(kafka.OAuthBearerTokenRefresh{})
	require.True(t, mine)
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
