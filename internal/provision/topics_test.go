package provision

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
)

// Where there are three replicas, two have to have a record before its producer is told so; where there are fewer, the broker's own setting stands.
func TestTopicsMinInsync(t *testing.T) {
	for _, c := range []struct {
		brokers int
		want    string
	}{{1, ""}, {2, ""}, {3, "2"}, {5, "2"}} {
		k, err := kfake.NewCluster(kfake.NumBrokers(c.brokers))
		require.NoError(t, err)
		defer k.Close()
		var made []map[string]string
		k.ControlKey(int16(kmsg.CreateTopics), func(req kmsg.Request) (kmsg.Response, error, bool) {
			k.KeepControl()
			for _, topic := range req.(*kmsg.CreateTopicsRequest).Topics {
				m := map[string]string{}
				for _, s := range topic.Configs {
					m[s.Name] = *s.Value
				}
				made = append(made, m)
			}
			return nil, nil, false
		})
		cfg, err := config.Load("", []string{"EXACTLY_KAFKA_BROKERS=" + k.ListenAddrs()[0]}, nil)
		require.NoError(t, err)
		adm, err := admin.New(&cfg, zap.NewNop())
		require.NoError(t, err)
		defer adm.Close()
		_, err = Topics(t.Context(), &cfg, adm)
		require.NoError(t, err)
		require.Len(t, made, 5)
		for _, m := range made {
			require.Equal(t, c.want, m["min.insync.replicas"])
			require.Equal(t, "delete", m["cleanup.policy"])
		}
		require.Equal(t, []string{"-1", "-1"}, []string{made[3]["retention.ms"], made[3]["retention.bytes"]}, "heads are evidence")
	}
}
