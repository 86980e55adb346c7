package behaviour

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/exactly-pipeline/exactly/internal/admin"
	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/txn"
)

// alone runs one worker until everything is done, then stops it.
func (b *bundle) alone(n int) {
	b.t.Helper()
	b.generate(n)
	w := b.start("a")
	b.settle()
	w.stop()
	b.until("the group is empty", func() bool {
		m, err := b.adm.Members(b.ctx)
		require.NoError(b.t, err)
		return len(m) == 0
	})
}

// commit sets the group offset of a partition by hand.
func (b *bundle) commit(partition int32, offset int64, metadata string) {
	b.t.Helper()
	os := kadm.Offsets{}
	os.Add(kadm.Offset{Topic: b.cfg.Topics.Input, Partition: partition, At: offset, LeaderEpoch: -1, Metadata: metadata})
	require.NoError(b.t, b.adm.Kadm().CommitAllOffsets(b.ctx, b.cfg.Group, os))
}

func (b *bundle) offset(partition int32) int64 {
	b.t.Helper()
	return b.scalar(`SELECT next_offset FROM partition_offsets WHERE source_partition = $1`, partition)
}

// Killed between the very first capture and the first publish: there is no group offset, and something was captured.
func TestKilledBeforeFirstPublish(t *testing.T) {
	b := setup(t)
	b.generate(clicks / 2)
	b.start("a", failpoint(fp.CaptureCommitted+"=kill")).killed(fp.CaptureCommitted)
	require.Zero(t, b.published())
	require.Positive(t, b.stored())
	b.start("b").says("group offsets are gone: scanning")
	b.settle()
}

func TestGroupOffsetDeleted(t *testing.T) {
	b := setup(t)
	b.alone(clicks / 4)
	_, err := b.adm.Kadm().DeleteOffsets(b.ctx, b.cfg.Group, kadm.TopicsSet{b.cfg.Topics.Input: {3: {}, 4: {}}})
	require.NoError(t, err)
	b.generate(clicks / 4)
	b.start("b").says("group offsets are gone: scanning")
	b.settle()
}

// The group offset deleted while Kafka is still owed something: only what a stable read does not find is published.
func TestGroupOffsetDeletedWithGap(t *testing.T) {
	b := setup(t)
	b.generate(clicks / 4)
	b.start("a", failpoint(fp.CaptureCommitted+"=kill@8")).killed(fp.CaptureCommitted)
	b.until("a has left the group", func() bool {
		m, err := b.adm.Members(b.ctx)
		require.NoError(t, err)
		return len(m) == 0
	})
	set := kadm.TopicsSet{}
	for p := range int32(partitions) {
		set.Add(b.cfg.Topics.Input, p)
	}
	_, err := b.adm.Kadm().DeleteOffsets(b.ctx, b.cfg.Group, set)
	require.NoError(t, err)
	b.start("b").says("group offsets are gone: scanning")
	b.settle()
}

// The group offset set by hand, forwards and backwards, with and without our metadata: the partition stops, says what happened and
// what repairs it, the others go on; repaired, it goes on without a restart.
func TestGroupOffsetReset(t *testing.T) {
	for name, c := range map[string]struct {
		by       int64
		metadata string
		says     string
	}{
		"forwards":                {+7, "", "was set to .* by somebody else"},
		"backwards":               {-7, "", "was set to .* by somebody else"},
		"forwards, our metadata":  {+7, txn.Metadata(1, 1), "Postgres has gone back in time"},
		"backwards, our metadata": {-1 << 40, txn.Metadata(1, 1), "was already seen at"},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.alone(clicks / 4)
			b.alone(clicks / 4) // so that the first group offsets are known to Postgres
			b.commit(5, max(b.offset(5)+c.by, 0), c.metadata)
			b.generate(clicks / 4)
			w := b.start("b")
			w.says("partition stopped: .*" + c.says)
			b.until("the other partitions go on", func() bool {
				return b.scalar(`SELECT count(*) FROM (SELECT source_partition FROM offset_ledger WHERE worker = 'b' AND kind = 'capture' GROUP BY 1) x`) == partitions-1
			})
			require.Contains(t, b.exactly("offsets", "restore", "--partition", "5", "--reason", "test"), "5")
			b.settle()
		})
	}
}

// The input expired before it was read: the partition stops and names how many records; accepted, it goes on.
func TestInputExpired(t *testing.T) {
	b := setup(t)
	b.alone(clicks / 4)
	was := b.offset(2)
	b.generate(clicks / 4)
	os := kadm.Offsets{}
	os.Add(kadm.Offset{Topic: b.cfg.Topics.Input, Partition: 2, At: was + 10})
	_, err := b.adm.Kadm().DeleteRecords(b.ctx, os)
	require.NoError(t, err)
	w := b.start("b")
	w.says("partition stopped: 10 records, offsets .* expired")
	b.exactly("offsets", "accept-loss", "--partition", "2", "--to", itoa(was+10), "--reason", "test")
	b.until("everything else is stored and published", func() bool { return b.stored() == b.sent && b.published() == b.sent })
}

