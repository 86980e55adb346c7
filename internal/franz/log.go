package franz

import (
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
)

// logger passes the client's own words on at debug level, as those of the other client are.
type logger struct{ log *zap.Logger }

func (l logger) Level() kgo.LogLevel {
	if l.log.Core().Enabled(zap.DebugLevel) {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelNone
}

func (l logger) Log(_ kgo.LogLevel, msg string, keyvals ...any) {
	l.log.Sugar().Debugw("franz-go: "+msg, keyvals...)
}
