package franz

import (
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// repeats counts the requests of a transaction that end it or move its offsets: more than one of either, and a copy may still be on its
// way. Brokers with transaction.version 2 refuse the copy by its epoch (KIP-890); others do not.
type repeats struct{ ends, offsets atomic.Int32 }

var _ kgo.HookBrokerWrite = (*repeats)(nil)

// begin begins another transaction.
func (r *repeats) begin() {
	r.ends.Store(0)
	r.offsets.Store(0)
}

// OnBrokerWrite implements kgo.HookBrokerWrite.
func (r *repeats) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, _ error) {
	switch key {
	case kmsg.EndTxn.Int16():
		r.ends.Add(1)
	case kmsg.TxnOffsetCommit.Int16():
		r.offsets.Add(1)
	}
}

func (r *repeats) any() bool { return r.ends.Load() > 1 || r.offsets.Load() > 1 }
