package security

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/internal/config"
)

// Explain turns a refusal that a client tells in its own words into an *Error; any other error it returns as it is.
func Explain(c *config.Config, err error) error {
	if err == nil || errors.As(err, new(*Error)) {
		return err
	}
	var pg *pgconn.ConnectError
	if errors.As(err, &pg) {
		if e := postgres(&c.Postgres, pg, err); e != nil {
			return e
		}
		return err
	}
	if e := kafkaRefusal(&c.Kafka, err); e != nil {
		return e
	}
	return err
}

// postgres explains why a connection was refused; nil if it was not, and the server is merely away.
func postgres(p *config.Postgres, c *pgconn.ConnectError, err error) *Error {
	who := "postgres at " + c.Config.Host
	dsn := inUse("postgres.dsn", p.DSNFile)
	var answer *pgconn.PgError
	var op *net.OpError
	var timeout net.Error
	if errors.As(err, &answer) {
		switch answer.Code {
		case "28P01": // invalid_password
			return &Error{Says: who + " does not accept the user or password", Err: err, Settings: []string{dsn, inUse("postgres.password", p.PasswordFile)}}
		case "28000": // invalid_authorization_specification: no such role, no line in pg_hba.conf, no certificate
			return &Error{Says: who + " refuses us", Err: err, Settings: []string{dsn}}
		}
		return nil // starting up, shutting down, too many connections
	}
	if e := handshake(err, who, "", dsn); e != nil {
		e.Settings = []string{dsn} // sslrootcert, sslcert and sslkey are in it
		return e
	}
	if errors.As(err, &op) || errors.As(err, &timeout) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || ctxDone(err) {
		return nil // away
	}
	// It is there, it does not answer with an error of SQL, and the connection did not break: it does not do TLS, or not as we do.
	return &Error{Says: who + " can't be spoken to in the way that is set", Err: err, Settings: []string{dsn}}
}

func ctxDone(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// inUse is the setting a secret comes from: itself, or the one that names its file.
func inUse(setting, file string) string {
	if file != "" {
		return setting + "_file"
	}
	return setting
}

// kafkaRefusal explains what franz-go returns when a broker refuses us. Errors of TLS are explained where they arise, in dialer.
func kafkaRefusal(k *config.Kafka, err error) *Error {
	who := "kafka at " + k.Brokers
	credentials := []string{"kafka.sasl.username", inUse("kafka.sasl.password", k.SASL.PasswordFile)}
	if k.SASL.Mechanism == config.OAuthBearer {
		credentials = []string{"kafka.sasl.client_id", "kafka.sasl.scope", "kafka.sasl.token_url"}
	}
	var eof *kgo.ErrFirstReadEOF
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		if k.SASL.Mechanism == config.OAuthBearer {
			return &Error{Says: who + " does not accept the token", Err: err, Settings: credentials}
		}
		return &Error{Says: who + " does not accept the user or password", Err: err, Settings: credentials}
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return &Error{Says: who + " does not offer the SASL mechanism " + k.SASL.Mechanism, Err: err, Settings: []string{"kafka.sasl.mechanism"}}
	case errors.Is(err, kerr.IllegalSaslState):
		return &Error{Says: who + " does not ask who we are on that port", Err: err, Settings: []string{"kafka.sasl.mechanism", "kafka.brokers"}}
	case errors.As(err, &eof) && k.SASL.Mechanism == "":
		return &Error{Says: who + " hangs up on us: most likely it wants to know who we are (SASL)", Err: err, Guess: true,
			Settings: []string{"kafka.sasl.mechanism", "kafka.tls.enabled"}}
	}
	return nil
}

// KafkaCode is the error code of Kafka's protocol in an error of either client; 0 if there is none.
func KafkaCode(err error) int16 {
	var of *kerr.Error
	var rd kafka.Error
	switch {
	case errors.As(err, &of):
		return of.Code
	case errors.As(err, &rd) && rd.Code() > 0: // below are librdkafka's own
		return int16(rd.Code())
	}
	return 0
}

// Undelivered says that librdkafka ended a transaction for messages that a broker did not take, which does not tell why: that is in their
// delivery reports alone.
func Undelivered(err error) bool {
	var rd kafka.Error
	return errors.As(err, &rd) && rd.Code() == kafka.ErrInconsistent
}
