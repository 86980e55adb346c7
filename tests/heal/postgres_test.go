package heal

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
)

const clicks = 2000

// tables are all that a snapshot has.
var tables = []string{"enriched_clicks", "dead_letters", "outbox"}

// lost runs a world until its database lacks the second half: geo databases differ between the halves. It returns what the tables held.
func (b *world) lost() map[string][]string {
	b.t.Helper()
	b.alone(clicks)
	b.backup()
	b.alone(clicks, geoDatabase(b.t))
	was := b.snapshot()
	b.restore()
	require.Less(b.t, b.stored(), b.published(), "nothing was lost")
	return was
}

// pg_basebackup, more clicks, the backup restored: run refuses and names the command, heal rebuilds, the audit is clean, and the rows are those of
// an undisturbed twin.
func TestPostgresRestored(t *testing.T) {
	t.Parallel()
	restored(t, clicks)
}

func restored(t *testing.T, clicks int) {
	t.Helper()
	server, dsn := ownPostgres(t)
	b, twin := newWorld(t, dsn), newWorld(t)
	li := geoDatabase(t)
	b.alone(clicks)
	require.NoError(t, server.BackupPostgres(b.ctx, "monday"))
	b.alone(clicks, li)
	was := b.snapshot()
	require.NoError(t, server.RestorePostgres(b.ctx, "monday"))

	w := b.start("b")
	w.says("partition stopped: .*Postgres has gone back in time.*exactly heal postgres")
	before := b.stored()
	require.Contains(t, b.exactly("heal", "postgres", "--dry-run"), "would be rebuilt")
	out, code := b.try(nil, "ledger", "verify")
	require.Equal(t, 3, code, out)
	require.Contains(t, out, "is beyond the ledger", "Kafka has heads of what Postgres lost")
	require.Equal(t, before, b.stored())
	require.Contains(t, b.exactly("heal", "postgres", "--reason", "test"), "rebuilt the records")
	require.Equal(t, b.sent, b.stored())
	same(t, was, b.snapshot(), tables...)
	require.Contains(t, b.exactly("ledger", "verify"), "the chains hold", "the heal says which heads it replaces")
	b.settle()
	require.Contains(t, b.exactly("heal", "postgres", "--reason", "test"), "nothing to heal")
	require.EqualValues(t, b.scalar(`SELECT count(*) FROM enriched_clicks WHERE captured_at >= (SELECT min(captured_at) FROM offset_ledger WHERE kind = 'heal')`),
		b.scalar(`SELECT sum(rows) FROM offset_ledger WHERE kind = 'heal'`))

	b.generate(clicks) // the worker that had refused goes on
	b.settle()
	twin.alone(clicks)
	twin.alone(clicks, li)
	twin.alone(clicks)
	mine, theirs := b.snapshot(), twin.snapshot()
	same(t, theirs, mine, "enriched_clicks")
	require.EqualValues(t, 2, b.scalar(`SELECT count(DISTINCT geo_build) FROM enriched_clicks`))
}

// Killed anywhere, in windows of a few records, and run again.
func TestPostgresKilled(t *testing.T) {
	for _, at := range []string{fp.HealCopied + "=kill@1", fp.HealCopied + "=kill@9", fp.HealCommitted + "=kill@1", fp.HealCommitted + "=kill@11", fp.HealRebuilt + "=kill", fp.HealFinished + "=kill"} {
		t.Run(at, func(t *testing.T) {
			b := setup(t, "EXACTLY_BATCH_DRAIN_RECORDS=400", "EXACTLY_COUNTS_ENABLED=true")
			was := b.lost()
			h := b.spawn("heal", []string{"EXACTLY_FAILPOINT=" + at}, "heal", "postgres", "--reason", "first")
			require.Equal(t, -1, h.ended(), h.log.Tail())
			out := b.exactly("offsets", "show")
			require.Contains(t, out, "heal postgres: first")
			w := b.start("b")
			w.says("partition is held.*heal postgres: first")
			b.exactly("heal", "postgres", "--reason", "second")
			same(t, was, b.snapshot(), tables...)
			b.generate(clicks)
			b.settle()
			require.Zero(t, b.scalar(`SELECT count(*) FROM partition_offsets WHERE state <> 'open'`))
			require.Zero(t, b.scalar(`SELECT sum(counted_from)::bigint FROM partition_offsets`), "what was rebuilt was not counted on from where the backup ended")
			require.Equal(t, b.scalar(`SELECT count(*) FROM enriched_clicks`), b.scalar(`SELECT sum(clicks)::bigint FROM click_counts`))
		})
	}
}

