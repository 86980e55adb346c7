package admin

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/internal/progress"
)

// SourceHeader names the header that says which source record a message came from: topic/partition/offset.
const SourceHeader = "exactly-source"

// ScanOutputs implements engine.Group. It reads both output topics, read_committed, up to the end they have now: past every
// transaction that is open now, so that nothing which may still be committed is overlooked.
func (a *Admin) ScanOutputs(ctx context.Context, partitions []int32) (map[int32]int64, error) {
	t := a.cfg.Topics
	starts, ends, err := a.LogRange(ctx, t.Output, t.DLQ)
	if err != nil {
		return nil, fmt.Errorf("scan outputs: %w", err)
	}
	left := map[string]map[int32]int64{}
	from := map[string]map[int32]kgo.Offset{}
	n := 0
	var done, total int64
	ends.Each(func(e kadm.ListedOffset) {
		s, _ := starts.Lookup(e.Topic, e.Partition)
		if e.Offset <= s.Offset {
			return
		}
		if left[e.Topic] == nil {
			left[e.Topic], from[e.Topic] = map[int32]int64{}, map[int32]kgo.Offset{}
		}
		left[e.Topic][e.Partition] = e.Offset
		from[e.Topic][e.Partition] = kgo.NewOffset().At(s.Offset)
		total += e.Offset - s.Offset
		n++
	})
	found := map[int32]int64{}
	for _, p := range partitions {
		found[p] = 0
	}
	if n == 0 {
		return found, nil
	}
	cl, err := kgo.NewClient(append(Options(a.cfg), kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), kgo.ConsumeResetOffset(kgo.NoResetOffset()))...)
	if err != nil {
		return nil, fmt.Errorf("scan outputs: %w", err)
	}
	defer cl.Close()
	for n > 0 {
		fs := cl.PollFetches(ctx)
		if err := fs.Err0(); err != nil {
			return nil, fmt.Errorf("scan outputs: %w", err)
		}
		for _, e := range fs.Errors() {
			return nil, fmt.Errorf("scan outputs: %s/%d: %w", e.Topic, e.Partition, e.Err)
		}
		fs.EachPartition(func(p kgo.FetchTopicPartition) {
			for _, r := range p.Records {
				a.seen(found, r)
				done++ // a compacted or aborted log has fewer: the estimate is on the long side
				if end, ok := left[p.Topic][p.Partition]; ok && r.Offset+1 >= end {
					delete(left[p.Topic], p.Partition)
					n--
				}
			}
		})
		progress.Of(ctx).At("reading the output topics", done, total)
	}
	return found, nil
}

func (a *Admin) seen(found map[int32]int64, r *kgo.Record) {
	if r.Attrs.IsControl() {
		return
	}
	p, o, err := ParseSource(Source(r), a.cfg.Topics.Input)
	if _, asked := found[p]; err == nil && asked {
		found[p] = max(found[p], o+1)
	}
}

// Source is the value of an event's exactly-source header, empty if it has none. The last one counts: a dead letter has its record's own headers
// before ours, and among those may be anything.
func Source(r *kgo.Record) string {
	for i := len(r.Headers) - 1; i >= 0; i-- {
		if r.Headers[i].Key == SourceHeader {
			return string(r.Headers[i].Value)
		}
	}
	return ""
}

// ParseSource reads an exactly-source header's value, topic/partition/offset, of the topic given.
func ParseSource(v, topic string) (int32, int64, error) {
	rest, ok := strings.CutPrefix(v, topic+"/")
	ps, os, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 {
		return 0, 0, errors.New("not a source of " + topic + ": " + strconv.Quote(v))
	}
	p, err := strconv.ParseInt(ps, 10, 32)
	if err != nil {
		return 0, 0, err
	}
	o, err := strconv.ParseInt(os, 10, 64)
	return int32(p), o, err
}
