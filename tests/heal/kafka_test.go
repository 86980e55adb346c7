package heal

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/connect"
	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
)

// events are what both output topics hold, by topic, partition and source partition, in order: all of a record but its offset.
func (b *world) events() (out map[string][]string) {
	b.t.Helper()
	b.until("the outputs are read to their ends", func() bool {
		var err error
		if out, err = b.read(patience / 6); err != nil { // a broker may give the ends of the topic that a recreated one replaces, which are never reached
			b.t.Logf("read the outputs: %v", err)
		}
		return err == nil
	})
	return out
}

func (b *world) read(within time.Duration) (map[string][]string, error) {
	ctx, cancel := context.WithTimeout(b.ctx, within)
	defer cancel()
	out := map[string][]string{}
	topics := []string{b.cfg.Topics.Output, b.cfg.Topics.DLQ}
	starts, ends, err := b.adm.LogRange(ctx, topics...)
	if err != nil {
		return nil, err
	}
	left := map[string]int64{}
	from := map[string]map[int32]kgo.Offset{}
	ends.Each(func(e kadm.ListedOffset) {
		if s, _ := starts.Lookup(e.Topic, e.Partition); e.Offset > s.Offset {
			left[fmt.Sprint(e.Topic, e.Partition)] = e.Offset
			if from[e.Topic] == nil {
				from[e.Topic] = map[int32]kgo.Offset{}
			}
			from[e.Topic][e.Partition] = kgo.NewOffset().AtStart()
		}
	})
	cl, err := kgo.NewClient(append(admin.Options(&b.cfg), kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	for len(left) > 0 {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			return nil, err
		}
		fs.EachRecord(func(r *kgo.Record) {
			if log := fmt.Sprint(r.Topic, r.Partition); r.Offset+1 >= left[log] {
				delete(left, log)
			}
			if r.Attrs.IsControl() {
				return
			}
			p, o, err := admin.ParseSource(admin.Source(r), b.cfg.Topics.Input)
			if err != nil {
				p, o, err = admin.ParseSource(admin.Source(r), b.cfg.Topics.Replay)
			}
			require.NoError(b.t, err)
			key := fmt.Sprintf("%s/%d from %d", r.Topic, r.Partition, p)
			out[key] = append(out[key], fmt.Sprintf("%d %d %t %x %t %x %+v", o, r.Timestamp.UnixMilli(), r.Key == nil, r.Key, r.Value == nil, r.Value, r.Headers))
		})
	}
	return out, nil
}

func sameEvents(t *testing.T, want, got map[string][]string) {
	t.Helper()
	require.Len(t, got, len(want))
	for k := range want {
		require.Equal(t, len(want[k]), len(got[k]), k)
		for i := range want[k] {
			require.Equal(t, want[k][i], got[k][i], "%s, record %d", k, i)
		}
	}
}

func (b *world) drop(topics ...string) {
	b.t.Helper()
	for _, name := range topics {
		_, err := b.adm.Kadm().DeleteTopic(b.ctx, name)
		require.NoError(b.t, err)
	}
	b.until("they are gone", func() bool {
		ids, err := b.adm.TopicIDs(b.ctx)
		require.NoError(b.t, err)
		return !contains(ids, topics)
	})
}

func contains(ids map[string]string, topics []string) bool {
	for _, name := range topics {
		if ids[name] != "" {
			return true
		}
	}
	return false
}

func (b *world) recreate(topics ...string) {
	b.t.Helper()
	b.drop(topics...)
	for _, name := range topics {
		_, err := b.adm.Kadm().CreateTopic(b.ctx, partitions, 1, nil, name)
		require.NoError(b.t, err)
	}
	require.NoError(b.t, b.adm.AwaitTopics(b.ctx, topics...))
}

// The output topics deleted, one of them recreated by somebody, with a gap that Kafka is still owed: run refuses and names the command, heal publishes
// again what was published, the next owner what was owed. A worker that was running goes on without a restart.
func TestOutputsRecreated(t *testing.T) {
	t.Parallel()
	recreated(t, clicks, "EXACTLY_BATCH_DRAIN_RECORDS=700")
}

func recreated(t *testing.T, clicks int, with ...string) {
	t.Helper()
	b := newWorld(t, with...)
	b.alone(clicks)
	b.alone(clicks, geoDatabase(t))
	was := b.events()
	b.generate(clicks)
	require.Equal(t, -1, b.start("dead", "EXACTLY_FAILPOINT="+fp.CaptureCommitted+"=kill@2").ended())
	b.empty()
	b.recreate(b.cfg.Topics.Output)
	b.drop(b.cfg.Topics.DLQ)
	out, code := b.try(nil, "run")
	require.Equal(t, 1, code, out)
	require.Contains(t, out, "exactly heal kafka")
	require.Contains(t, b.exactly("heal", "kafka", "--dry-run"), "would be published again")
	ids, err := b.adm.TopicIDs(b.ctx)
	require.NoError(t, err)
	require.Empty(t, ids[b.cfg.Topics.DLQ], "a dry run makes nothing")
	require.Regexp(t, `published \d+ events of the records \[0,\d+\) again`, b.exactly("heal", "kafka", "--reason", "test"))
	got := b.events()
	for k := range got { // what the dead worker had published before it died is a part of it
		require.GreaterOrEqual(t, len(got[k]), len(was[k]))
		got[k] = got[k][:len(was[k])]
	}
	sameEvents(t, was, got)
	require.Contains(t, b.exactly("heal", "kafka", "--reason", "test"), "nothing to heal")
	b.start("b")
	b.settle()
	require.EqualValues(t, partitions, b.scalar(`SELECT count(*) FROM offset_ledger WHERE kind = 'heal'`))

	b.recreate(b.cfg.Topics.Output)
	b.workers[len(b.workers)-1].says("partition stopped: topic .* is not the one .* exactly heal kafka")
	b.exactly("heal", "kafka", "--reason", "again")
	b.generate(clicks)
	b.settle()
}

// Killed anywhere, and run again.
func TestOutputsKilled(t *testing.T) {
	for _, at := range []string{fp.HealProduced + "=kill@2", fp.HealPublished + "=kill@1", fp.HealPublished + "=kill@4", fp.HealRecorded + "=kill"} {
		t.Run(at, func(t *testing.T) {
			b := setup(t, "EXACTLY_BATCH_DRAIN_RECORDS=300")
			b.alone(2 * clicks)
			was := b.events()
			b.recreate(b.cfg.Topics.Output, b.cfg.Topics.DLQ)
			h := b.spawn("heal", []string{"EXACTLY_FAILPOINT=" + at}, "heal", "kafka", "--reason", "first")
			require.Equal(t, -1, h.ended(), h.log.Tail())
			require.Contains(t, b.exactly("offsets", "show"), "heal kafka: first")
			b.exactly("heal", "kafka", "--reason", "second")
			var now map[string][]string
			b.until("brokers take a recreated topic for the one before for a moment", func() bool { now = b.events(); return len(now) == len(was) })
			sameEvents(t, was, now)
			b.start("b")
			b.generate(clicks)
			b.settle()
		})
	}
}

// The group offsets are gone with the topic: all that was certainly published is published again, the next owner goes on from there.
func TestOutputsAndGroupOffsetsGone(t *testing.T) {
	b := setup(t)
	b.alone(clicks)
	b.alone(clicks)
	was := b.events()
	set := kadm.TopicsSet{}
	for _, p := range all {
		set.Add(b.cfg.Topics.Input, p)
	}
	_, err := b.adm.Kadm().DeleteOffsets(b.ctx, b.cfg.Group, set)
	require.NoError(t, err)
	b.recreate(b.cfg.Topics.Output)
	b.exactly("heal", "kafka", "--reason", "test")
	w := b.start("b")
	w.says("group offsets are gone: scanning")
	b.settle()
	sameEvents(t, was, b.events())
}

// What the outbox no longer keeps is said, in the ledger too; the rest is published.
func TestOutputsBeyondTheOutbox(t *testing.T) {
	b := setup(t)
	captured := func(daysAgo int) { // as if what comes was captured then
		b.sql(func(c *pgx.Conn) {
			_, err := c.Exec(b.ctx, `SELECT exactly_make_time_partitions(current_date - 5, current_date - 2), exactly_grant()`)
			require.NoError(t, err)
			for table, column := range map[string]string{"outbox": "created_at", "dead_letters": "created_at", "enriched_clicks": "captured_at", "offset_ledger": "captured_at"} {
				_, err := c.Exec(b.ctx, fmt.Sprintf(`ALTER TABLE %s ALTER %s SET DEFAULT now() - interval '%d days'`, table, column, daysAgo))
				require.NoError(t, err)
			}
		})
	}
	captured(4)
	b.alone(clicks)
	captured(0)
	b.alone(clicks)
	out, code := b.try([]string{"EXACTLY_RETENTION_OUTBOX=48h"}, "prune")
	require.Zero(t, code, out)
	kept := b.scalar(`SELECT count(*) FROM outbox`)
	require.Less(t, kept, b.sent)
	require.Positive(t, kept)
	b.recreate(b.cfg.Topics.Output, b.cfg.Topics.DLQ)
	require.Regexp(t, `\d+ events from before offset \d+ are beyond what the outbox keeps, and are gone`, b.exactly("heal", "kafka", "--reason", "test"))
	n := 0
	for _, es := range b.events() {
		n += len(es)
	}
	require.EqualValues(t, kept, n)
	require.EqualValues(t, partitions, b.scalar(`SELECT count(*) FROM offset_ledger WHERE kind = 'heal' AND why LIKE '%from before are beyond what it keeps%'`))
	b.start("b")
	b.generate(clicks)
	b.settle()
	r := b.audit(true)
	require.Contains(t, strings.Join(r.Notes, "\n"), "could not do better")
}

// Later events are there already: refused, unless somebody wants them in any order. Nothing is published twice, and nothing is missing then.
func TestOutputsOutOfOrder(t *testing.T) {
	b := setup(t)
	b.alone(clicks)
	b.recreate(b.cfg.Topics.Output)
	b.exactly("setup", "--accept-recreated", "test")
	b.generate(clicks)
	w := b.start("a")
	b.until("it goes on", func() bool { return b.stored() == b.sent && b.published() == b.sent })
	w.stop()
	out, code := b.try(nil, "heal", "kafka", "--reason", "test")
	require.Equal(t, 1, code, out)
	require.Contains(t, out, "--out-of-order")
	require.Zero(t, b.scalar(`SELECT count(*) FROM partition_offsets WHERE state <> 'open'`))
	b.exactly("heal", "kafka", "--reason", "test", "--out-of-order")
	require.Contains(t, strings.Join(b.audit(true).Notes, "\n"), "stand behind later ones in")
	b.sql(func(c *pgx.Conn) { // nothing but the entry excuses it
		_, err := c.Exec(b.ctx, `ALTER TABLE offset_ledger DISABLE TRIGGER offset_ledger_append_only; UPDATE offset_ledger SET why = 'test' WHERE kind = 'heal'`)
		require.NoError(t, err)
	})
	o, err := connect.Audit(&b.cfg)
	require.NoError(t, err)
	r, err := audit.Run(b.ctx, o)
	require.NoError(t, err)
	require.Positive(t, r.Found[audit.OutOfOrder])
	require.Zero(t, r.Found[audit.Missing]+r.Found[audit.Duplicate])
}

// What was erased can't be published again; the audit is clean all the same, and says that it is not there.
func TestOutputsRecreatedAfterAnErasure(t *testing.T) {
	b := setup(t)
	b.alone(clicks)
	b.eraseOne(1)
	b.recreate(b.cfg.Topics.Output)
	require.Contains(t, b.exactly("heal", "kafka", "--reason", "test"), "were erased")
	b.start("b")
	b.generate(clicks)
	b.settle()
	require.Contains(t, strings.Join(b.audit(true).Notes, "\n"), "records that were erased are in no topic any more")
}

// Killed behind its last commit, where no topic is another one: the next one finds nothing to do, and the ledger says all the same what was done.
func TestOutputsKilledAtTheEnd(t *testing.T) {
	b := setup(t)
	b.alone(clicks)
	b.recreate(b.cfg.Topics.Output, b.cfg.Topics.DLQ)
	b.exactly("setup", "--accept-recreated", "test")
	h := b.spawn("heal", []string{"EXACTLY_FAILPOINT=" + fp.HealPublished + "=kill@4"}, "heal", "kafka", "--reason", "first")
	require.Equal(t, -1, h.ended(), h.log.Tail())
	require.Zero(t, b.scalar(`SELECT count(*) FROM offset_ledger WHERE kind = 'heal'`))
	require.Contains(t, b.exactly("heal", "kafka", "--reason", "second"), "a heal that was killed had begun it")
	require.EqualValues(t, partitions, b.scalar(`SELECT count(*) FROM offset_ledger WHERE kind = 'heal' AND why LIKE 'second %heal kafka: first%'`))
	require.Contains(t, b.exactly("heal", "kafka", "--reason", "third"), "nothing to heal")
	b.start("b")
	b.settle()
}

// A worker has captured, and goes on to publish in the middle of a heal: what it owes comes behind what the heal publishes again, never before it.
func TestOutputsRecreatedUnderAnOwner(t *testing.T) {
	b := setup(t, "EXACTLY_BATCH_DRAIN_RECORDS=100")
	b.alone(clicks)
	b.generate(clicks)
	w := b.start("w", "EXACTLY_FAILPOINT="+fp.CaptureCommitted+"=hold")
	b.until("something is captured", func() bool { return b.hit(fp.CaptureCommitted) })
	b.recreate(b.cfg.Topics.Output)
	h := b.spawn("heal", []string{"EXACTLY_FAILPOINT=" + fp.HealPublished + "=hold@1"}, "heal", "kafka", "--reason", "test")
	b.until("the heal is in the middle", func() bool { return b.hit(fp.HealPublished) })
	b.release(fp.CaptureCommitted)
	w.says("partition is held")
	b.release(fp.HealPublished)
	require.Zero(t, h.ended(), h.log.Tail())
	b.settle()
}
