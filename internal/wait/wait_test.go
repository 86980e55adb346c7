package wait

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		require.NoError(t, For(ctx, 2*time.Second))
		require.Equal(t, 2*time.Second, time.Since(began))
		require.ErrorIs(t, For(ctx, 2*time.Second), context.DeadlineExceeded)
		require.Equal(t, 3*time.Second, time.Since(began))
	})
}