// Two at once: the second refuses as long as the first lives. If the first has lost its lock, the second goes on, and the first can do no more.
func TestPostgresTwoAtOnce(t *testing.T) {
	b := setup(t, "EXACTLY_BATCH_DRAIN_RECORDS=400")
	was := b.lost()
	first := b.spawn("first", []string{"EXACTLY_FAILPOINT=" + fp.HealCommitted + "=hold@3"}, "heal", "postgres", "--reason", "first")
	b.until("the first is in the middle", func() bool { return b.hit(fp.HealCommitted) })
	out, code := b.try(nil, "heal", "postgres", "--reason", "second")
	require.Equal(t, 1, code, out)
	require.Contains(t, out, "another heal of topic")
	require.EqualValues(t, 1, b.scalar(`SELECT count(pg_terminate_backend(pid)) FROM pg_locks WHERE locktype = 'advisory' AND granted
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`))
	b.exactly("heal", "postgres", "--reason", "second")
	b.release(fp.HealCommitted)
	require.Equal(t, 1, first.ended(), first.log.Tail())
	require.Contains(t, first.log.Tail(), "the hold was ended by somebody else meanwhile")
	same(t, was, b.snapshot(), tables...)
	b.start("b")
	b.generate(clicks)
	b.settle()
}

// The group offsets are gone as well: what was published is what the outputs hold.
func TestPostgresAndGroupOffsetsGone(t *testing.T) {
	b := setup(t)
	was := b.lost()
	set := kadm.TopicsSet{}
	for _, p := range all {
		set.Add(b.cfg.Topics.Input, p)
	}
	_, err := b.adm.Kadm().DeleteOffsets(b.ctx, b.cfg.Group, set)
	require.NoError(t, err)
	require.Contains(t, b.exactly("heal", "postgres", "--reason", "test"), "there is no group offset")
	same(t, was, b.snapshot(), tables...)
	b.start("b").says("group offsets are gone: scanning")
	b.generate(clicks)
	b.settle()
}

// A backup from before the first click: nothing but the source itself is there.
func TestPostgresKnowsNothing(t *testing.T) {
	b := setup(t)
	b.backup()
	b.alone(clicks)
	was := b.snapshot()
	b.restore()
	b.start("b").says("no stored offset in Postgres although")
	require.Contains(t, b.exactly("heal", "postgres", "--reason", "test"), "Postgres knew nothing of it")
	same(t, was, b.snapshot(), tables...)
	b.generate(clicks)
	b.settle()
}

// What has expired from the outputs can't be rebuilt, and is said; nothing else is done to that partition, the others are healed.
func TestPostgresEventsExpired(t *testing.T) {
	b := setup(t)
	b.alone(clicks)
	b.backup()
	b.alone(clicks)
	user := b.eraseOne(1)
	b.restore()
	os := kadm.Offsets{}
	os.Add(kadm.Offset{Topic: b.cfg.Topics.Output, Partition: 2, At: -1}) // its key's source partition is the same: partitioned alike
	_, err := b.adm.Kadm().DeleteRecords(b.ctx, os)
	require.NoError(t, err)
	before := b.scalar(`SELECT next_offset FROM partition_offsets WHERE source_partition = 2`)
	out, code := b.try(nil, "heal", "postgres", "--reason", "test")
	require.Equal(t, 1, code, out)
	require.Regexp(t, `partition 2: the output topics have no event of \d+ of the records`, out)
	require.Contains(t, out, "partition 1: rebuilt")
	require.Equal(t, before, b.scalar(`SELECT next_offset FROM partition_offsets WHERE source_partition = 2`))
	require.Zero(t, b.scalar(`SELECT count(*) FROM partition_offsets WHERE state <> 'open'`))
	require.Zero(t, b.scalar(`SELECT count(*) FROM enriched_clicks WHERE user_id = $1`, user), "erased before, though a partition was refused")
	out, code = b.try(nil, "ledger", "verify")
	require.Equal(t, 3, code, out)
	require.Contains(t, out, "partition 2: the head of seq", "it was not healed")
	for _, healed := range []string{"partition 0: the head", "partition 1: the head", "partition 3: the head"} {
		require.NotContains(t, out, healed, "its heads are replaced, though a partition was refused")
	}
	b.start("b").says("partition stopped: .*Postgres has gone back in time")
}

func TestUsage(t *testing.T) {
	b := setup(t)
	for _, args := range [][]string{{"postgres"}, {"postgres", "--reason", " "}, {"postgres", "--reason", "x", "--partition", "-1"}, {"mysql"}} {
		out, code := b.try(nil, append([]string{"heal"}, args...)...)
		require.Equal(t, 2, code, "%v: %s", args, out)
	}
	require.Contains(t, b.exactly("heal", "postgres", "--dry-run"), "nothing to heal")
	out, code := b.try(nil, "heal", "postgres", "--partition", "9", "--reason", "x")
	require.Equal(t, 1, code, out)
	require.Contains(t, out, "has no such partition")
}
