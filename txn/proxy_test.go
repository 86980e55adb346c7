package txn

import (
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxy stands between a store and Postgres and can swallow the server's answers.
type proxy struct {
	muted atomic.Bool
	mu    sync.Mutex
	conns []net.Conn
}

// newProxy returns a proxy and the DSN that leads through it.
func newProxy(t *testing.T, dsn string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	server := u.Host
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	u.Host = l.Addr().String()
	p := &proxy{}
	t.Cleanup(func() { _ = l.Close(); p.cut() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", server)
			if err != nil {
				_ = c.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, c)
			p.mu.Unlock()
			go func() { _, _ = io.Copy(s, c); _ = s.Close() }()
			go func() { _, _ = io.Copy(answers{p, c}, s); _ = c.Close() }()
		}
	}()
	return p, u.String()
}

// answers are the server's: swallowed while the proxy is muted.
type answers struct {
	p *proxy
	c net.Conn
}

func (a answers) Write(b []byte) (int, error) {
	if a.p.muted.Load() {
		return len(b), nil
	}
	return a.c.Write(b)
}

// cut closes the clients' side of every connection so far.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}
