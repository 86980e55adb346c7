package txn

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
)

// away is a producer one of whose calls does not come back, whatever its deadline, until it is let go.
type away struct {
	scripted
	at   string
	gone chan struct{}
}

func awayAt(call string) *away {
	a := &away{at: call, gone: make(chan struct{})}
	a.took = func(call string) {
		if call == a.at {
			<-a.gone
		}
	}
	if call == "abort" {
		a.answers = map[string][]error{"commit": {classed(Abortable)}}
	}
	return a
}

func (a *away) Close() {
	if a.at == "close" {
		<-a.gone
	}
	a.closed = true
}

// TestCallThatStaysAway: whichever call it is, the worker has its answer soon after the deadline, and a new producer with it. The old one
// is not closed while the client is in its call, and is when it comes back.
func TestCallThatStaysAway(t *testing.T) {
	for _, at := range []string{"begin", "offsets in", "commit", "abort"} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				old, next := awayAt(at), &scripted{}
				p := publisher(&old.scripted)
				p.p = hold(old, zap.NewNop())
				p.New = func() (Producer, error) { return next, nil }
				began := time.Now()
				outcome, err := p.Publish(anItem(), nil, never)
				require.Equal(t, engine.Lost, outcome, "what it did, and still will, is unknown")
				require.ErrorIs(t, err, errOverrun)
				require.Equal(t, p.Timeout+grace, time.Since(began))

				synctest.Wait()
				asked := len(old.calls)
				outcome, err = p.Publish(anItem(), nil, never)
				require.Equal(t, engine.Lost, outcome)
				require.ErrorIs(t, err, errOverrun)
				require.Len(t, old.calls, asked, "a producer that is away in a call is asked nothing more")

				ctx, cancel := context.WithTimeout(t.Context(), p.Timeout)
				defer cancel()
				began = time.Now()
				require.NoError(t, p.Renew(ctx))
				require.Zero(t, time.Since(began), "the new producer does not wait for the old one")
				require.Equal(t, []string{"init"}, next.calls)
				outcome, err = p.Publish(anItem(), nil, never)
				require.NoError(t, err)
				require.Equal(t, engine.Committed, outcome)

				time.Sleep(time.Hour)
				require.False(t, old.closed, "closed under a call of the client")
				close(old.gone)
				synctest.Wait()
				require.True(t, old.closed)
			})
		})
	}
}

// TestInitThatStaysAway: a producer that can't be initialised by then is left behind, and the next is tried.
func TestInitThatStaysAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := publisher(&scripted{})
		old := awayAt("init")
		p.New = func() (Producer, error) { return old, nil }
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, p.Renew(ctx), errOverrun)
		require.Equal(t, time.Minute+grace, time.Since(began))

		p.New = func() (Producer, error) { return &scripted{}, nil }
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, p.Renew(ctx))
		require.False(t, old.closed)
		close(old.gone)
		synctest.Wait()
		require.True(t, old.closed)
	})
}

// TestCloseThatStaysAway: neither a new producer nor the process's end waits for it longer than for another call.
func TestCloseThatStaysAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := awayAt("close")
		p := publisher(&old.scripted)
		p.p = hold(old, zap.NewNop())
		began := time.Now()
		p.Close()
		require.Equal(t, p.Timeout+grace, time.Since(began))
		close(old.gone)
	})
}
