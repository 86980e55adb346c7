package config

import (
	"net"
	"strings"
)

// Console is the pages that show a deployment in a browser, and who may see what of them.
type Console struct {
	Enabled    bool       `koanf:"enabled"`     // workers serve one on http.addr under /console/, of themselves and read-only
	Addr       string     `koanf:"addr"`        // of `exactly console`
	Write      bool       `koanf:"write"`       // let operators replay dead letters
	Hosts      string     `koanf:"hosts"`       // names it may be asked for by, besides loopback's and the address's own; comma separated
	TokensFile string     `koanf:"tokens_file"` // who may look: lines of `exactly console token`
	TLS        ConsoleTLS `koanf:"tls"`
}

// ConsoleTLS encrypts what the console says, and may know people by their certificates.
type ConsoleTLS struct {
	Cert      string `koanf:"cert"`      // PEM file of its certificate
	Key       string `koanf:"key"`       // PEM file of its key, not encrypted
	ClientCA  string `koanf:"client_ca"` // PEM file of the authorities of people's certificates; empty: none are asked for
	Operators string `koanf:"operators"` // common names of the certificates that are operators', the others are viewers'; comma separated
}

func (c *Config) validateConsole(bad func(setting, format string, a ...any)) {
	s := &c.Console
	if _, _, err := net.SplitHostPort(s.Addr); err != nil {
		bad("console.addr", "%q must be host:port", s.Addr)
		return
	}
	if (s.TLS.Cert == "") != (s.TLS.Key == "") {
		bad("console.tls.cert", "goes together with %s: give both", both("console.tls.key"))
	}
	if s.TLS.ClientCA != "" && s.TLS.Cert == "" {
		bad("console.tls.client_ca", "is of no use without %s", both("console.tls.cert"))
	}
	if s.TLS.Operators != "" && s.TLS.ClientCA == "" {
		bad("console.tls.operators", "is of no use without %s", both("console.tls.client_ca"))
	}
	if !Loopback(s.Addr) {
		if s.TLS.Cert == "" {
			bad("console.addr", "%q can be reached from other machines: it takes %s", s.Addr, both("console.tls.cert"))
		} else if s.TokensFile == "" && s.TLS.ClientCA == "" {
			bad("console.addr", "%q can be reached from other machines: it takes %s or %s", s.Addr, both("console.tokens_file"), both("console.tls.client_ca"))
		}
	}
	if s.Enabled && c.HTTP.Addr != "" && !Loopback(c.HTTP.Addr) {
		bad("console.enabled", "must be false where http.addr (%s) can be reached from other machines: run `exactly console`, which speaks TLS", c.HTTP.Addr)
	}
}

// Loopback says whether an address to listen on can be reached from this machine only.
func Loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// List is what a setting lists, separated by commas.
func List(s string) (out []string) {
	for v := range strings.SplitSeq(s, ",") {
		if v = strings.TrimSpace(v); v != "" {
			out = append(out, v)
		}
	}
	return out
}
