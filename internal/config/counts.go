package config

import "time"

// Counts is whether clicks are counted by window of their timestamps and by country, in the captures themselves (table click_counts).
type Counts struct {
	Enabled bool          `koanf:"enabled"`
	Window  time.Duration `koanf:"window"` // length of a window; changed, all counts begin anew
}

const day = 24 * time.Hour

func (c *Counts) validate(bad func(setting, format string, a ...any)) {
	if c.Window < time.Second || c.Window > day || c.Window%time.Second != 0 || day%c.Window != 0 { // so that windows begin with the UTC day
		bad("counts.window", "%v must be whole seconds, 1s to 24h, that a day divides into evenly, such as 1m, 5m or 1h", c.Window)
	}
}
