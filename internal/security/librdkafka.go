package security

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"

	"github.com/exactly-pipeline/exactly/internal/config"
)

// Secure adds the settings to those of a librdkafka client. librdkafka reads certificates now, and never again.
func Secure(m kafka.ConfigMap, k *config.Kafka) error {
	protocol := "plaintext"
	if k.TLS.Enabled {
		protocol = "ssl"
		m["enable.ssl.certificate.verification"] = true
		m["ssl.endpoint.identification.algorithm"] = "https"
		for name, file := range map[string]string{"ssl.ca.location": k.TLS.CA, "ssl.certificate.location": k.TLS.Cert, "ssl.key.location": k.TLS.Key} {
			if file != "" {
				m[name] = file
			}
		}
	}
	if s := &k.SASL; s.Mechanism != "" {
		protocol = map[string]string{"plaintext": "sasl_plaintext", "ssl": "sasl_ssl"}[protocol]
		m["sasl.mechanisms"] = s.Mechanism
		if s.Mechanism != config.OAuthBearer { // its tokens come by events: see Keeper
			password, err := s.GetPassword()
			if err != nil {
				return &Error{Says: "make a kafka client", Err: err}
			}
			m["sasl.username"], m["sasl.password"] = s.Username, password
		}
	}
	m["security.protocol"] = protocol
	return nil
}

// Client is a librdkafka client, as far as its credentials go: producer or consumer.
type Client interface {
	SetSaslCredentials(username, password string) error
	SetOAuthBearerToken(kafka.OAuthBearerToken) error
	SetOAuthBearerTokenFailure(string) error
}

// lookEvery is how soon a changed password file is seen.
const lookEvery = 2 * time.Second

// Keeper keeps one librdkafka client's credentials what the files and the token endpoint say, and tells its refusals: each once.
type Keeper struct {
	k      *config.Kafka
	cl     Client
	tokens *tokens
	ctx    context.Context
	end    context.CancelFunc
	beside sync.WaitGroup

	password string // the client has it; look's own
	every    time.Duration

	mu      sync.Mutex
	stopped bool
	said    map[kafka.ErrorCode]bool // since it last worked
	refused atomic.Bool              // there is something in said
}

// Keep begins to look after a client's credentials. Stop must come before the client's Close.
func Keep(k *config.Kafka, cl Client) *Keeper { return keep(k, cl, lookEvery) }

func keep(k *config.Kafka, cl Client, every time.Duration) *Keeper {
	kp := &Keeper{k: k, cl: cl, every: every, tokens: &tokens{sasl: &k.SASL}, said: map[kafka.ErrorCode]bool{}}
	kp.ctx, kp.end = context.WithCancel(context.Background())
	if s := &k.SASL; s.Mechanism != "" && s.Mechanism != config.OAuthBearer && s.PasswordFile != "" {
		kp.password, _ = s.GetPassword() // an error now is one at the next look, too
		kp.beside.Go(kp.look)
	}
	return kp
}

// Stop ends it; the client is not touched any more. It may be called twice.
func (k *Keeper) Stop() {
	k.mu.Lock()
	k.stopped = true
	k.mu.Unlock()
	k.end()
	k.beside.Wait()
}

func (k *Keeper) look() {
	t := time.NewTicker(k.every)
	defer t.Stop()
	for {
		select {
		case <-k.ctx.Done():
			return
		case <-t.C:
			password, err := k.k.SASL.GetPassword()
			if err != nil || password == k.password {
				continue // a file that is being replaced; what comes of one that is gone, the next refusal tells
			}
			if k.cl.SetSaslCredentials(k.k.SASL.Username, password) == nil {
				k.password = password
			}
		}
	}
}

// Event takes a client's event if it is about credentials, and returns the refusal if there is one that was not told since Works.
// mine is false for events of other kinds.
func (k *Keeper) Event(e kafka.Event) (refusal error, mine bool) {
	switch e := e.(type) {
	case kafka.OAuthBearerTokenRefresh:
		k.mu.Lock()
		defer k.mu.Unlock()
		if !k.stopped {
			k.beside.Go(k.refresh)
		}
		return nil, true
	case kafka.Error:
		if err := k.Explain(e); Refused(err) {
			return k.once(e.Code(), err), true
		}
		return nil, e.Code() == kafka.ErrAllBrokersDown && k.refused.Load() // the reason was said
	}
	return nil, false
}

// Works says that the brokers accept us: the next refusal is told again.
func (k *Keeper) Works() {
	if !k.refused.Load() {
		return // as ever: this is called for each record
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.said)
	k.refused.Store(false)
}

// once: librdkafka has several texts for one refusal, and each broker's has its address.
func (k *Keeper) once(code kafka.ErrorCode, err error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.said[code] {
		return nil
	}
	k.said[code] = true
	k.refused.Store(true)
	return err
}

// refresh fetches a token. librdkafka asks again in ten seconds after a failure, and tells it as an error of its own.
func (k *Keeper) refresh() {
	tok, err := k.tokens.get(k.ctx)
	if err == nil {
		err = k.cl.SetOAuthBearerToken(kafka.OAuthBearerToken{TokenValue: tok.AccessToken, Expiration: tok.Expiry, Principal: k.k.SASL.ClientID})
	}
	if err != nil && k.ctx.Err() == nil {
		_ = k.cl.SetOAuthBearerTokenFailure(err.Error())
	}
}

// Explain turns librdkafka's words for a refusal into an *Error. Any other error stays what it is, in the same words each time.
func (k *Keeper) Explain(err error) error {
	var e kafka.Error
	if !errors.As(err, &e) || Refused(err) {
		return err
	}
	s := &k.k.SASL
	// What librdkafka adds at the end (after 3ms in state AUTH_REQ) differs each time, and says nothing to whom it concerns.
	text, _, _ := strings.Cut(e.Error(), " (after ")
	switch e.Code() {
	case kafka.ErrAuthentication, kafka.ErrSaslAuthenticationFailed:
		r := &Error{Says: "kafka does not accept who we say we are", Err: worded{text, e}, Settings: []string{"kafka.sasl.mechanism", "kafka.sasl.username", inUse("kafka.sasl.password", s.PasswordFile)}}
		if s.Mechanism == config.OAuthBearer {
			r.Settings = []string{"kafka.sasl.token_url", "kafka.sasl.client_id", inUse("kafka.sasl.client_secret", s.ClientSecretFile)}
		}
		return r
	case kafka.ErrSsl:
		r := &Error{Says: "no TLS with kafka", Err: worded{text, e}, Settings: []string{"kafka.tls.ca", "kafka.brokers"}}
		if k.k.TLS.Cert != "" {
			r.Settings = []string{"kafka.tls.ca", "kafka.tls.cert", "kafka.brokers"}
			r.Err = worded{text + "; certificates that were replaced are used after a restart", e}
		}
		return r
	}
	return worded{text, e}
}

// worded is an error in other words.
type worded struct {
	text string
	err  error
}

func (w worded) Error() string { return w.text }
func (w worded) Unwrap() error { return w.err }
