package behaviour

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/internal/admin"
)

// forensics tells, when an audit found something, what the output topic's log really holds: uncommitted records and markers too, with
// the producer that wrote them.
func (b *bundle) forensics() string {
	ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(append(admin.Options(&b.cfg), kgo.ConsumeTopics(b.cfg.Topics.Output), kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		return err.Error()
	}
	defer cl.Close()
	ends, err := b.adm.Kadm().ListEndOffsets(ctx, b.cfg.Topics.Output)
	if err != nil {
		return err.Error()
	}
	left := map[int32]bool{}
	for p, e := range ends[b.cfg.Topics.Output] {
		left[p] = e.Offset > 0
	}
	var s strings.Builder
	run := map[string]string{}
	for ctx.Err() == nil && len(left) > 0 {
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			source := ""
			for _, h := range r.Headers {
				if h.Key == "exactly-source" {
					source = string(h.Value)
				}
			}
			key := fmt.Sprintf("%d/%d/%d/%s", r.Partition, r.ProducerID, r.ProducerEpoch, source[:max(strings.LastIndexByte(source, '/'), 0)])
			if r.Attrs.IsControl() {
				fmt.Fprintf(&s, "out/%d@%d %s producer %d epoch %d type %d\n", r.Partition, r.Offset, r.Timestamp.Format("05.000"), r.ProducerID, r.ProducerEpoch, binary.BigEndian.Uint16(r.Key[2:]))
				run[key] = ""
			} else if run[key] != "seen" {
				run[key] = "seen"
				fmt.Fprintf(&s, "out/%d@%d producer %d epoch %d first of %s\n", r.Partition, r.Offset, r.ProducerID, r.ProducerEpoch, source)
			}
			if r.Offset+1 >= ends[b.cfg.Topics.Output][r.Partition].Offset {
				delete(left, r.Partition)
			}
		})
	}
	return s.String()
}

// group tells who is in the consumer group, and who has which partitions.
func (b *bundle) group() {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	gs, err := b.adm.Kadm().DescribeGroups(ctx, b.cfg.Group)
	if err != nil {
		b.t.Logf("the group can't be told: %v", err)
	}
	for _, g := range gs {
		b.t.Logf("group %s: %s %v", g.Group, g.State, g.Err)
		for _, m := range g.Members {
			a, _ := m.Assigned.AsConsumer()
			b.t.Logf("  member %s (%s): %+v", *m.InstanceID, m.MemberID, a)
		}
	}
}
