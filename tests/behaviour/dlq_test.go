package behaviour

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/admin"
	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
)

// refusing is a test's own limit on what the database takes: so many clicks become dead letters, and nothing is wrong with them once it is lifted.
func (b *bundle) refusing() {
	_, err := b.db.Exec(b.ctx, `ALTER TABLE enriched_clicks ADD CONSTRAINT not_these CHECK (source_offset % 97 <> 13 OR source_id <> 1)`)
	require.NoError(b.t, err)
}

func (b *bundle) dead(state string) int64 {
	return b.scalar(`SELECT count(*) FROM exactly_dead_letters WHERE ($1 = '' OR state = $1) AND error_class = 'refused'`, state)
}

// replayed is what a replay's report says.
type replayed struct {
	Selected, Requested, Pointers, Captured int
	Again                                   int `json:"failed_again"`
}

func (b *bundle) replay(args ...string) (r replayed) {
	b.t.Helper()
	out := b.exactly(append([]string{"dlq", "replay", "--class", "refused", "--reason", "test", "--json"}, args...)...)
	return b.reported(out)
}

func (b *bundle) reported(out string) (r replayed) {
	b.t.Helper()
	require.NoError(b.t, json.Unmarshal([]byte(out[strings.IndexByte(out, '{'):]), &r), out)
	return r
}

// republished are the origins of what replays have published, each with how often, by topic.
func (b *bundle) republished() map[string]map[string]int {
	b.t.Helper()
	out := map[string]map[string]int{}
	for _, topic := range []string{b.cfg.Topics.Output, b.cfg.Topics.DLQ} {
		out[topic] = map[string]int{}
		ends, err := b.adm.Kadm().ListCommittedOffsets(b.ctx, topic)
		require.NoError(b.t, err)
		cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(b.cfg.Kafka.Brokers, ",")...), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords())
		require.NoError(b.t, err)
		left := map[int32]int64{}
		ends.Each(func(o kadm.ListedOffset) {
			if o.Offset > 0 {
				left[o.Partition] = o.Offset
			}
		})
		for len(left) > 0 {
			cl.PollFetches(b.ctx).EachRecord(func(r *kgo.Record) {
				if r.Offset+1 >= left[r.Partition] {
					delete(left, r.Partition)
				}
				for _, h := range r.Headers {
					if h.Key == "exactly-origin" && !r.Attrs.IsControl() {
						out[topic][string(h.Value)]++
					}
				}
			})
			require.NoError(b.t, b.ctx.Err())
		}
		cl.Close()
	}
	return out
}

// replaysPublished waits until Kafka is owed nothing of what replays captured. A worker killed between its two transactions leaves that to the next
// owner, a session later, and a command that finds everything captured has nothing left to wait for.
func (b *bundle) replaysPublished(events int) {
	b.t.Helper()
	own := b.cfg.Replay()
	adm, err := admin.New(&own, zap.NewNop())
	require.NoError(b.t, err)
	defer adm.Close()
	b.until("the replays' group is at the end of its pointers", func() bool {
		ends, err := b.adm.Kadm().ListEndOffsets(b.ctx, own.Topics.Input)
		if err != nil || ends.Error() != nil {
			return false
		}
		var ids []int32
		ends.Each(func(e kadm.ListedOffset) {
			if e.Offset > 0 {
				ids = append(ids, e.Partition)
			}
		})
		at, err := adm.GroupOffsets(b.ctx, ids)
		for _, p := range ids {
			end, _ := ends.Lookup(own.Topics.Input, p)
			if g := at[p]; err != nil || !g.Has || g.Pending || g.Offset < end.Offset {
				return false
			}
		}
		return len(ids) > 0
	})
	b.until("readers see each event", func() bool { return len(b.republished()[b.cfg.Topics.Output]) >= events })
}

// Dead letters are handed in again while commands and workers are killed at every point, twice and by two at once; each is captured once, published once,
// and named in the ledger.
func TestReplayKilledAt(t *testing.T) {
	for _, c := range []struct{ command, worker string }{
		{fp.ReplayRequested, ""}, {fp.ReplayWritten, ""}, {"", fp.CaptureBefore}, {"", fp.CaptureCopied}, {"", fp.CaptureCommitSent}, {"", fp.CaptureCommitted},
		{"", fp.PublishProduced}, {"", fp.PublishOffsetsSent}, {"", fp.PublishCommitSent}, {"", fp.PublishCommitted},
	} {
		point := c.command + c.worker
		t.Run(point, func(t *testing.T) {
			b := setup(t)
			b.refusing()
			b.alone(clicks / 4)
			letters := b.dead("")
			require.Greater(t, letters, int64(20))
			_, err := b.db.Exec(b.ctx, `ALTER TABLE enriched_clicks DROP CONSTRAINT not_these`)
			require.NoError(t, err)

			if c.command != "" {
				b.env["EXACTLY_FAILPOINT"], b.env["EXACTLY_FAILPOINT_DIR"] = point+"=kill", b.dir
				out, code := b.try("dlq", "replay", "--class", "refused", "--reason", "test", "--by", "somebody")
				require.Equal(t, -1, code, out)
				require.True(t, b.hit(point))
				delete(b.env, "EXACTLY_FAILPOINT")
				require.EqualValues(t, letters, b.dead("requested"))
				b.start("a")
			} else {
				require.EqualValues(t, letters, b.replay("--by", "somebody").Requested)
				b.start("a", failpoint(point+"=kill")).killed(point) // nothing else is left to do
				b.start("b")
			}
			// Again, and two at once: the pointers are written twice or thrice.
			done := make(chan replayed)
			go func() { done <- b.replay("--wait", "90s") }()
			one, two := b.replay("--wait", "90s"), <-done
			require.Zero(t, one.Requested+two.Requested)
			require.EqualValues(t, letters, b.dead("replayed"))
			require.Zero(t, b.dead("open"))
			require.EqualValues(t, letters, b.scalar(`SELECT count(*) FROM enriched_clicks e JOIN replay_captures c USING (source_id, source_partition, source_offset)`))
			require.EqualValues(t, letters, b.scalar(`SELECT count(DISTINCT (of_source_id, of_partition, of_offset)) FROM replay_captures`))
			require.EqualValues(t, letters, b.scalar(`SELECT sum(records)::bigint FROM offset_ledger WHERE kind = 'replay' AND who = 'somebody' AND why LIKE 'test (replay %'`))
			b.replaysPublished(int(letters))
			got := b.republished()
			require.Len(t, got[b.cfg.Topics.Output], int(letters))
			require.Empty(t, got[b.cfg.Topics.DLQ])
			for origin, n := range got[b.cfg.Topics.Output] {
				require.Equal(t, 1, n, origin)
			}
			b.audit(true)
		})
	}
}

