package console

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/exactly-pipeline/exactly/internal/config"
)

// Serve answers on console.addr until ctx is done. ready is told the page's address once it answers.
func (s *Console) Serve(ctx context.Context, ready func(url string)) error {
	c := &s.cfg.Console
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", s.opt.Addr)
	if err != nil {
		return fmt.Errorf("console.addr: %w (set EXACTLY_CONSOLE_ADDR to another address)", err)
	}
	scheme := "http"
	if c.TLS.Cert != "" {
		tc, err := tlsConfig(c)
		if err != nil {
			_ = l.Close()
			return err
		}
		l, scheme = tls.NewListener(l, tc), "https"
	}
	srv := &http.Server{
		Handler: s, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
	stop := context.AfterFunc(ctx, func() {
		c, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = srv.Shutdown(c) // the process ends
	})
	defer stop()
	ready(fmt.Sprintf("%s://%s%s/", scheme, l.Addr(), Prefix))
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the console: %w", err)
	}
	return nil
}

// tlsConfig reads the certificate anew for each connection if its file has changed, so that it can be renewed while the console runs.
func tlsConfig(c *config.Console) (*tls.Config, error) {
	if _, err := tls.LoadX509KeyPair(c.TLS.Cert, c.TLS.Key); err != nil {
		return nil, fmt.Errorf("console.tls.cert: must be PEM files of a certificate and its key, not encrypted: %w", err)
	}
	tc := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.TLS.Cert, c.TLS.Key)
		return &pair, err
	}}
	if c.TLS.ClientCA == "" {
		return tc, nil
	}
	pool, err := config.Authorities("console.tls.client_ca", c.TLS.ClientCA)
	if err != nil {
		return nil, err
	}
	tc.ClientCAs, tc.ClientAuth = pool, tls.RequireAndVerifyClientCert
	if c.TokensFile != "" { // either of the two will do
		tc.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return tc, nil
}
