package franz

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/outbox"
)

// arena is the records of a transaction in the client's form, in few allocations, which serve the next transaction as well.
type arena struct {
	records blocks[kgo.Record]
	headers blocks[kgo.RecordHeader]
}

const (
	arenaBlock = 1024 // records in one allocation
	arenaMost  = 32   // blocks that are kept: a drain's transaction may have been large
)

// record is m, in the arena until again.
func (a *arena) record(m *outbox.Message) *kgo.Record {
	r := &a.records.take(1)[0]
	*r = kgo.Record{Topic: m.Topic, Partition: m.Partition, Key: m.Key, Value: m.Value, Timestamp: time.UnixMilli(m.TimestampMs)}
	if n := len(m.Headers); n > 0 {
		r.Headers = a.headers.take(n)
		for i, h := range m.Headers {
			r.Headers[i] = kgo.RecordHeader{Key: h.Key, Value: h.Value}
		}
	}
	return r
}

// again begins anew: nothing that was taken is in use any more.
func (a *arena) again() {
	a.records.again()
	a.headers.again()
}

// blocks is an arena of one type.
type blocks[T any] struct {
	all  [][]T
	at   int // the block that is taken from
	used int // of it
}

func (b *blocks[T]) take(n int) []T {
	for b.at < len(b.all) && len(b.all[b.at])-b.used < n {
		b.at, b.used = b.at+1, 0
	}
	if b.at == len(b.all) {
		b.all = append(b.all, make([]T, max(arenaBlock, n)))
	}
	out := b.all[b.at][b.used : b.used+n : b.used+n]
	b.used += n
	return out
}

func (b *blocks[T]) again() {
	for i := range b.all[:min(b.at+1, len(b.all))] {
		clear(b.all[i]) // keys and values must not be kept alive
	}
	if len(b.all) > arenaMost {
		b.all = b.all[:arenaMost:arenaMost]
	}
	b.at, b.used = 0, 0
}
