package audit

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// ErrNotSought says that an event was not found with as many fetches as one record is worth: that it is not there, only reading all can say.
var ErrNotSought = errors.New("not found by seeking: exactly audit --offset reads all of it")

// Bounds of a seek.
const (
	seekBytes   = 128 << 10 // of one fetch
	seekFetches = 80
	seekStretch = 200 // records that are read one after the other rather than halved further
)

// seeker looks for the event of one source record in one output partition by halving: there, a source partition's events are in its own order.
type seeker struct {
	k         *kafka
	input     string
	topic     string
	partition int32
	want      source
	left      int // fetches
}

// seek is the event's record; nil: it is not there, as far as [lo, hi) goes. ErrNotSought.
func (s *seeker) seek(ctx context.Context, lo, hi int64) (*kgo.Record, error) {
	for hi-lo > seekStretch {
		mid := lo + (hi-lo)/2
		rec, src, err := s.first(ctx, mid, hi)
		switch {
		case err != nil:
			return nil, err
		case rec == nil || src.offset > s.want.offset:
			hi = mid
		case src.offset == s.want.offset:
			return rec, nil
		default:
			lo = rec.Offset + 1
		}
	}
	for lo < hi {
		recs, next, err := s.fetch(ctx, lo)
		if err != nil {
			return nil, err
		}
		for _, r := range recs {
			if src, ok := s.source(r); ok && r.Offset < hi && src == s.want {
				return r, nil
			}
		}
		lo = next
	}
	return nil, nil
}

// first is the first record of the source partition in [from, to).
func (s *seeker) first(ctx context.Context, from, to int64) (*kgo.Record, source, error) {
	for from < to {
		recs, next, err := s.fetch(ctx, from)
		if err != nil {
			return nil, source{}, err
		}
		for _, r := range recs {
			if r.Offset >= to {
				break
			}
			if src, ok := s.source(r); ok && src.partition == s.want.partition {
				return r, src, nil
			}
		}
		from = next
	}
	return nil, source{}, nil
}

func (s *seeker) source(r *kgo.Record) (source, bool) {
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if r.Headers[i].Key == sourceHeader {
			m := asHeaders(r.Headers[i : i+1])
			src, why := sourceOf(s.input, m)
			return src, why == ""
		}
	}
	return source{}, false
}

// fetch moves on, or fails.
func (s *seeker) fetch(ctx context.Context, from int64) ([]*kgo.Record, int64, error) {
	if s.left--; s.left < 0 {
		return nil, 0, ErrNotSought
	}
	recs, next, err := s.k.fetchOnce(ctx, s.topic, s.partition, s.k.topics[s.topic].Partitions[s.partition].Leader, from, seekBytes)
	if errors.Is(err, kerr.NotLeaderForPartition) || errors.Is(err, kerr.UnknownLeaderEpoch) {
		if topics, merr := s.k.adm.ListTopics(ctx, s.topic); merr == nil && topics.Error() == nil {
			s.k.topics[s.topic] = topics[s.topic]
		}
	}
	if err == nil && next <= from {
		err = ErrNotSought
	}
	return recs, next, err
}
