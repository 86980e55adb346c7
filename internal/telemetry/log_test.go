package telemetry

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/exactly-pipeline/exactly/internal/config"
)

// Lines of one text that come too often are left out and counted; errors never are, nor other texts.
func TestSampling(t *testing.T) {
	core, seen := observer.New(zapcore.DebugLevel)
	dropped := 0
	log := zap.New(sample(core, 5, func() { dropped++ })).With(zap.String("worker", "w1"))
	for range 60 {
		log.Info("again and again")
		log.Error("broken")
	}
	log.Info("once")
	require.Equal(t, 5, seen.FilterMessage("again and again").Len())
	require.Equal(t, 55, dropped)
	require.Equal(t, 60, seen.FilterMessage("broken").Len())
	require.Equal(t, 1, seen.FilterMessage("once").Len())
	require.Equal(t, "w1", seen.All()[0].ContextMap()["worker"])

	core, seen = observer.New(zapcore.DebugLevel)
	log = zap.New(sample(core, 0, nil))
	for range 60 {
		log.Info("all of them")
	}
	require.Equal(t, 60, seen.Len())
}

// On the debug address: the level is told, changed and in force at once; what runs, with secrets redacted; profiles. On the other there are none.
func TestDebug(t *testing.T) {
	log, level, err := NewLeveled(config.Log{Level: "info", Format: "json"}, nil)
	require.NoError(t, err)
	require.False(t, log.Core().Enabled(zapcore.DebugLevel))
	c := config.Defaults()
	c.Postgres.DSN = "postgres://u:hunter2@h/d"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var at string
	serve := func(_ context.Context, addr string) error {
		at = "http://" + addr
		return ServeDebug(ctx, addr, level, "v9", c.Redacted())
	}
	code, text := answer(t, serve, "/debug/info", nil)
	require.Equal(t, http.StatusOK, code)
	var info struct {
		Build    map[string]string
		Settings map[string]any
	}
	require.NoError(t, json.Unmarshal([]byte(text), &info))
	require.Equal(t, "v9", info.Build["version"])
	require.Len(t, info.Settings, len(config.Names()))
	require.NotContains(t, text, "hunter2")

	do := func(method, path, body string) (int, string) {
		req, err := http.NewRequestWithContext(ctx, method, at+path, strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, string(b)
	}
	_, text = do(http.MethodGet, "/debug/log/level", "")
	require.JSONEq(t, `{"level":"info"}`, text)
	code, _ = do(http.MethodPut, "/debug/log/level", "level=debug")
	require.Equal(t, http.StatusOK, code)
	require.True(t, log.Core().Enabled(zapcore.DebugLevel), "the level did not change")
	code, _ = do(http.MethodPut, "/debug/log/level", "level=loud")
	require.Equal(t, http.StatusBadRequest, code)
	code, text = do(http.MethodGet, "/debug/pprof/goroutine?debug=1", "")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, text, "goroutine profile")
	code, _ = do(http.MethodGet, "/debug/pprof/cmdline", "")
	require.Equal(t, http.StatusNotFound, code, "a command line may have a secret in it")

	code, _ = get(t, NewMetrics(ours), "/debug/pprof/")
	require.Equal(t, http.StatusNotFound, code, "profiles are for whoever is on this machine")
}
