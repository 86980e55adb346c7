// Package telemetry owns how the program tells of itself: its log, its metrics, its health.
//
// It promises structured logs that are silent when nothing happens. It never logs an ip, a url or a secret.
package telemetry

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/exactly-pipeline/exactly/internal/config"
)

// NewLogger logs to standard error as the settings say.
func NewLogger(c config.Log) (*zap.Logger, error) {
	log, _, err := NewLeveled(c, nil)
	return log, err
}

// sampleEach is of how many lines of one text in one second, beyond log.burst, one is written.
const sampleEach = 100

// NewLeveled is NewLogger, with the level to be changed while it runs. dropped, if it is not nil, is told of each line that was left out.
func NewLeveled(c config.Log, dropped func()) (*zap.Logger, zap.AtomicLevel, error) {
	zc := zap.NewProductionConfig()
	zc.Encoding = c.Format
	zc.DisableStacktrace, zc.DisableCaller = true, true
	zc.Sampling = nil
	zc.OutputPaths = []string{"stderr"}
	zc.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	if c.Format == "console" {
		zc.EncoderConfig.EncodeLevel = zapcore.CapitalLevelEncoder
		zc.EncoderConfig.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
	}
	if err := zc.Level.UnmarshalText([]byte(c.Level)); err != nil {
		return nil, zc.Level, err
	}
	log, err := zc.Build(zap.WrapCore(func(core zapcore.Core) zapcore.Core { return sample(core, c.Burst, dropped) }))
	return log, zc.Level, err
}

// sampled leaves out lines of one text that come too often, below errors: each error is written.
type sampled struct{ all, some zapcore.Core }

func sample(core zapcore.Core, burst int, dropped func()) zapcore.Core {
	if burst == 0 {
		return core
	}
	told := zapcore.SamplerHook(func(_ zapcore.Entry, d zapcore.SamplingDecision) {
		if d&zapcore.LogDropped != 0 && dropped != nil {
			dropped()
		}
	})
	return &sampled{core, zapcore.NewSamplerWithOptions(core, time.Second, burst, sampleEach, told)}
}

// Enabled implements zapcore.Core.
func (s *sampled) Enabled(l zapcore.Level) bool { return s.all.Enabled(l) }

// With implements zapcore.Core.
func (s *sampled) With(fs []zapcore.Field) zapcore.Core {
	return &sampled{s.all.With(fs), s.some.With(fs)}
}

// Check implements zapcore.Core.
func (s *sampled) Check(e zapcore.Entry, c *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if e.Level >= zapcore.ErrorLevel {
		return s.all.Check(e, c)
	}
	return s.some.Check(e, c)
}

// Write implements zapcore.Core.
func (s *sampled) Write(e zapcore.Entry, fs []zapcore.Field) error { return s.all.Write(e, fs) }

// Sync implements zapcore.Core.
func (s *sampled) Sync() error { return s.all.Sync() }
