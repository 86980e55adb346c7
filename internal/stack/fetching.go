package stack

import (
	"math"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// watchFetches keeps kfake from ending an answer at the request's MaxBytes. Where it does, it leaves out which of the transactions in the answer were
// aborted (handleFetch breaks out past its look at them), and whoever reads committed records takes theirs for committed ones. Where an answer ends at a
// partition's own limit they are named; so these limits do it alone, made small enough to stay within MaxBytes together.
//
// Not quite so small with a fetch session (KIP-227), in which a request names only the partitions that have changed.
func watchFetches(c *kfake.Cluster) {
	c.ControlKey(int16(kmsg.Fetch), func(r kmsg.Request) (kmsg.Response, error, bool) {
		limitByPartition(r.(*kmsg.FetchRequest))
		return nil, nil, false
	})
}

func limitByPartition(r *kmsg.FetchRequest) {
	var sum int64
	for _, t := range r.Topics {
		for _, p := range t.Partitions {
			sum += int64(p.PartitionMaxBytes)
		}
	}
	if most := int64(r.MaxBytes); sum > most {
		for _, t := range r.Topics {
			for i := range t.Partitions {
				p := &t.Partitions[i]
				p.PartitionMaxBytes = int32(int64(p.PartitionMaxBytes) * most / sum) // 0 is enough for a batch, if it is the answer's first
			}
		}
	}
	r.MaxBytes = math.MaxInt32
}
