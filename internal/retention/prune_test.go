package retention

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
)

func find(r Report, name string) *Partition {
	for i := range r.Partitions {
		if r.Partitions[i].Name == name {
			return &r.Partitions[i]
		}
	}
	return nil
}

// Days past their retention go, whole, beside a live worker; a day of which Kafka is owed something stays, a worker's drain finds it there, and
// only then it goes.
func TestPruneBesideWorkers(t *testing.T) {
	b := setup(t, "EXACTLY_RETENTION_DEAD_LETTERS=960h")
	old := b.daysAgo(42, true)
	b.work(400)
	owed := b.daysAgo(36, true)
	b.generate(400)
	b.start("killed", "EXACTLY_FAILPOINT="+fp.CaptureCommitted+"=kill@3").ended(false)
	require.FileExists(t, b.file("capture-committed.hit"))
	gap := b.stored() - b.published()
	require.Positive(t, gap, "the kill left no gap")
	b.daysAgo(0, false)

	var r Report
	b.until("the transaction that the dead worker left open is over: until then it is not known how far its partitions are published", func() bool {
		r = b.prune(0, "--dry-run")
		return find(r, "outbox_"+old).State == WouldDrop
	})
	require.True(t, r.DryRun)
	require.EqualValues(t, 400, find(r, "outbox_"+old).Records)
	require.Equal(t, WouldDrop, find(r, "dead_letters_"+old).State)
	require.True(t, b.table("outbox_"+old), "a dry run changes nothing")

	r = b.prune(0)
	require.Equal(t, Dropped, find(r, "outbox_"+old).State)
	require.Equal(t, Dropped, find(r, "dead_letters_"+old).State)
	require.Equal(t, Kept, find(r, "outbox_"+owed).State, "Kafka is owed some of it")
	require.Contains(t, find(r, "outbox_"+owed).Why, "the group offset is")
	require.Nil(t, find(r, "enriched_clicks_"+old), "rows are kept for ever by default")
	require.Nil(t, find(r, "dead_letters_"+owed), "within its retention of 40 days")
	require.False(t, b.table("outbox_"+old))
	require.True(t, b.table("outbox_"+owed))
	require.EqualValues(t, 400, b.scalar(`SELECT sum(records)::bigint FROM pruned WHERE table_name = 'outbox'`))
	require.Zero(t, b.scalar(`SELECT count(*) FROM pruned p JOIN partition_offsets USING (source_id, source_partition) WHERE to_offset > published_at_least OR published < to_offset`),
		"the floor is raised to what went")

	b.start("live")
	for range 3 {
		b.generate(300)
		b.prune(0)
	}
	b.settled()
	r = b.prune(0)
	if p := find(r, "outbox_"+owed); p != nil {
		require.Equal(t, Dropped, p.State)
	}
	require.False(t, b.table("outbox_"+owed))
	require.True(t, b.table("enriched_clicks_"+old))
	require.EqualValues(t, b.sent, b.scalar(`SELECT (SELECT count(*) FROM enriched_clicks) + (SELECT count(*) FROM dead_letters) +
		(SELECT sum(records) FROM pruned WHERE table_name = 'dead_letters')`))
	require.EqualValues(t, b.sent, b.scalar(`SELECT (SELECT count(*) FROM outbox) + (SELECT sum(records) FROM pruned WHERE table_name = 'outbox')`))
	require.Zero(t, b.scalar(`SELECT count(*) FROM pruned p LEFT JOIN offset_ledger l ON l.source_id = p.source_id AND l.source_partition = p.source_partition AND l.seq = p.ledger_seq
		AND l.kind = 'prune' AND l.digest = sha256(convert_to(concat_ws(' ', time_partition, p.source_id, p.source_partition, p.from_offset, p.to_offset, p.records, published), 'UTF8'))
		WHERE l.seq IS NULL AND p.records > 0`), "the ledger vouches for each row of pruned")
	for _, sql := range []string{`UPDATE pruned SET records = 0`, `DELETE FROM pruned`, `TRUNCATE pruned`} {
		_, err := b.db.Exec(b.ctx, sql)
		require.ErrorContains(t, err, "append-only", sql)
	}
}

// What cannot be known to be published stays: no group offset, one that somebody set, one above what is stored.
func TestPruneDoubtsTheGroup(t *testing.T) {
	b := setup(t)
	day := b.daysAgo(40, true)
	b.work(200)
	kept := func(says string) {
		t.Helper()
		p := find(b.prune(0), "outbox_"+day)
		require.Equal(t, Kept, p.State)
		require.Contains(t, p.Why, says)
	}
	at := b.scalar(`SELECT next_offset FROM partition_offsets WHERE source_partition = 1`)
	b.commit(1, at, "")
	kept("was set by somebody else")
	b.commit(1, at-1, "exactly/1 1 1")
	kept("the group offset is")
	b.commit(1, at+5, "exactly/1 1 1")
	out, code := b.exactly("prune")
	require.Equal(t, 1, code)
	require.Contains(t, out, "above the stored offset")
	b.commit(1, at, "exactly/1 1 1")
	require.Equal(t, Dropped, find(b.prune(0), "outbox_"+day).State)
	b.must("audit", "--settled")
}

