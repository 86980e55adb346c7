// Package security owns how connections are secured and what is said when they are refused: TLS, SASL and tokens, from the settings
// to what each client takes: franz-go, librdkafka, the registry's HTTP, Postgres.
//
// It promises that a secret in a file is read when it is needed, and that a refusal names what refuses, where, and the setting to look
// at. It never keeps a secret in an error or a log, and never turns verification off.
package security

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"

	"github.com/exactly-pipeline/exactly/internal/config"
)

// Error is a connection that one of the two sides refuses. Trying again does not help until somebody changes something.
type Error struct {
	Says     string   // what is refused, by whom, where
	Settings []string // those that are likely wrong
	Err      error    // as the client tells it
	Guess    bool     // it looks like that, but may be a broker that stops
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Says)
	if e.Err != nil {
		b.WriteString(": " + e.Err.Error())
	}
	for i, s := range e.Settings {
		switch {
		case i == 0:
			b.WriteString(": see ")
		case i == len(e.Settings)-1:
			b.WriteString(" and ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(s + " (" + config.EnvName(s) + ")")
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// Refused says that a person is needed: err is, or wraps, an *Error that is more than a guess.
func Refused(err error) bool {
	var e *Error
	return errors.As(err, &e) && !e.Guess
}

// handshake explains an error of Go's TLS. who is the other side, with its address; section where its TLS settings are; plain the
// settings that decide whether TLS is spoken, and to where. nil: not an error of TLS.
func handshake(err error, who, section string, plain ...string) *Error {
	var (
		host     x509.HostnameError
		unknown  x509.UnknownAuthorityError
		invalid  x509.CertificateInvalidError
		remote   *net.OpError
		noTLS    tls.RecordHeaderError
		settings []string
		says     string
	)
	switch {
	case errors.As(err, &host):
		says, settings = "the certificate of "+who+" is for another host", plain
	case errors.As(err, &unknown):
		says, settings = "the certificate of "+who+" is signed by nobody trusted here", []string{section + "ca"}
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		says = "the certificate of " + who + " has expired or is not valid yet, and must be replaced there"
	case errors.As(err, &invalid):
		says, settings = "the certificate of "+who+" is not accepted", []string{section + "ca"}
	case errors.As(err, &remote) && remote.Op == "remote error": // crypto/tls: an alert from the other side
		says, settings = who+" refuses our side of the TLS handshake", []string{section + "cert", section + "key"}
	case errors.As(err, &noTLS):
		says, settings = who+" does not speak TLS", plain
	default:
		return nil
	}
	return &Error{Says: says, Settings: settings, Err: err}
}
