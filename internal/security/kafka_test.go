package security

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/testca"
)

func TestMain(m *testing.M) {
	// librdkafka's Go client leaves a goroutine behind that handles signals of its loggers; kgo's clients end a little after Close.
	goleak.VerifyTestMain(m)
}

func broker(t *testing.T, opts ...kfake.Opt) string {
	t.Helper()
	k, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1), kfake.SeedTopics(1, "t")}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(k.Close)
	return k.ListenAddrs()[0]
}

// franz asks the broker for its topics, as franz-go does.
func franz(t *testing.T, k *config.Kafka) error {
	t.Helper()
	cl, err := kgo.NewClient(append(KafkaOptions(k), kgo.SeedBrokers(k.Brokers), kgo.RetryTimeout(2*time.Second))...)
	require.NoError(t, err)
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err = kmsg.NewPtrMetadataRequest().RequestWith(ctx, cl)
	return Explain(&config.Config{Kafka: *k}, err)
}

// rd does the same as librdkafka does, and returns the refusal its keeper tells.
func rd(t *testing.T, k *config.Kafka) error {
	t.Helper()
	m := kafka.ConfigMap{"bootstrap.servers": k.Brokers, "reconnect.backoff.ms": 10, "log_level": 0}
	require.NoError(t, Secure(m, k))
	p, err := kafka.NewProducer(&m)
	require.NoError(t, err)
	told := make(chan error, 9)
	keeper := Keep(k, p, func(err error) { told <- err })
	defer p.Close()
	defer keeper.Stop()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if _, err = p.GetMetadata(nil, false, 100); err == nil {
			return nil
		}
		for len(p.Events()) > 0 {
			keeper.Event(<-p.Events())
		}
		select {
		case why := <-told:
			require.True(t, Refused(why))
			return why
		default:
		}
	}
	return err
}

func secretFile(t *testing.T, content string) string {
	path := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// Both clients get in with each mechanism, over TLS and without.
func TestMechanisms(t *testing.T) {
	ca := testca.New(t)
	for _, mechanism := range []string{config.Plain, config.Scram256, config.Scram512} {
		for _, encrypted := range []bool{false, true} {
			opts := []kfake.Opt{kfake.EnableSASL(), kfake.Superuser(mechanism, "u", "p=a,s")}
			k := &config.Kafka{SASL: config.SASL{Mechanism: mechanism, Username: "u", PasswordFile: secretFile(t, "p=a,s\n")}}
			if encrypted {
				opts = append(opts, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{ca.Server().TLS}}))
				k.TLS = config.KafkaTLS{Enabled: true, CA: ca.File}
			}
			k.Brokers = broker(t, opts...)
			require.NoError(t, franz(t, k), mechanism)
			require.NoError(t, rd(t, k), mechanism)
		}
	}
}

// What is wrong with TLS is said by both clients, with the setting to look at; franz-go's side says exactly what.
func TestTLSRefusals(t *testing.T) {
	ca, other := testca.New(t), testca.New(t)
	server := func(p testca.Pair) kfake.Opt { return kfake.TLS(&tls.Config{Certificates: []tls.Certificate{p.TLS}}) }
	mutual := kfake.TLS(&tls.Config{Certificates: []tls.Certificate{ca.Server().TLS}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool})
	good, expired, stranger := ca.Client("worker"), ca.ExpiredClient("worker"), other.Client("worker")
	for name, c := range map[string]struct {
		broker kfake.Opt
		tls    config.KafkaTLS
		says   []string // nothing: it works
	}{
		"good":              {server(ca.Server()), config.KafkaTLS{CA: ca.File}, nil},
		"untrusted":         {server(ca.Server()), config.KafkaTLS{CA: other.File}, []string{"signed by nobody trusted here", "see kafka.tls.ca (EXACTLY_KAFKA_TLS_CA)"}},
		"untrusted, system": {server(ca.Server()), config.KafkaTLS{}, []string{"signed by nobody trusted here", "see kafka.tls.ca (EXACTLY_KAFKA_TLS_CA)"}},
		"expired":           {server(ca.Expired()), config.KafkaTLS{CA: ca.File}, []string{"has expired"}},
		"wrong host":        {server(ca.WrongHost()), config.KafkaTLS{CA: ca.File}, []string{"is for another host", "see kafka.brokers (EXACTLY_KAFKA_BROKERS)"}},
		"mutual":            {mutual, config.KafkaTLS{CA: ca.File, Cert: good.Cert, Key: good.Key}, nil},
		"mutual, none":      {mutual, config.KafkaTLS{CA: ca.File}, []string{"refuses our side of the TLS handshake", "kafka.tls.cert (EXACTLY_KAFKA_TLS_CERT)"}},
		"mutual, expired":   {mutual, config.KafkaTLS{CA: ca.File, Cert: expired.Cert, Key: expired.Key}, []string{"refuses our side of the TLS handshake", "kafka.tls.cert"}},
		"mutual, stranger":  {mutual, config.KafkaTLS{CA: ca.File, Cert: stranger.Cert, Key: stranger.Key}, []string{"refuses our side of the TLS handshake", "kafka.tls.cert"}},
	} {
		t.Run(name, func(t *testing.T) {
			k := &config.Kafka{Brokers: broker(t, c.broker), TLS: c.tls}
			k.TLS.Enabled = true
			check := func(err error, says []string) {
				if says == nil {
					require.NoError(t, err)
					return
				}
				require.Error(t, err)
				for _, s := range says {
					require.ErrorContains(t, err, s)
				}
			}
			err := franz(t, k)
			check(err, c.says)
			if c.says != nil {
				require.True(t, Refused(err))
				require.ErrorContains(t, err, "kafka broker "+k.Brokers)
			}
			check(rd(t, k), c.says) // also where librdkafka calls it but a connection that breaks: our certificate refused
		})
	}
}

