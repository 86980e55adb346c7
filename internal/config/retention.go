package config

import "time"

// Retention is how long what was captured is kept, by UTC days of capture: a day is dropped whole once the time is over and all of it is
// published.
type Retention struct {
	Prune       bool          `koanf:"prune"`        // workers drop it, once an hour; false: exactly prune does, when it is run
	Outbox      time.Duration `koanf:"outbox"`       // 0: for ever
	Rows        time.Duration `koanf:"rows"`         // of enriched_clicks; 0: for ever
	DeadLetters time.Duration `koanf:"dead_letters"` // 0: for ever
}

func (r *Retention) validate(bad func(setting, format string, a ...any)) {
	for _, d := range []struct {
		setting string
		v       time.Duration
	}{{"retention.outbox", r.Outbox}, {"retention.rows", r.Rows}, {"retention.dead_letters", r.DeadLetters}} {
		// A day at least: nobody writes to a time partition then, not even a transaction that was begun on its last evening.
		if d.v != 0 && d.v < 24*time.Hour {
			bad(d.setting, "%v must be 24h or more, or 0s for ever", d.v)
		}
	}
}
