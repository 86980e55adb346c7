package franz

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/config"
)

// listener notes what it is told.
type listener struct{ told []string }

func (l *listener) Assigned([]int32, engine.Stamp) { l.told = append(l.told, "assigned") }
func (l *listener) Revoked([]int32, engine.Stamp)  { l.told = append(l.told, "revoked") }
func (l *listener) Lost([]int32, engine.Stamp)     { l.told = append(l.told, "lost") }

// A group that answers at once calls back before NewSource has the client it made.
func TestCalledBackBeforeThereIsAClient(t *testing.T) {
	cfg := config.Defaults()
	cl, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1"))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	l := &listener{}
	s := &Source{cfg: &cfg, listener: l, log: zap.NewNop(), rebalances: make(chan rebalance), closed: make(chan struct{})}
	parts := map[string][]int32{cfg.Topics.Input: {0}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.assigned(t.Context(), cl, parts)
		s.revoked(t.Context(), cl, parts)
		s.lost(t.Context(), cl, parts)
	}()
	for running := true; running; {
		select {
		case r := <-s.rebalances:
			r.do()
			close(r.done)
		case <-done:
			running = false
		}
	}
	require.Equal(t, []string{"assigned", "revoked", "lost"}, l.told)
}
