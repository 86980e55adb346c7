package security

import (
	"strings"

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

// ExplainEvent turns librdkafka's words for a refusal into an *Error. Any other error stays what it is, in the same words each time.
func ExplainEvent(k *config.Kafka, e kafka.Error) error {
	s := &k.SASL
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
		if k.TLS.Cert != "" {
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