// TLS where none is spoken, and none where it is.
func TestTLSOrNot(t *testing.T) {
	ca := testca.New(t)
	answers := func(what ...byte) string { // to whatever it is asked first, and hangs up
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = conn.Read(make([]byte, 4096))
				_, _ = conn.Write(what)
				_ = conn.Close()
			}
		}()
		return l.Addr().String()
	}
	k := &config.Kafka{Brokers: answers(21, 3, 3, 0, 2, 2, 80)} // the alert of Java's TLS to what is no TLS
	err := franz(t, k)
	require.True(t, Refused(err), "%v", err)
	require.ErrorContains(t, err, "kafka broker "+k.Brokers+" speaks TLS, and we don't: see kafka.tls.enabled (EXACTLY_KAFKA_TLS_ENABLED)")
	k = &config.Kafka{Brokers: answers(), TLS: config.KafkaTLS{Enabled: true, CA: ca.File}}
	err = franz(t, k)
	require.False(t, Refused(err), "a broker that stops looks the same")
	require.ErrorContains(t, err, "kafka broker "+k.Brokers+" hung up in the TLS handshake: most likely it does not speak TLS there: see kafka.brokers")
}

// Rotated files count at the next connection: password, authority, own certificate.
func TestRotation(t *testing.T) {
	ca, next := testca.New(t), testca.New(t)
	addr := broker(t, kfake.EnableSASL(), kfake.Superuser(config.Scram512, "u", "new"), kfake.TLS(&tls.Config{
		Certificates: []tls.Certificate{next.Server().TLS}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: next.Pool}))
	old, fresh := ca.Client("u"), next.Client("u")
	dir := t.TempDir()
	file := func(name, from string) string {
		b, err := os.ReadFile(from)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
		return filepath.Join(dir, name)
	}
	k := &config.Kafka{Brokers: addr, TLS: config.KafkaTLS{Enabled: true, CA: file("ca", ca.File), Cert: file("cert", old.Cert), Key: file("key", old.Key)},
		SASL: config.SASL{Mechanism: config.Scram512, Username: "u", PasswordFile: secretFile(t, "old")}}
	cl, err := kgo.NewClient(append(KafkaOptions(k), kgo.SeedBrokers(addr), kgo.RetryTimeout(time.Second))...)
	require.NoError(t, err)
	defer cl.Close()
	ask := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, cl)
		return err
	}
	require.ErrorContains(t, ask(), "signed by nobody trusted here")
	file("ca", next.File)
	require.ErrorContains(t, ask(), "refuses our side")
	file("cert", fresh.Cert)
	require.ErrorContains(t, ask(), "kafka.tls.cert", "half replaced")
	file("key", fresh.Key)
	require.Error(t, ask())
	require.NoError(t, os.WriteFile(k.SASL.PasswordFile, []byte("new\n"), 0o600))
	require.NoError(t, ask())
}
