package config

import (
	"net"
	"time"
)

// Debug is the listener for whoever is on this machine: profiles, the log's level, what runs.
type Debug struct {
	Addr string `koanf:"addr"` // loopback only; empty: no listener
}

// Health is when a worker is taken for stuck.
type Health struct {
	StuckAfter time.Duration `koanf:"stuck_after"` // a partition with work, without progress, and no store away
}

func (c *Config) validateOperations(bad func(setting, format string, a ...any)) {
	if c.Debug.Addr != "" {
		host, _, err := net.SplitHostPort(c.Debug.Addr)
		if ip := net.ParseIP(host); err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			bad("debug.addr", "%q must be host:port on this machine's loopback, such as 127.0.0.1:6060, or empty for none", c.Debug.Addr)
		}
	}
	if c.Health.StuckAfter < 10*time.Second || c.Health.StuckAfter > time.Hour { // an idle worker's loop goes round every 5 s
		bad("health.stuck_after", "%v must be from 10s to 1h", c.Health.StuckAfter)
	}
	if c.Log.Burst < 0 {
		bad("log.burst", "%d must be 0 (all) or more", c.Log.Burst)
	}
}
