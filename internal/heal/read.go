package heal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/progress"
	"github.com/exactly-pipeline/exactly/outbox"
)

// span is the offsets [from, to) of a log.
type span struct{ from, to int64 }

// spans are some of several logs.
type spans map[string]map[int32]span

func (s spans) add(topic string, partition int32, from, to int64) {
	if s[topic] == nil {
		s[topic] = map[int32]span{}
	}
	s[topic][partition] = span{from, to}
}

// quiet is how long reading may bring nothing: longer than a transaction may be open, behind which nothing is read.
func (h *healer) quiet() time.Duration { return h.cfg.Kafka.TransactionTimeout + time.Minute }

// read passes the committed records of the spans to f, in the order of each log. It waits for transactions that are open in them.
func (h *healer) read(ctx context.Context, all spans, f func(*kgo.Record) error) error {
	left := spans{}
	from := map[string]map[int32]kgo.Offset{}
	n := 0
	var total int64
	for topic, parts := range all {
		from[topic] = map[int32]kgo.Offset{}
		for id, s := range parts {
			if s.from < s.to {
				left.add(topic, id, s.from, s.to)
				from[topic][id] = kgo.NewOffset().At(s.from)
				total += s.to - s.from
				n++
			}
		}
	}
	if n == 0 {
		return nil
	}
	cl, err := kgo.NewClient(append(admin.Options(&h.cfg), kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchMaxBytes(8<<20), kgo.FetchMaxPartitionBytes(1<<20))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	for n > 0 {
		poll, cancel := context.WithTimeout(ctx, h.quiet())
		fs := cl.PollFetches(poll)
		cancel()
		if err := fs.Err0(); err != nil {
			if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("nothing came for %v: is a transaction open that hides the rest? exactly txn list", h.quiet())
			}
			return err
		}
		for _, e := range fs.Errors() {
			return fmt.Errorf("%s/%d: %w", e.Topic, e.Partition, e.Err)
		}
		fs.EachPartition(func(p kgo.FetchTopicPartition) {
			s, ok := left[p.Topic][p.Partition]
			if !ok {
				return
			}
			for _, r := range p.Records {
				from[p.Topic][p.Partition] = kgo.NewOffset().At(r.Offset + 1)
				if err == nil && r.Offset < s.to && !r.Attrs.IsControl() {
					err = f(r)
				}
				if r.Offset+1 >= s.to {
					delete(left[p.Topic], p.Partition)
					cl.PauseFetchPartitions(map[string][]int32{p.Topic: {p.Partition}})
					n--
					break
				}
			}
		})
		if err != nil {
			return err
		}
		h.tell(ctx, left, from, total)
	}
	return nil
}

// tell says how much of the spans was read. What was read of a log that is not done is not kept track of elsewhere.
func (h *healer) tell(ctx context.Context, left spans, at map[string]map[int32]kgo.Offset, total int64) {
	var ahead int64
	for topic, parts := range left {
		for id, s := range parts {
			ahead += s.to - at[topic][id].EpochOffset().Offset
		}
	}
	progress.Of(ctx).At("reading the output topics", total-ahead, total)
}

// coordinates are those of the record an event was made of. false: of none of this source.
func (h *healer) coordinates(r *kgo.Record) (partition int32, offset int64, ok bool) {
	p, o, err := admin.ParseSource(admin.Source(r), h.cfg.Topics.Input)
	return p, o, err == nil
}

// message is the record as the outbox has it.
func message(r *kgo.Record, sourceOffset int64) outbox.Message {
	m := outbox.Message{SourceOffset: sourceOffset, Topic: r.Topic, Partition: r.Partition, TimestampMs: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value}
	for _, hd := range r.Headers {
		m.Headers = append(m.Headers, outbox.Header{Key: hd.Key, Value: hd.Value})
	}
	return m
}

// outputs are the starts and the ends of the output topics' logs.
func (h *healer) outputs(ctx context.Context) (starts, ends kadm.ListedOffsets, err error) {
	return h.desk.Admin().LogRange(ctx, h.cfg.Topics.Output, h.cfg.Topics.DLQ)
}
