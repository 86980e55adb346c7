package security

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"

	"github.com/exactly-pipeline/exactly/internal/config"
)

// Registry is how HTTP requests go to the schema registry: with the settings' TLS, and user or token, which are read anew for each
// request; our certificate is read anew for each connection. Errors name what refuses us.
func Registry(r *config.Registry) (http.RoundTripper, error) {
	tr := http.DefaultTransport.(*http.Transport).Clone()
	tc, err := r.TLS.Config()
	if err != nil {
		return nil, err
	}
	if tc.Certificates != nil {
		tc.Certificates = nil
		tc.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			now, err := r.TLS.Config()
			if err != nil {
				return nil, err
			}
			return &now.Certificates[0], nil
		}
	}
	tr.TLSClientConfig = tc
	return &registry{Transport: tr, settings: r}, nil
}

type registry struct {
	*http.Transport // its CloseIdleConnections, too
	settings        *config.Registry
}

func (r *registry) RoundTrip(req *http.Request) (*http.Response, error) {
	who := "the schema registry at " + req.URL.Host
	req = req.Clone(req.Context()) // it is not ours to change (http.RoundTripper)
	if err := r.authorize(req); err != nil {
		return nil, &Error{Says: "ask " + who, Err: err}
	}
	res, err := r.Transport.RoundTrip(req)
	if err != nil {
		if e := handshake(err, who, "registry.tls.", "registry.url"); e != nil {
			return nil, e
		}
		if errors.Is(err, io.EOF) && req.URL.Scheme == "http" {
			return nil, &Error{Says: who + " hangs up on us: it may want https://", Err: err, Settings: []string{"registry.url"}, Guess: true}
		}
		return nil, err
	}
	if res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden {
		_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // so that the connection can be used again
		_ = res.Body.Close()
		return nil, &Error{Says: who + " refuses us", Err: errors.New(res.Status), Settings: r.suspects(res.StatusCode)}
	}
	return res, nil
}

func (r *registry) authorize(req *http.Request) error {
	switch s := r.settings; {
	case s.Username != "":
		password, err := s.GetPassword()
		if err != nil {
			return err
		}
		req.SetBasicAuth(s.Username, password)
	case s.Token != "" || s.TokenFile != "":
		token, err := s.GetToken()
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return nil
}

// suspects are the settings to look at. One that is known but not allowed (403) may not be the fault of its password.
func (r *registry) suspects(status int) []string {
	s := r.settings
	password, token := inUse("registry.password", s.PasswordFile), inUse("registry.token", s.TokenFile)
	switch {
	case s.Token != "" || s.TokenFile != "":
		return []string{token}
	case s.Username != "" && status == http.StatusForbidden:
		return []string{"registry.username"}
	case s.Username != "":
		return []string{"registry.username", password}
	default:
		return []string{"registry.username", "registry.password", "registry.token"}
	}
}
