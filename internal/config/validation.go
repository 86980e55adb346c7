package config

import "time"

// Value is what clicks are written in.
type Value struct {
	Format string `koanf:"format"` // avro or json
}

func (v *Value) validate(bad func(setting, format string, a ...any)) {
	if !oneOf(v.Format, "avro", "json") {
		bad("value.format", "%q must be avro or json", v.Format)
	}
}

// Validation is what is taken for a valid click beyond its schema; what is not becomes a dead letter.
type Validation struct {
	MaxValueBytes int           `koanf:"max_value_bytes"` // of a record's value
	MaxURLBytes   int           `koanf:"max_url_bytes"`
	MaxAge        time.Duration `koanf:"max_age"`   // of a click's own timestamp; 0: any age
	MaxAhead      time.Duration `koanf:"max_ahead"` // how far it may be ahead of the worker's clock
}

func (v *Validation) validate(bad func(setting, format string, a ...any)) {
	if v.MaxValueBytes < 64 || v.MaxValueBytes > 16<<20 {
		bad("validate.max_value_bytes", "%d must be from 64 to 16777216", v.MaxValueBytes)
	}
	if v.MaxURLBytes < 1 || v.MaxURLBytes > 1<<20 {
		bad("validate.max_url_bytes", "%d must be from 1 to 1048576", v.MaxURLBytes)
	}
	if v.MaxAge < 0 {
		bad("validate.max_age", "%v must be a time, or 0s for any age", v.MaxAge)
	}
	if v.MaxAhead < 0 {
		bad("validate.max_ahead", "%v must be 0s or more", v.MaxAhead)
	}
}
