package heal

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/admin"
)

// captured is what replays have made, by the letter and attempt that each is of.
const captured = `SELECT ROW(c.of_partition, c.of_offset, c.attempt, c.source_partition, c.source_offset, e.user_id, e.session_id, e.url, e.ip, e.country, e.geo_build,
	d.error_class, d.error_message, d.key, d.value, d.headers, o.topic, o.partition, o."timestamp", o.key, o.value, o.headers, r.letter_source_id, r.letter_partition, r.letter_offset)::text
	FROM replay_captures c LEFT JOIN enriched_clicks e USING (source_id, source_partition, source_offset) LEFT JOIN dead_letters d USING (source_id, source_partition, source_offset)
	JOIN outbox o USING (source_id, source_partition, source_offset) JOIN replays r ON (r.source_id, r.source_partition, r.source_offset, r.attempt) = (c.of_source_id, c.of_partition, c.of_offset, c.attempt)
	ORDER BY c.of_partition, c.of_offset, c.attempt`

func (b *world) captured() (out []string) {
	b.t.Helper()
	b.sql(func(c *pgx.Conn) {
		rows, err := c.Query(b.ctx, captured)
		require.NoError(b.t, err)
		out, err = pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(b.t, err)
	})
	return out
}

// refusing lets n of the clicks to come become dead letters that are no longer one when they are replayed.
func (b *world) refusing() {
	b.sql(func(c *pgx.Conn) {
		_, err := c.Exec(b.ctx, `ALTER TABLE enriched_clicks ADD CONSTRAINT not_these CHECK (source_offset % 97 <> 13 OR source_id <> 1)`)
		require.NoError(b.t, err)
	})
}

// taking ends that.
func (b *world) taking() {
	b.sql(func(c *pgx.Conn) {
		_, err := c.Exec(b.ctx, `ALTER TABLE enriched_clicks DROP CONSTRAINT not_these`)
		require.NoError(b.t, err)
	})
}

// replayed is a world in which dead letters were replayed, most of them with success, and nobody is at work.
func replayed(t *testing.T) *world {
	t.Helper()
	b := setup(t)
	b.generate(clicks)
	b.refusing()
	w := b.start("a")
	b.settle()
	b.taking()
	b.replay()
	w.stop()
	b.empty()
	return b
}

func (b *world) replay(args ...string) {
	b.t.Helper()
	b.exactly(append([]string{"dlq", "replay", "--all", "--reason", "test", "--by", "somebody"}, args...)...)
	own := b.cfg.Replay()
	adm, err := admin.New(&own, zap.NewNop())
	require.NoError(b.t, err)
	defer adm.Close()
	b.until("replays are published", func() bool { return behind(b.ctx, adm, own.Topics.Input) == 0 })
}

// behind is how much of a topic its group has not published; -1: it can't be told.
func behind(ctx context.Context, adm *admin.Admin, topic string) (n int64) {
	ends, err := adm.Kadm().ListEndOffsets(ctx, topic)
	if err != nil {
		return -1
	}
	for _, p := range all {
		end, there := ends.Lookup(topic, p)
		if !there || end.Offset == 0 {
			continue
		}
		at, err := adm.GroupOffsets(ctx, []int32{p})
		if err != nil || at[p].Pending {
			return -1
		}
		n += end.Offset - max(at[p].Offset, 0)
	}
	return n
}

// A backup from before the first replay, or from between two of them: what replays captured comes back as it was, rows and letters that failed again,
// and so do the requests; what was asked for and not captured yet is captured then.
func TestReplaysRestored(t *testing.T) {
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprint("first=", first), func(t *testing.T) {
			b := setup(t)
			b.generate(clicks)
			b.refusing()
			w := b.start("a")
			b.settle()
			if !first {
				b.replay()
			}
			w.stop()
			b.empty()
			b.backup()

			b.taking()
			w = b.start("a")
			b.generate(clicks)
			b.settle()
			b.replay()
			b.replay() // what failed again once more, and pointers that do nothing
			w.stop()
			b.empty()
			b.exactly("dlq", "replay", "--all", "--reason", "test", "--by", "somebody") // nobody captures it
			open := b.scalar(`SELECT count(*) FROM exactly_dead_letters WHERE state = 'requested'`)
			require.Positive(t, open)
			was := b.captured()
			require.Greater(t, len(was), 40)
			b.restore()
			b.taking()
			require.Less(t, len(b.captured()), len(was))

			require.Contains(t, b.exactly("heal", "postgres", "--dry-run"), "would be rebuilt")
			out := b.exactly("heal", "postgres", "--reason", "test")
			require.Contains(t, out, b.cfg.Topics.Replay+"/", "what was healed is said of the topic")
			require.Equal(t, was, b.captured())
			require.Equal(t, open, b.scalar(`SELECT count(*) FROM exactly_dead_letters WHERE state = 'requested'`))
			require.Positive(t, b.scalar(`SELECT count(*) FROM offset_ledger WHERE kind = 'replay' AND why LIKE 'test (heal: found in %'`))
			require.Contains(t, b.exactly("heal", "postgres", "--reason", "test"), "nothing to heal")
			b.start("b")
			b.until("what was asked for is captured", func() bool {
				return b.scalar(`SELECT count(*) FROM exactly_dead_letters WHERE state = 'requested'`) == 0
			})
			b.replay()
			b.settle()
		})
	}
}

// Output topics deleted: what replays published is published again.
func TestReplaysOutputsGone(t *testing.T) {
	b := replayed(t)
	was := b.events()
	b.drop(b.cfg.Topics.Output, b.cfg.Topics.DLQ)
	out := b.exactly("heal", "kafka", "--reason", "test")
	require.Contains(t, out, b.cfg.Topics.Replay+"/")
	got := b.events()
	require.Equal(t, len(was), len(got))
	for k := range was {
		require.ElementsMatch(t, was[k], got[k], k) // the input's first, then the replays'
	}
	b.start("b")
	b.settle()
}

// Who was erased stays erased in what replays made, too.
func TestReplaysErased(t *testing.T) {
	b := replayed(t)
	user := b.scalar(`SELECT user_id FROM enriched_clicks WHERE source_id <> 1 ORDER BY 1 LIMIT 1`)
	b.backup()
	b.alone(clicks)
	require.Contains(t, b.exactly("erase", "--user", fmt.Sprint(user), "--reason", "request 7"), "erased: source 2")
	b.restore()
	require.Positive(t, b.scalar(`SELECT count(*) FROM enriched_clicks WHERE user_id = $1 AND source_id <> 1`, user))
	b.exactly("heal", "postgres", "--reason", "restored")
	require.Zero(t, b.scalar(`SELECT count(*) FROM enriched_clicks WHERE user_id = $1`, user))
	b.start("b")
	b.settle()
}
