package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	fetchBytes = 4 << 20         // of one fetch of one partition
	fetchFor   = 2 * time.Minute // how long one fetch may be refused before the audit gives up
)

// kafka reads partitions by fetch requests of its own. A polling consumer does not say how far it has read where the log ends in
// aborted records that it drops, so it could wait for ever for an end that it has long reached.
type kafka struct {
	cl     *kgo.Client
	adm    *kadm.Client
	topics kadm.TopicDetails
	codec  kgo.Decompressor
}

func newKafka(ctx context.Context, o *Options) (*kafka, error) {
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(o.Brokers...), kgo.ClientID("exactly-audit"), kgo.RetryTimeout(30 * time.Second)}, o.KafkaOpts...)...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	k := &kafka{cl: cl, adm: kadm.NewClient(cl), codec: kgo.DefaultDecompressor()}
	k.topics, err = k.adm.ListTopics(ctx, o.Input, o.Output, o.DLQ)
	if err == nil {
		err = k.topics.Error()
	}
	if err != nil {
		cl.Close()
		return nil, fmt.Errorf("describe topics %s, %s and %s: %w", o.Input, o.Output, o.DLQ, err)
	}
	return k, nil
}

func (k *kafka) close() { k.cl.Close() }

// offsets lists one kind of offset of every partition of the topics.
func (k *kafka) offsets(ctx context.Context, what string, list func(context.Context, ...string) (kadm.ListedOffsets, error), topics ...string) (map[string]map[int32]int64, error) {
	listed, err := list(ctx, topics...)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list %s of %v: %w", what, topics, err)
	}
	out := map[string]map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) {
		if out[o.Topic] == nil {
			out[o.Topic] = map[int32]int64{}
		}
		out[o.Topic][o.Partition] = o.Offset
	})
	return out, nil
}

// errTruncated says that retention removed what was to be read next.
type errTruncated struct{ start int64 }

func (e *errTruncated) Error() string { return fmt.Sprintf("the log starts at %d by now", e.start) }

// read passes the committed records in [from, to) to fn, in order, as they are fetched, and returns where it stopped.
// *errTruncated (errors.As) is returned when retention was faster.
func (k *kafka) read(ctx context.Context, topic string, partition int32, from, to int64, fn func([]*kgo.Record) error) (int64, error) {
	for from < to {
		recs, next, err := k.fetch(ctx, topic, partition, from)
		if err != nil {
			return from, fmt.Errorf("%s/%d at offset %d: %w", topic, partition, from, err)
		}
		for len(recs) > 0 && recs[len(recs)-1].Offset >= to {
			recs = recs[:len(recs)-1]
		}
		if err := fn(recs); err != nil {
			return from, err
		}
		from = min(next, to) // a fetch brings whole batches: what is beyond to was not passed on, and must be read by whoever goes on
	}
	return from, nil
}

// fetch is one successful fetch, however often the leader moved meanwhile. It moves on, or it fails.
func (k *kafka) fetch(ctx context.Context, topic string, partition int32, from int64) ([]*kgo.Record, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchFor)
	defer cancel()
	leader := k.topics[topic].Partitions[partition].Leader
	var recs []*kgo.Record
	once := func() (int64, error) {
		got, next, err := k.fetchOnce(ctx, topic, partition, leader, from, fetchBytes)
		if err == nil && next > from {
			recs = got
			return next, nil
		}
		if err == nil { // the response waited for its bytes at the broker already
			return 0, fmt.Errorf("nothing comes, though the partition's stable end is above")
		}
		if errors.Is(err, kerr.OffsetOutOfRange) {
			start, lerr := k.offsets(ctx, "start offsets", k.adm.ListStartOffsets, topic)
			if lerr == nil && start[topic][partition] > from {
				return 0, backoff.Permanent(&errTruncated{start[topic][partition]})
			}
		} else if !kerr.IsRetriable(err) && errors.As(err, new(*kerr.Error)) {
			return 0, backoff.Permanent(err)
		}
		if topics, merr := k.adm.ListTopics(ctx, topic); merr == nil && topics.Error() == nil {
			leader = topics[topic].Partitions[partition].Leader
		}
		return 0, err
	}
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = 10*time.Millisecond, time.Second
	next, err := backoff.Retry(ctx, once, backoff.WithBackOff(b), backoff.WithMaxElapsedTime(fetchFor))
	return recs, next, err
}

func (k *kafka) fetchOnce(ctx context.Context, topic string, partition, leader int32, from int64, size int32) ([]*kgo.Record, int64, error) {
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = 500, 1, size
	req.IsolationLevel = 1 // read_committed
	req.SessionEpoch = -1  // no fetch session
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = topic, k.topics[topic].ID
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, from, size
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	raw, err := k.cl.Broker(int(leader)).RetriableRequest(ctx, req)
	if err != nil {
		return nil, 0, err
	}
	resp := raw.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, 0, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return nil, from, nil
	}
	o := kgo.ProcessFetchPartitionOpts{Topic: topic, Partition: partition, Offset: from, IsolationLevel: kgo.ReadCommitted()}
	fp, next := kgo.ProcessFetchPartition(o, &resp.Topics[0].Partitions[0], k.codec, nil)
	if fp.Err != nil {
		return nil, 0, fp.Err
	}
	return fp.Records, next, nil
}