// Records expire underneath a worker that is behind: the client says so once, and not which partition. It stops as it would at a start, and
// the others go on.
func TestInputExpiresWhileReading(t *testing.T) {
	b := setup(t)
	w := b.start("a")
	b.generate(clicks / 4)
	b.settle()
	w.signal(syscall.SIGSTOP)
	b.generate(clicks / 4)
	ends, err := b.adm.Kadm().ListEndOffsets(b.ctx, b.cfg.Topics.Input)
	require.NoError(t, err)
	end, _ := ends.Lookup(b.cfg.Topics.Input, 2)
	os := kadm.Offsets{}
	os.Add(kadm.Offset{Topic: b.cfg.Topics.Input, Partition: 2, At: end.Offset})
	_, err = b.adm.Kadm().DeleteRecords(b.ctx, os)
	require.NoError(t, err)
	w.signal(syscall.SIGCONT)
	w.says("partition stopped: [0-9]+ records, offsets .* expired")
	b.exactly("offsets", "accept-loss", "--partition", "2", "--to", itoa(end.Offset), "--reason", "test")
	b.until("everything else is stored and published", func() bool { return b.stored() == b.sent && b.published() == b.sent })
}

// recreate deletes a topic and makes it anew, and returns when no broker takes it for the old one any more: each learns of it by itself (KRaft).
func (b *bundle) recreate(topic string) {
	b.t.Helper()
	cl, err := kgo.NewClient(admin.Options(&b.cfg)...)
	require.NoError(b.t, err)
	defer cl.Close()
	_, err = b.adm.Kadm().DeleteTopic(b.ctx, topic)
	require.NoError(b.t, err)
	made, err := b.adm.Kadm().CreateTopic(b.ctx, partitions, 1, nil, topic)
	require.NoError(b.t, err)
	brokers, err := b.adm.Kadm().ListBrokers(b.ctx)
	require.NoError(b.t, err)
	for _, at := range brokers {
		b.until("the broker knows the new topic", func() bool {
			req := kmsg.NewPtrMetadataRequest()
			t := kmsg.NewMetadataRequestTopic()
			t.Topic = &topic
			req.Topics = append(req.Topics, t)
			res, err := cl.Broker(int(at.NodeID)).Request(b.ctx, req)
			return err == nil && res.(*kmsg.MetadataResponse).Topics[0].TopicID == [16]byte(made.ID)
		})
	}
}

// A recreated input topic is another source: the worker refuses it, also while it is consuming.
func TestTopicRecreated(t *testing.T) {
	for _, which := range []string{"input", "output"} {
		t.Run(which, func(t *testing.T) {
			b := setup(t)
			b.generate(clicks / 4)
			w := b.start("a")
			b.settle()
			topic := map[string]string{"input": b.cfg.Topics.Input, "output": b.cfg.Topics.Output}[which]
			b.recreate(topic)
			w.says("topic " + topic + " is not the one this source was set up with")
			out, code := b.try("run")
			require.Equal(t, 1, code, out)
			require.Contains(t, out, "--accept-recreated")
		})
	}
}

// A recreated input is accepted as another source, with outputs of its own: its events could not be told from the old ones'.
func TestRecreatedInputAccepted(t *testing.T) {
	b := setup(t)
	b.alone(clicks / 4)
	b.recreate(b.cfg.Topics.Input)
	out, code := b.try("setup")
	require.Equal(t, 1, code, out)
	require.Contains(t, out, "--accept-recreated")
	out, code = b.try("setup", "--accept-recreated", "test")
	require.Equal(t, 1, code, out)
	require.Contains(t, out, "give the new source outputs of its own")

	b.env["EXACTLY_TOPICS_OUTPUT"] += ".2"
	b.env["EXACTLY_TOPICS_DLQ"] += ".2"
	b.cfg.Topics.Output, b.cfg.Topics.DLQ = b.env["EXACTLY_TOPICS_OUTPUT"], b.env["EXACTLY_TOPICS_DLQ"]
	b.exactly("setup", "--accept-recreated", "test")
	b.generate(clicks / 4)
	b.start("b")
	b.until("the new source's clicks are stored and published", func() bool {
		return b.scalar(`SELECT coalesce(sum(next_offset), 0)::bigint FROM partition_offsets p JOIN sources s USING (source_id) WHERE s.retired_at IS NULL`) == clicks/4 &&
			b.published() == clicks/4
	})
	require.EqualValues(t, clicks/4, b.audit(true).Totals.Input)
}

// The outbox lacks what the ledger says was captured: the partition stops instead of draining past it.
func TestOutboxIncomplete(t *testing.T) {
	b := setup(t)
	b.generate(clicks / 4)
	b.start("a", failpoint(fp.CaptureCommitted+"=kill")).killed(fp.CaptureCommitted)
	tag, err := b.db.Exec(b.ctx, `DELETE FROM outbox WHERE (source_partition, source_offset) = (SELECT source_partition, max(source_offset) FROM outbox GROUP BY 1 LIMIT 1)`)
	require.NoError(t, err)
	require.EqualValues(t, 1, tag.RowsAffected())
	b.start("b").says("partition stopped: the outbox holds .* messages of offsets .*, the ledger counted")
}
