package teststack

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/internal/stack"
)

// Two that join have the same broker and registry, which live until who shares them ends them.
func TestShared(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	t.Setenv(Variable, "embedded")
	env, stop, err := Share(ctx, t.TempDir())
	require.NoError(t, err)
	name, value, _ := strings.Cut(env, "=")
	t.Setenv(name, value)
	join := func() *stack.Stack {
		s, err := Join(ctx, stack.Options{Dir: t.TempDir(), Only: stack.Broker | stack.Registry})
		require.NoError(t, err)
		return s
	}
	one, two := join(), join()
	require.Equal(t, one.Env(), two.Env())
	require.NotEmpty(t, one.Brokers())
	require.NotEmpty(t, one.RegistryURL())
	require.Equal(t, stack.Embedded, one.Kind())
	ping := func() error {
		cl, err := kgo.NewClient(kgo.SeedBrokers(two.Brokers()))
		require.NoError(t, err)
		defer cl.Close()
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		return cl.Ping(ctx)
	}
	require.NoError(t, one.Stop())
	require.NoError(t, ping(), "one of them ended what is the other's, too")
	require.NoError(t, two.Stop())
	require.NoError(t, stop())
	require.Error(t, ping(), "it lives on")
}

// What can't be started is told to those who wait for it, and to who wanted to share it.
func TestNothingToShare(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	t.Setenv(Variable, "embedded")
	dir := t.TempDir()
	held, err := stack.Start(ctx, stack.Options{Dir: filepath.Join(dir, "stack"), Only: stack.Registry})
	require.NoError(t, err)
	defer held.Stop() //nolint:errcheck // a test's
	env, stop, err := Share(ctx, dir)
	require.NoError(t, err)
	name, value, _ := strings.Cut(env, "=")
	t.Setenv(name, value)
	_, err = Join(ctx, stack.Options{Dir: t.TempDir(), Only: stack.Broker})
	require.ErrorContains(t, err, stack.ErrInUse.Error())
	require.ErrorIs(t, stop(), stack.ErrInUse)

	t.Setenv(Variable, "postgres")
	_, _, err = Share(ctx, dir)
	require.ErrorContains(t, err, "must be embedded, kafka")
}
