package offsets

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/heads"
	"github.com/exactly-pipeline/exactly/ledger"
)

// Heads are in Kafka, signed, of captures by either client and of deeds; and they tell of a ledger rewritten in Postgres, hashes and all.
func TestHeads(t *testing.T) {
	for _, client := range []string{"confluent", "franz"} {
		t.Run(client, func(t *testing.T) {
			b := setup(t)
			key := filepath.Join(b.dir, "ledger.key")
			out, code := b.exactly("ledger", "keygen", "--out", key)
			require.Zero(t, code, out)
			require.NoError(t, os.Chmod(key, 0o600))
			b.env = append(b.env, "EXACTLY_LEDGER_SIGNING_KEY_FILE="+key, "EXACTLY_KAFKA_CLIENT="+client)
			b.work(2000)
			verify := func() (string, int) { return b.exactly("ledger", "verify", "--public-key", key+".pub") }
			out, code = verify()
			require.Zero(t, code, out)
			require.Contains(t, out, "the chains hold")

			stream := b.desk.source.Stream()
			read := func() map[int32][]ledger.Head {
				hs, damaged, err := heads.Read(b.ctx, &b.cfg, stream)
				require.NoError(t, err)
				require.Empty(t, damaged)
				return hs
			}
			for p, hs := range read() {
				require.NotEmpty(t, hs, "partition %d", p)
				require.NotEmpty(t, hs[0].Sig)
			}
			require.Len(t, read(), 4)
			out, code = b.exactly("offsets", "hold", "--partition", "2", "--reason", "test")
			require.Zero(t, code, out)
			last := read()[2]
			require.Equal(t, ledger.Hold, last[len(last)-1].Kind, "a deed's head is there when the command ends")
			out, code = b.exactly("offsets", "release", "--partition", "2")
			require.Zero(t, code, out)
			b.audit(true)

			b.otherLanguage()

			es := b.chain(1)
			b.rewrite(es, func(e *ledger.Entry) { e.Records++ })
			out, code = b.exactly("ledger", "verify", "--partition", "2")
			require.Zero(t, code, out)
			out, code = verify()
			require.Equal(t, 3, code, out)
			require.Contains(t, out, "the chain was rewritten")
			require.Contains(t, out, "wrong: partition 1")
			b.rewrite(es, func(*ledger.Entry) {})
			out, code = verify()
			require.Zero(t, code, out)

			forged := stream.Head(&es[0], []byte{1}) // by somebody without the key
			require.NoError(t, heads.Post(b.ctx, &b.cfg, []ledger.Head{forged}))
			out, code = verify()
			require.Equal(t, 3, code, out)
			require.Contains(t, out, "is not signed")
		})
	}
}

// otherLanguage has the chains verified by the script in doc/, from what the program prints and from what Postgres exports.
func (b *bundle) otherLanguage() {
	b.t.Helper()
	shown, code := b.exactly("ledger", "show", "--json")
	require.Zero(b.t, code, shown)
	conn, err := pgx.Connect(b.ctx, b.cfg.Postgres.DSN)
	require.NoError(b.t, err)
	defer conn.Close(b.ctx) //nolint:errcheck // read only
	var copied bytes.Buffer
	_, err = conn.PgConn().CopyTo(b.ctx, &copied, `COPY (SELECT * FROM offset_ledger ORDER BY source_id, source_partition, seq) TO STDOUT (FORMAT csv, HEADER)`)
	require.NoError(b.t, err)
	for _, export := range []string{shown, copied.String()} {
		cmd := exec.CommandContext(b.ctx, "python3", "../../doc/verify_ledger.py")
		cmd.Stdin = strings.NewReader(export)
		out, err := cmd.CombinedOutput()
		require.NoError(b.t, err, "apt-get install python3? %s", out)
		for _, r := range b.rows() {
			require.Contains(b.t, string(out), fmt.Sprintf("partition %d: seq %d %x\n", r.partition, r.seq, r.head))
		}
	}
}

// rewrite replaces a partition's entries by changed ones, hashes recomputed, as an administrator of the database could.
func (b *bundle) rewrite(es []ledger.Entry, change func(*ledger.Entry)) {
	b.t.Helper()
	require.NoError(b.t, pgx.BeginFunc(context.Background(), b.desk.db, func(tx pgx.Tx) error {
		p := es[0].Partition
		if _, err := tx.Exec(b.ctx, `ALTER TABLE offset_ledger DISABLE TRIGGER USER`); err != nil {
			return err
		}
		if _, err := tx.Exec(b.ctx, `DELETE FROM offset_ledger WHERE source_partition = $1`, p); err != nil {
			return err
		}
		var q pgx.Batch
		var head []byte
		for _, e := range es {
			change(&e)
			e.PrevHash = head
			head = e.Queue(&q)
		}
		q.Queue(`UPDATE partition_offsets SET ledger_head = $1 WHERE source_partition = $2`, head, p)
		q.Queue(`ALTER TABLE offset_ledger ENABLE TRIGGER USER`)
		return tx.SendBatch(b.ctx, &q).Close()
	}))
}
