package admin

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/config"
)

// A topic that one of the brokers has not heard of yet is waited for, and every broker is asked.
func TestAwaitTopics(t *testing.T) {
	k, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(2, "known", "late"))
	require.NoError(t, err)
	t.Cleanup(k.Close)
	var mu sync.Mutex
	asked := map[int32]int{}
	forever := false
	k.ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		req := r.(*kmsg.MetadataRequest)
		if len(req.Topics) != 2 {
			return nil, nil, false
		}
		mu.Lock()
		defer mu.Unlock()
		asked[k.CurrentNode()]++
		if !forever && (k.CurrentNode() != 2 || asked[2] > 3) {
			return nil, nil, false
		}
		res := req.ResponseKind().(*kmsg.MetadataResponse)
		for _, t := range req.Topics {
			rt := kmsg.NewMetadataResponseTopic()
			rt.Topic = t.Topic
			if *t.Topic == "late" {
				rt.ErrorCode = kerr.UnknownTopicOrPartition.Code
			}
			res.Topics = append(res.Topics, rt)
		}
		return res, nil, true
	})
	cfg := config.Defaults()
	cfg.Kafka.Brokers = k.ListenAddrs()[0]
	a, err := New(&cfg, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(a.Close)
	require.NoError(t, a.AwaitTopics(t.Context(), "known", "late"))
	mu.Lock()
	require.Equal(t, map[int32]int{0: 1, 1: 1, 2: 4}, asked)
	forever = true
	mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	err = a.AwaitTopics(ctx, "known", "late")
	require.ErrorIs(t, err, kerr.UnknownTopicOrPartition)
	require.ErrorContains(t, err, "topic late")
}
