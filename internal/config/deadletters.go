package config

// DeadLetters bounds how much of a partition may become dead letters before it stops, counted over the last minute, by each worker for itself; and
// says when a record that ends the process becomes one.
type DeadLetters struct {
	MaxShare float64 `koanf:"max_share"` // of the records, 0 to 1; 0: no limit
	Free     int64   `koanf:"free"`      // dead letters a minute that are let through whatever their share

	QuarantineAfter int `koanf:"quarantine_after"` // deaths of workers over one record, alone, until it becomes a dead letter; 0: never
}

func (d *DeadLetters) validate(bad func(setting, format string, a ...any)) {
	if !(d.MaxShare >= 0 && d.MaxShare <= 1) { // so that NaN is none
		bad("dead_letters.max_share", "%v must be from 0 (no limit) to 1", d.MaxShare)
	}
	if d.Free < 0 {
		bad("dead_letters.free", "%d must be 0 or more", d.Free)
	}
	if d.QuarantineAfter < 0 {
		bad("dead_letters.quarantine_after", "%d must be 0 (never) or more", d.QuarantineAfter)
	}
}
