//go:build e2e

package stack

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/exactly-pipeline/exactly/internal/stack/apache"
)

func startReal(t *testing.T, dir string, brokers int) *Stack {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	s, err := Start(ctx, Options{
		Dir: dir, Kind: Kafka, NoSyncPostgres: true, Apache: apache.Options{Brokers: brokers}, Log: zaptest.NewLogger(t, zaptest.Level(zap.InfoLevel)),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	return s
}

func TestRealStopAndStart(t *testing.T) {
	dir := t.TempDir()
	began := time.Now()
	s := startReal(t, dir, 1)
	t.Log("up after", time.Since(began))
	want, before := fill(t, of(s)), of(s)
	began = time.Now()
	require.NoError(t, s.Stop())
	t.Log("down after", time.Since(began))
	began = time.Now()
	s = startReal(t, dir, 1)
	t.Log("up after", time.Since(began))
	require.Equal(t, before, of(s), "same addresses")
	requireContents(t, want, of(s))
}

func TestThreeBrokers(t *testing.T) {
	dir := t.TempDir()
	began := time.Now()
	s := startReal(t, dir, 3)
	t.Log("up after", time.Since(began))
	_ = kadm.Offset{}
	began = time.Now()
	require.NoError(t, s.Stop())
	t.Log("down after", time.Since(began))
	began = time.Now()
	s = startReal(t, dir, 3)
	t.Log("up after", time.Since(began))
}