// Rows in a default partition are named and stay, until all of it is past its retention; then it is emptied, not deleted from.
func TestPruneDefaultPartition(t *testing.T) {
	b := setup(t)
	b.daysAgo(45, false)
	b.work(100)
	b.daysAgo(20, false)
	b.work(100)
	p := find(b.prune(0), "outbox_default")
	require.Equal(t, Kept, p.State)
	require.EqualValues(t, 200, p.Records)
	require.Contains(t, p.Why, "no time partition for its day")
	require.Equal(t, Kept, find(b.prune(0), "enriched_clicks_default").State)
	require.Equal(t, Kept, find(b.prune(0, "--set", "retention.outbox=500h"), "outbox_default").State)
	require.Equal(t, Dropped, find(b.prune(0, "--set", "retention.outbox=24h"), "outbox_default").State)
	require.True(t, b.table("outbox_default"))
	require.Zero(t, b.scalar(`SELECT count(*) FROM outbox`))
	require.EqualValues(t, 200, b.scalar(`SELECT sum(records)::bigint FROM pruned WHERE time_partition = 'outbox_default'`))
	b.daysAgo(0, false)
	b.work(100)
	require.Nil(t, find(b.prune(0), "outbox_default"))
	out := b.must("prune")
	require.Contains(t, out, "enriched_clicks_default: kept")
}

// While somebody reads the table all the time, prune gives up in the end; captures wait for it no longer than a moment, each time.
func TestPruneNeverHoldsCapturesUp(t *testing.T) {
	b := setup(t)
	day := b.daysAgo(40, true)
	b.work(50)
	b.daysAgo(0, false)
	reader, err := b.db.Begin(b.ctx)
	require.NoError(t, err)
	_, err = reader.Exec(b.ctx, `SELECT count(*) FROM outbox`)
	require.NoError(t, err)
	pruned := make(chan Report, 1)
	go func() {
		defer close(pruned) // also when it fails
		pruned <- b.prune(1, "--wait", "8s")
	}()
	inserts := 0
	for r := (*Report)(nil); r == nil; {
		select {
		case got := <-pruned:
			r = &got
			require.Equal(t, Kept, find(got, "outbox_"+day).State)
			require.Equal(t, "in use", find(got, "outbox_"+day).Why)
		default:
			err := pgx.BeginFunc(b.ctx, b.db, func(tx pgx.Tx) error {
				// The reader stays: a capture gets through only if prune lets go between its tries.
				_, err := tx.Exec(b.ctx, `SET LOCAL lock_timeout = '30s'; SELECT FROM partition_offsets FOR UPDATE;
					LOCK TABLE enriched_clicks, outbox, dead_letters IN ROW EXCLUSIVE MODE`)
				return err
			})
			require.NoError(t, err, "a capture would have waited")
			inserts++
		}
	}
	require.Greater(t, inserts, 1)
	require.NoError(t, reader.Rollback(b.ctx))
	require.Equal(t, Dropped, find(b.prune(0), "outbox_"+day).State)
}

// Workers prune only where the settings say so and an administrator has granted it; and then nothing but days that are over.
func TestWorkersPrune(t *testing.T) {
	b := setup(t, "EXACTLY_RETENTION_PRUNE=true")
	day := b.daysAgo(40, true)
	env := b.user("worker")
	b.generate(100)
	w := b.start("w", env)
	b.settled()
	w.ended(true)
	require.Contains(t, w.log.String(), Grant)
	require.True(t, b.table("outbox_"+day))
	out, code := b.with([]string{env}, "prune")
	require.Equal(t, 1, code)
	require.Contains(t, out, Grant)

	b.exec(Grant)
	b.must("migrate") // sets rights anew, and leaves this one
	w = b.start("w", env)
	b.until("the worker has pruned", func() bool { return !b.table("outbox_" + day) })
	w.ended(true)
	require.EqualValues(t, 100, b.scalar(`SELECT sum(records)::bigint FROM pruned WHERE who = 'w' AND why = 'retention.prune'`))

	conn, err := pgx.Connect(b.ctx, env[len("EXACTLY_POSTGRES_DSN="):])
	require.NoError(t, err)
	defer conn.Close(b.ctx) //nolint:errcheck // the test ends
	today := time.Now().UTC().Format("20060102")
	for sql, says := range map[string]string{
		fmt.Sprintf(`SELECT exactly_prune_drop('outbox', '%s', 'w', 'y', '[]')`, today):                                        "must have been over for a day",
		`SELECT exactly_prune_drop('offset_ledger', 'x', 'w', 'y', '[]')`:                                                      "has no time partition",
		`SELECT exactly_prune_drop('outbox', 'default; --', 'w', 'y', '[]')`:                                                   "has no time partition",
		`INSERT INTO pruned (table_name, time_partition, records, who, why) VALUES ('outbox', 'outbox_20200101', 1, 'w', 'y')`: "permission denied",
		`INSERT INTO erasures VALUES (1, 0, 1, gen_random_uuid(), '{}', 0, 0, 0, 'w', 'y')`:                                    "permission denied",
	} {
		_, err := conn.Exec(b.ctx, sql)
		require.ErrorContains(t, err, says, sql)
	}
}
