package franz

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestRepeats(t *testing.T) {
	var r repeats
	wrote := func(keys ...kmsg.Key) bool {
		r.begin()
		for _, k := range keys {
			r.OnBrokerWrite(kgo.BrokerMetadata{}, k.Int16(), 0, 0, 0, nil)
		}
		return r.any()
	}
	require.False(t, wrote(kmsg.Produce, kmsg.Produce, kmsg.AddOffsetsToTxn, kmsg.AddOffsetsToTxn, kmsg.TxnOffsetCommit, kmsg.EndTxn))
	require.True(t, wrote(kmsg.TxnOffsetCommit, kmsg.EndTxn, kmsg.EndTxn))
	require.True(t, wrote(kmsg.TxnOffsetCommit, kmsg.TxnOffsetCommit, kmsg.EndTxn))
}
