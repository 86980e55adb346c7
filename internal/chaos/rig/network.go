package rig

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/exactly-pipeline/exactly/internal/wait"
)

// network is one worker's way to the brokers and to Postgres: a proxy before each.
type network struct {
	kafka    []*proxy // by broker
	postgres *proxy
}

// proxy is one of toxiproxy's, with a tap in it.
type proxy struct {
	*toxiproxy.Proxy
	tap *tap
}

func newProxy(server *toxiproxy.ApiServer, name, listen, upstream string) (*proxy, error) {
	p := &proxy{Proxy: toxiproxy.NewProxy(server, name, listen, upstream), tap: &tap{}}
	tapsMu.Lock()
	taps[name] = p.tap
	tapsMu.Unlock()
	for _, d := range []string{"upstream", "downstream"} {
		if err := p.add("tap-"+d, "tap", d, fmt.Sprintf(`{"proxy": %q, "down": %v}`, name, d == "downstream")); err != nil {
			return nil, err
		}
	}
	return p, p.Start()
}

func (p *proxy) add(name, kind, direction, attributes string) error {
	_, err := p.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(`{"name": %q, "type": %q, "stream": %q, "toxicity": 1, "attributes": %s}`, name, kind, direction, attributes)))
	if err != nil {
		return fmt.Errorf("proxy %s: %s: %w", p.Name, kind, err)
	}
	return nil
}

func newServer() *toxiproxy.ApiServer {
	zerolog.SetGlobalLevel(zerolog.Disabled) // some toxics write to a logger of their own
	return toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
}

// cut ends every connection; new ones are taken again at once.
func (p *proxy) cut() error {
	p.Stop()
	return p.Start()
}

// trouble is one way in which a network fails, for a while.
type trouble struct {
	name             string
	up, down         string // toxics in that direction, as type and attributes; empty: none
	upWith, downWith string
	away             bool // nothing is let in and everything is cut off
}

var troubles = []trouble{
	{name: "cut", away: true},
	{name: "requests vanish", up: "timeout", upWith: `{"timeout": 0}`},
	{name: "answers vanish", down: "timeout", downWith: `{"timeout": 0}`},
	{name: "latency", up: "latency", upWith: `{"latency": 150, "jitter": 100}`, down: "latency", downWith: `{"latency": 150, "jitter": 100}`},
	{name: "reset", down: "reset_peer", downWith: `{"timeout": 0}`},
	{name: "bandwidth", up: "bandwidth", upWith: `{"rate": 40}`, down: "bandwidth", downWith: `{"rate": 40}`},
}

var errNothing = errors.New("nothing passed through the network while it was struck")

// strike brings the trouble upon some proxies for a while. It returns what was seen to pass into it.
func (t trouble) strike(ctx context.Context, ps []*proxy, d time.Duration) (string, error) {
	var bytes, closed int64
	for _, p := range ps {
		bytes -= p.tap.up.Load() + p.tap.down.Load()
		closed -= p.tap.closed.Load()
	}
	for _, p := range ps {
		if t.away {
			p.Stop()
		}
		for direction, toxic := range map[string][2]string{"upstream": {t.up, t.upWith}, "downstream": {t.down, t.downWith}} {
			if toxic[0] != "" {
				if err := p.add(direction, toxic[0], direction, toxic[1]); err != nil {
					return "", err
				}
			}
		}
	}
	_ = wait.For(ctx, d) // cut short or not: what was done is undone
	for _, p := range ps {
		bytes += p.tap.up.Load() + p.tap.down.Load()
		closed += p.tap.closed.Load()
	}
	var failed error
	for _, p := range ps {
		for direction, toxic := range map[string]string{"upstream": t.up, "downstream": t.down} {
			if toxic != "" {
				if err := p.Toxics.RemoveToxic(ctx, direction); err != nil {
					failed = err
				}
			}
		}
		if t.away {
			if err := p.Start(); err != nil {
				failed = err
			}
		}
	}
	if failed == nil && bytes == 0 && closed == 0 {
		failed = errNothing
	}
	return fmt.Sprintf("%d bytes and the end of %d connections met it", bytes, closed), failed
}
