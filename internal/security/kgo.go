package security

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/exactly-pipeline/exactly/internal/config"
)

const (
	connectTimeout   = 3 * time.Second
	handshakeTimeout = 5 * time.Second
)

// KafkaOptions are the options of every franz-go client. Certificates are read at each new connection, secrets at each authentication.
func KafkaOptions(k *config.Kafka) []kgo.Opt {
	opts := []kgo.Opt{kgo.Dialer((&dialer{k}).dial)}
	var m sasl.Mechanism
	switch s := &k.SASL; s.Mechanism {
	case config.Plain:
		m = plain.Plain(func(context.Context) (plain.Auth, error) {
			p, err := s.GetPassword()
			return plain.Auth{User: s.Username, Pass: p}, err
		})
	case config.Scram256, config.Scram512:
		auth := func(context.Context) (scram.Auth, error) {
			p, err := s.GetPassword()
			return scram.Auth{User: s.Username, Pass: p}, err
		}
		if m = scram.Sha512(auth); s.Mechanism == config.Scram256 {
			m = scram.Sha256(auth)
		}
	case config.OAuthBearer:
		t := &tokens{sasl: s}
		m = oauth.Oauth(func(ctx context.Context) (oauth.Auth, error) {
			tok, err := t.get(ctx)
			if err != nil {
				return oauth.Auth{}, err
			}
			return oauth.Auth{Token: tok.AccessToken}, nil
		})
	}
	if m != nil {
		opts = append(opts, kgo.SASL(m))
	}
	return opts
}

// NewClient is a franz-go client with these settings and no others, for a few requests.
func NewClient(k *config.Kafka) (*kgo.Client, error) {
	return kgo.NewClient(append(KafkaOptions(k), kgo.SeedBrokers(strings.Split(k.Brokers, ",")...), kgo.RetryTimeout(5*time.Second))...)
}

// Probe asks any broker for anything. A refusal is explained (*Error).
func Probe(ctx context.Context, k *config.Kafka) error {
	cl, err := NewClient(k)
	if err != nil {
		return err
	}
	defer cl.Close()
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	_, err = req.RequestWith(ctx, cl)
	if err != nil {
		err = fmt.Errorf("ask kafka for its brokers: %w", err)
	}
	return Explain(&config.Config{Kafka: *k}, err)
}

// dialer connects to brokers, with TLS if that is set.
type dialer struct{ k *config.Kafka }

func (d *dialer) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	raw, err := (&net.Dialer{Timeout: connectTimeout}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	if !d.k.TLS.Enabled {
		return &plainConn{Conn: raw, addr: addr}, nil
	}
	conn, err := d.secure(ctx, raw, addr)
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

func (d *dialer) secure(ctx context.Context, raw net.Conn, addr string) (net.Conn, error) {
	tc, err := d.k.TLS.Config()
	if err != nil {
		return nil, &Error{Says: "connect to kafka broker " + addr, Err: err}
	}
	if tc.ServerName, _, err = net.SplitHostPort(addr); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn := tls.Client(raw, tc)
	err = conn.HandshakeContext(ctx)
	if err == nil {
		return &tlsConn{Conn: conn, addr: addr}, nil
	}
	if e := handshake(err, "kafka broker "+addr, "kafka.tls.", "kafka.brokers", "kafka.tls.enabled"); e != nil {
		return nil, e
	}
	if errors.Is(err, io.EOF) { // Kafka takes a TLS greeting on a plaintext listener for a request of impossible size, and hangs up
		// Not wrapped: franz-go takes an EOF for its own to explain.
		return nil, &Error{Says: "kafka broker " + addr + " hung up in the TLS handshake: most likely it does not speak TLS there", Guess: true,
			Settings: []string{"kafka.brokers", "kafka.tls.enabled"}}
	}
	return nil, fmt.Errorf("TLS handshake with kafka broker %s: %w", addr, err)
}

// tlsConn explains what a broker says of our certificate: with TLS 1.3 it does so after the handshake, to the first who reads.
type tlsConn struct {
	net.Conn
	addr string
	told atomic.Bool
}

func (c *tlsConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && n == 0 && !c.told.Swap(true) {
		if e := handshake(err, "kafka broker "+c.addr, "kafka.tls.", "kafka.brokers"); e != nil {
			return 0, e
		}
	}
	if n > 0 {
		c.told.Store(true)
	}
	return n, err
}

// plainConn recognises a TLS alert (RFC 8446, 6) where an answer of Kafka's should begin: the size of one that began so would be 353 MB.
type plainConn struct {
	net.Conn
	addr string
	read atomic.Bool
}

func (c *plainConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n >= 2 && !c.read.Swap(true) && b[0] == 21 && b[1] == 3 {
		return 0, &Error{Says: "kafka broker " + c.addr + " speaks TLS, and we don't", Settings: []string{"kafka.tls.enabled", "kafka.brokers"}}
	}
	return n, err
}