// Several commands at once on letters that are open: each letter is requested by one of them, and comes through once. What lies in the topic of pointers and
// is none becomes a dead letter itself, and can be seen.
func TestReplaysAtOnce(t *testing.T) {
	b := setup(t)
	b.refusing()
	b.alone(clicks / 4)
	letters := b.dead("open")
	require.Greater(t, letters, int64(20))
	_, err := b.db.Exec(b.ctx, `ALTER TABLE enriched_clicks DROP CONSTRAINT not_these`)
	require.NoError(t, err)
	_, code := b.try("dlq", "list", "--pointers")
	require.Equal(t, 1, code, "nothing was ever replayed")
	const commands = 3
	type ended struct {
		out  string
		code int
	}
	done := make(chan ended, commands)
	for range commands {
		go func() {
			out, code := b.try("dlq", "replay", "--class", "refused", "--reason", "test", "--json")
			done <- ended{out, code}
		}()
	}
	requested := 0
	for range commands {
		e := <-done
		require.Zero(t, e.code, e.out)
		requested += b.reported(e.out).Requested
	}
	require.EqualValues(t, letters, requested)
	require.EqualValues(t, letters, b.scalar(`SELECT count(*) FROM replays`))
	require.EqualValues(t, letters, b.scalar(`SELECT sum(records)::bigint FROM offset_ledger WHERE kind = 'replay'`))
	require.EqualValues(t, letters, b.scalar(`SELECT count(*) FROM dead_letters WHERE replayed_at IS NOT NULL`))

	b.produce(&kgo.Record{Topic: b.cfg.Topics.Replay, Partition: 0, Value: []byte("no pointer")})
	b.sent-- // not to the input
	b.start("a")
	require.EqualValues(t, letters, b.replay("--wait", "90s").Captured)
	b.replaysPublished(int(letters))
	for origin, n := range b.republished()[b.cfg.Topics.Output] {
		require.Equal(t, 1, n, origin)
	}
	require.EqualValues(t, letters, b.dead("replayed"))
	out := b.exactly("dlq", "list", "--pointers")
	require.Contains(t, out, "not_a_pointer")
	require.Contains(t, out, b.cfg.Topics.Replay+"/0/")
	require.Contains(t, b.exactly("dlq", "show", "--pointers", "--class", "not_a_pointer"), `"no pointer"`)
	require.NotContains(t, b.exactly("dlq", "list"), "not_a_pointer")
	b.audit(true)
}

// What fails again is a dead letter again, untouched, with its attempt number, and can be handed in once more.
func TestReplayFailsAgain(t *testing.T) {
	b := setup(t)
	b.generate(clicks / 10) // 0.2 % of them are bad
	w := b.start("a")
	b.settle()
	letters := b.scalar(`SELECT count(*) FROM dead_letters`)
	require.Positive(t, letters)
	const attempts = 3 // the first time, and two replays
	for attempt := int64(1); attempt < attempts; attempt++ {
		out := b.exactly("dlq", "replay", "--all", "--reason", "hope", "--wait", "90s")
		require.Contains(t, out, fmt.Sprintf("%d captured, %d of them dead letters again", letters, letters))
		require.EqualValues(t, letters, b.scalar(`SELECT count(*) FROM exactly_dead_letters WHERE attempt = $1 AND state = 'open'`, attempt))
		require.EqualValues(t, letters*(attempt+1), b.scalar(`SELECT count(*) FROM dead_letters`))
	}
	require.EqualValues(t, letters, b.scalar(`SELECT count(DISTINCT (coalesce(key, ''), coalesce(value, ''), headers)) FROM dead_letters`), "a replay changes what was sent")
	for origin, n := range b.republished()[b.cfg.Topics.DLQ] {
		require.Equal(t, 2, n, origin)
	}
	require.Contains(t, b.exactly("dlq", "list", "--state", "open"), "open")
	require.Contains(t, b.exactly("dlq", "replay", "--all", "--dry-run"), fmt.Sprintf("%d dead letters would be replayed", letters))
	require.Contains(t, b.exactly("dlq", "export", "--limit", "1"), `"value_base64"`)
	var one struct{ Origin string }
	require.NoError(t, json.Unmarshal([]byte(b.exactly("dlq", "export", "--limit", "1")), &one))
	require.EqualValues(t, attempts, strings.Count(b.exactly("dlq", "export", one.Origin), "\n"), "each attempt of %s", one.Origin)
	b.audit(true)
	require.Contains(t, b.exactly("ledger", "verify"), "of replayed dead letters:")
	w.stop()
}
