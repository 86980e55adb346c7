package retention

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/heads"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/outbox"
	"github.com/exactly-pipeline/exactly/txn"
)

func (b *bundle) erase(want int, args ...string) (r ErasureReport, stderr string) {
	b.t.Helper()
	cmd := exec.CommandContext(b.ctx, shared.Bin, append([]string{"erase", "--json", "--reason", "request 7"}, args...)...)
	cmd.Env = append(os.Environ(), b.env...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	require.NotNil(b.t, cmd.ProcessState, err)
	require.Equal(b.t, want, cmd.ProcessState.ExitCode(), "%s%s", out, errs.Bytes())
	if len(out) > 0 {
		require.NoError(b.t, json.Unmarshal(out, &r), "%s", out)
	}
	return r, errs.String()
}

// digests recomputes every capture's digest from what the outbox has: bytes, or what an erasure left of them.
func (b *bundle) digests() (entries int) {
	b.t.Helper()
	rows, err := b.db.Query(b.ctx, `SELECT l.source_partition, l.seq, l.digest, o.source_offset, o.seq, topic, partition, "timestamp", key, value, headers, salt, record_hash,
		message_hash, erased_at IS NOT NULL FROM offset_ledger l JOIN outbox o ON o.source_id = l.source_id AND o.source_partition = l.source_partition
		AND o.source_offset >= l.from_offset AND o.source_offset < l.to_offset WHERE l.kind = 'capture' ORDER BY 1, 2, 4, 5`)
	require.NoError(b.t, err)
	var p int32
	var seq int64
	var want, headers, salt, record, message []byte
	var m outbox.Message
	var erased bool
	var d *ledger.Digest
	var of string
	var should []byte
	check := func() {
		if d != nil {
			require.Equal(b.t, should, d.Sum(), "digest of %s", of)
			entries++
		}
	}
	_, err = pgx.ForEachRow(rows, []any{&p, &seq, &want, &m.SourceOffset, &m.Seq, &m.Topic, &m.Partition, &m.TimestampMs, &m.Key, &m.Value, &headers, &salt, &record, &message, &erased}, func() error {
		if now := fmt.Sprint(p, "/", seq); now != of {
			check()
			d, of, should = ledger.NewDigest(), now, append([]byte{}, want...)
		}
		if m.Headers, err = outbox.ParseHeaders(headers); err != nil {
			return err
		}
		d.Hash(record)
		if erased {
			d.Hash(message)
			return nil
		}
		h := ledger.MessageHash(ledger.Salt(salt), &m)
		d.Hash(h[:])
		return nil
	})
	require.NoError(b.t, err)
	check()
	return entries
}

// One user's data is blanked everywhere, others' is as it was, the ledger still verifies, a heal can do it again; what Kafka is owed is
// published first.
func TestErase(t *testing.T) {
	b := setup(t)
	b.work(300)
	user := b.scalar(`SELECT user_id FROM enriched_clicks GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1`)
	key := fmt.Sprint(user)
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(b.cfg.Kafka.Brokers, ",")...), kgo.DefaultProduceTopic(b.cfg.Topics.Input))
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	bad := &kgo.Record{Key: []byte(key), Value: []byte("no click"), Headers: []kgo.RecordHeader{{Key: "ip", Value: []byte("192.0.2.1")}}}
	require.NoError(t, cl.ProduceSync(b.ctx, bad).FirstErr())
	b.sent++
	b.generate(200)
	b.start("killed", "EXACTLY_FAILPOINT="+fp.CaptureCommitted+"=kill@2").ended(false)
	theirs := func(sql string) int64 { return b.scalar(sql+` WHERE user_id = $1`, user) }

	out, code := b.exactly("erase", "--user", key)
	require.Equal(t, 2, code, out)
	plan, _ := b.erase(0, "--user", key, "--dry-run")
	require.Len(t, plan.Partitions, 1, "one user's clicks are in one partition")
	require.Equal(t, theirs(`SELECT count(*) FROM enriched_clicks`), plan.Partitions[0].Rows)
	require.Positive(t, plan.Partitions[0].Rows)
	require.Zero(t, b.scalar(`SELECT count(*) FROM erasures`), "a dry run changes nothing")

	// What Kafka is owed of somebody is not to be had back once it is blank.
	owed := false
	for _, p := range []int32{0, 1, 2, 3} { // whoever is owed something there
		last := b.scalar(`SELECT coalesce((SELECT user_id FROM enriched_clicks JOIN partition_offsets p USING (source_id, source_partition) WHERE source_partition = $1 AND source_offset = next_offset - 1), 0)`, p)
		if g, err := b.adm.GroupOffsets(b.ctx, []int32{p}); err == nil && last > 0 && g[p].Offset < b.scalar(`SELECT next_offset FROM partition_offsets WHERE source_partition = $1`, p) {
			_, says := b.erase(1, "--user", fmt.Sprint(last), "--wait", "0s")
			require.Regexp(t, "Kafka is still owed|stays pending in an open transaction", says)
			require.Contains(t, says, "nothing was erased")
			owed = true
			break
		}
	}
	require.True(t, owed, "the kill left no gap")
	require.Zero(t, b.scalar(`SELECT count(*) FROM erasures`))

	b.start("live")
	b.settled()
	before := b.digests()
	others := b.scalar(`SELECT sum(hashtextextended(e::text, 0)::numeric % 1000003)::bigint FROM enriched_clicks e WHERE user_id <> $1`, user)
	records := theirs(`SELECT count(*) FROM enriched_clicks`) + b.scalar(`SELECT count(*) FROM dead_letters WHERE key = $1`, []byte(key))
	r, _ := b.erase(0, "--user", key)
	e := r.Partitions[0]
	require.Equal(t, records, e.Records)
	require.Equal(t, records, e.Messages)
	require.Positive(t, e.DeadLetters)
	require.Equal(t, records, e.Rows+e.DeadLetters)
	require.Zero(t, theirs(`SELECT count(*) FROM enriched_clicks`))
	require.Zero(t, b.scalar(`SELECT count(*) FROM outbox WHERE key = $1`, []byte(key)))
	require.Zero(t, b.scalar(`SELECT count(*) FROM dead_letters WHERE key = $1`, []byte(key)))
	require.Equal(t, e.Rows, b.scalar(`SELECT count(*) FROM enriched_clicks WHERE user_id = 0 AND session_id = '' AND url = '' AND ip = '::' AND country = 'ZZ'`))
	require.Equal(t, e.Messages, b.scalar(`SELECT count(*) FROM outbox WHERE erased_at IS NOT NULL AND key IS NULL AND value IS NULL AND headers = '\x00' AND salt IS NULL
		AND length(message_hash) = 32 AND length(record_hash) = 32`))
	require.EqualValues(t, others, b.scalar(`SELECT sum(hashtextextended(e::text, 0)::numeric % 1000003)::bigint FROM enriched_clicks e WHERE user_id <> 0`))
	require.Equal(t, before, b.digests(), "the ledger still verifies")
	require.EqualValues(t, 1, b.scalar(`SELECT count(*) FROM erasures e JOIN offset_ledger l USING (source_id, source_partition) WHERE l.seq = e.ledger_seq AND l.kind = 'erase'
		AND l.records = $1 AND l.rows = e.rows AND l.events = e.messages AND l.dead_letters = e.dead_letters AND l.why = 'request 7' AND cardinality(offsets) = $1`, records))
	var offsets []int64
	var digest []byte
	require.NoError(t, b.db.QueryRow(b.ctx, `SELECT offsets, digest FROM erasures e JOIN offset_ledger l USING (source_id, source_partition) WHERE l.seq = e.ledger_seq`).Scan(&offsets, &digest))
	require.Equal(t, ErasureDigest(e.SourceID, e.Partition, offsets), digest)
	again, _ := b.erase(0, "--user", key)
	require.Empty(t, again.Partitions)

	// A heal rebuilds rows from Kafka, where they still are, and has them blanked again.
	b.exec(`UPDATE enriched_clicks SET user_id = $1, url = 'rebuilt' WHERE user_id = 0`, user)
	b.exec(`UPDATE outbox SET key = $1, salt = decode(repeat('00', 16), 'hex'), erased_at = NULL WHERE erased_at IS NOT NULL`, []byte(key))
	src, err := txn.FindSource(b.ctx, b.db, b.cfg.Topics.Input, b.cfg.Group)
	require.NoError(t, err)
	known, err := ReadErasures(b.ctx, &b.cfg, b.db, &src)
	require.NoError(t, err)
	require.NoError(t, pgx.BeginFunc(b.ctx, b.db, func(tx pgx.Tx) error {
		got, err := known.Again(b.ctx, tx, e.Partition, 0, offsets[len(offsets)-1], Erase{By: "heal", Reason: "rebuilt"})
		require.EqualValues(t, len(offsets)-1, got, "the last one is not in the range asked for")
		if err == nil {
			got, err = known.Again(b.ctx, tx, e.Partition, offsets[len(offsets)-1], 1<<60, Erase{By: "heal", Reason: "rebuilt"})
		}
		require.EqualValues(t, 1, got)
		return err
	}))
	require.NoError(t, known.Vacuum(b.ctx, b.db))
	require.EqualValues(t, 2, b.scalar(`SELECT count(*) FROM erasures e JOIN offset_ledger l USING (source_id, source_partition) WHERE l.seq = e.ledger_seq AND l.why = 'rebuilt'`))
	require.Zero(t, theirs(`SELECT count(*) FROM enriched_clicks`))

	// A restored backup of before knows nothing of it, but Kafka does.
	require.Empty(t, b.again(0).Partitions)
	b.exec(`UPDATE enriched_clicks SET user_id = $1, url = 'restored' WHERE user_id = 0`, user)
	b.exec(`UPDATE outbox SET key = $1, salt = decode(repeat('00', 16), 'hex'), erased_at = NULL WHERE erased_at IS NOT NULL`, []byte(key))
	b.exec(`ALTER TABLE erasures DISABLE TRIGGER erasures_append_only; DELETE FROM erasures; ALTER TABLE erasures ENABLE TRIGGER erasures_append_only`)
	plan = b.again(0, "--dry-run")
	require.Len(t, plan.Partitions, 1)
	require.Equal(t, e.Messages, plan.Partitions[0].Messages)
	require.Positive(t, theirs(`SELECT count(*) FROM enriched_clicks`))
	r = b.again(0)
	require.Equal(t, []int64{e.Rows, e.Messages}, []int64{r.Partitions[0].Rows, r.Partitions[0].Messages})
	require.Zero(t, theirs(`SELECT count(*) FROM enriched_clicks`))
	require.Zero(t, b.scalar(`SELECT count(*) FROM outbox WHERE key = $1`, []byte(key)))
	require.EqualValues(t, 1, b.scalar(`SELECT count(*) FROM erasures`))
	require.Empty(t, b.again(0).Partitions)

	// What nobody vouches for is left out: whoever may write to the topic can't have anybody's data blanked.
	forged := &kgo.Record{Topic: b.cfg.Ledger.HeadsTopic}
	stream := b.source()
	entry := ledger.Entry{SourceID: stream.SourceID, Partition: e.Partition, Seq: 99, Kind: ledger.Erase, Digest: ErasureDigest(stream.SourceID, e.Partition, []int64{0, 1})}
	h := stream.Head(&entry, entry.Hash())
	forged.Key, forged.Value = h.RecordKey(), h.Encode()
	value, err := json.Marshal(heads.Erasure{Entry: entry, Offsets: []int64{0, 1, 2}})
	require.NoError(t, err)
	forged.Headers = []kgo.RecordHeader{{Key: "exactly-erasure", Value: value}}
	require.NoError(t, cl.ProduceSync(b.ctx, forged).FirstErr())
	r = b.again(0)
	require.Empty(t, r.Partitions)
	require.Contains(t, strings.Join(r.Notes, "\n"), "its offsets are not those that its entry vouches for")

	// A whole erasure that somebody made up, and signed: only with the key of who may sign is it known from a true one.
	rogue, ours := filepath.Join(t.TempDir(), "rogue"), filepath.Join(t.TempDir(), "ours")
	for _, f := range []string{rogue, ours} {
		_, err := ledger.GenerateKey(f)
		require.NoError(t, err)
	}
	signer, err := ledger.LoadSigner(rogue)
	require.NoError(t, err)
	signer.Sign(&h)
	value, err = json.Marshal(heads.Erasure{Entry: entry, Offsets: []int64{0, 1}})
	require.NoError(t, err)
	forged = &kgo.Record{Topic: b.cfg.Ledger.HeadsTopic, Key: h.RecordKey(), Value: h.Encode(), Headers: []kgo.RecordHeader{{Key: "exactly-erasure", Value: value}}}
	require.NoError(t, cl.ProduceSync(b.ctx, forged).FirstErr())
	require.NotEmpty(t, b.again(0, "--dry-run").Partitions)
	r = b.again(0, "--dry-run", "--public-key", ours+".pub")
	require.Empty(t, r.Partitions)
	require.Contains(t, strings.Join(r.Notes, "\n"), "is signed by key")
}

func (b *bundle) again(want int, args ...string) ErasureReport {
	b.t.Helper()
	r, _ := b.erase(want, append([]string{"--again"}, args...)...)
	return r
}

func (b *bundle) source() ledger.Stream {
	b.t.Helper()
	src, err := txn.FindSource(b.ctx, b.db, b.cfg.Topics.Input, b.cfg.Group)
	require.NoError(b.t, err)
	return src.Stream()
}
