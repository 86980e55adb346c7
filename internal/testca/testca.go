// Package testca owns the certificates of tests: an authority of the test's own, and certificates of servers and clients signed by it,
// good ones and each kind of bad one.
//
// It promises PEM files, made afresh for each test and good for an hour. It is never used outside of tests.
package testca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// CA is an authority.
type CA struct {
	File string // its certificate, PEM
	Pool *x509.CertPool

	dir  string
	cert *x509.Certificate
	pem  []byte
	key  crypto.Signer
}

// Pair is a certificate with its key.
type Pair struct {
	Cert, Key string // PEM files
	Both      string // PEM file of key, certificate and authority, as Kafka's ssl.keystore.type=PEM takes it
	TLS       tls.Certificate
}

var serial atomic.Int64

// New makes an authority, whose files go with the test. Two of them don't trust each other, though they bear the same name.
func New(t testing.TB) *CA {
	t.Helper()
	ca, err := In(t.TempDir())
	require.NoError(t, err)
	return ca
}

// In makes an authority that keeps its files in dir.
func In(dir string) (*CA, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ca := &CA{dir: dir, key: newKey()}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, ca.key.Public(), ca.key)
	if err != nil {
		return nil, err
	}
	if ca.cert, err = x509.ParseCertificate(der); err != nil {
		return nil, err
	}
	ca.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	ca.File = ca.write("ca.pem", ca.pem, 0o644)
	ca.Pool = x509.NewCertPool()
	ca.Pool.AddCert(ca.cert)
	return ca, nil
}

// Server is a good certificate for hosts: names or addresses; without any for localhost, 127.0.0.1 and ::1.
func (ca *CA) Server(hosts ...string) Pair {
	if len(hosts) == 0 {
		hosts = []string{"localhost", "127.0.0.1", "::1"}
	}
	return ca.issue("server", hosts, time.Now().Add(time.Hour))
}

// WrongHost is a server's certificate for a host nobody here has.
func (ca *CA) WrongHost() Pair { return ca.Server("elsewhere.example.org") }

// Expired is a server's certificate that was good until an hour ago.
func (ca *CA) Expired() Pair {
	return ca.issue("expired", []string{"localhost", "127.0.0.1", "::1"}, time.Now().Add(-time.Hour))
}

// Client is a client's certificate under a common name.
func (ca *CA) Client(name string) Pair { return ca.issue(name, nil, time.Now().Add(time.Hour)) }

// ExpiredClient is a client's certificate that was good until an hour ago.
func (ca *CA) ExpiredClient(name string) Pair { return ca.issue(name, nil, time.Now().Add(-time.Hour)) }

func (ca *CA) issue(name string, hosts []string, until time.Time) Pair {
	key := newKey()
	n := serial.Add(1)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			tmpl.IPAddresses = append(tmpl.IPAddresses, ip)
		} else {
			tmpl.DNSNames = append(tmpl.DNSNames, h)
		}
	}
	der := must(x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key))
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))})
	base := fmt.Sprint(name, "-", n)
	return Pair{
		Cert: ca.write(base+".pem", certPEM, 0o644), Key: ca.write(base+".key", keyPEM, 0o600),
		Both: ca.write(base+".all.pem", slices.Concat(keyPEM, certPEM, ca.pem), 0o600),
		TLS:  must(tls.X509KeyPair(certPEM, keyPEM)),
	}
}

func (ca *CA) write(name string, b []byte, mode os.FileMode) string {
	path := filepath.Join(ca.dir, name)
	if err := os.WriteFile(path, b, mode); err != nil {
		panic(err)
	}
	return path
}

func newKey() crypto.Signer { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

// must: what can fail here is a full disk.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
