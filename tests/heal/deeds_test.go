package heal

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/exactly-pipeline/exactly/internal/heads"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/txn"
)

// held holds a partition and lets it go again, so often.
func (b *world) held(partition, times int) {
	b.t.Helper()
	for range times {
		b.exactly("offsets", "hold", "--partition", fmt.Sprint(partition), "--reason", "a look")
		b.exactly("offsets", "release", "--partition", fmt.Sprint(partition), "--reason", "seen")
	}
}

// A backup that lacks nothing but deeds: no record is missing, and the heads of the deeds are beyond the ledger until a heal says so.
func TestPostgresLacksDeedsAlone(t *testing.T) {
	b := setup(t)
	b.alone(clicks)
	b.backup()
	b.held(1, 2)
	b.restore()
	out, code := b.try(nil, "ledger", "verify")
	require.Equal(t, 3, code, out)
	require.Contains(t, b.exactly("heal", "postgres", "--dry-run"), "lacks deeds")
	require.Contains(t, b.exactly("heal", "postgres", "--reason", "test"), "partition 1: its ledger had lost deeds")
	require.Contains(t, b.exactly("ledger", "verify"), "the chains hold")
	require.Contains(t, b.exactly("heal", "postgres", "--reason", "test"), "nothing to heal")
	b.start("b")
	b.generate(clicks)
	b.settle()
}

// Deeds between the restore and the heal stand where the chain's end was: the heal's head replaces from there on, and no start that was always there
// blesses what comes behind it.
func TestPostgresDeedsBeforeTheHeal(t *testing.T) {
	b := setup(t)
	b.alone(clicks)
	b.backup()
	b.held(1, 1)
	b.alone(clicks)
	b.restore()
	first := b.scalar(`SELECT ledger_seq FROM partition_offsets WHERE source_partition = 1`) + 1
	b.held(1, 2)
	b.exactly("heal", "postgres", "--reason", "test")
	require.Contains(t, b.exactly("ledger", "verify"), "the chains hold")
	b.sql(func(c *pgx.Conn) {
		src, err := txn.FindSource(b.ctx, c, b.cfg.Topics.Input, b.cfg.Group)
		require.NoError(t, err)
		all, _, err := heads.Read(b.ctx, &b.cfg, src.Stream())
		require.NoError(t, err)
		replacing, _ := ledger.Replacing(all[1])
		require.Len(t, replacing, 1)
		require.Equal(t, ledger.Heal, replacing[0].Kind)
		require.GreaterOrEqual(t, replacing[0].Replaces.From, first)
		require.Less(t, replacing[0].Replaces.From, replacing[0].Seq)
	})
	b.start("b")
	b.settle()
}

// Records expired unread and that was accepted, or they were skipped, after the backup: there are no events of them, and none is asked for. The deed is
// done again, at its place.
func TestPostgresSkippedSinceTheBackup(t *testing.T) {
	for _, deed := range []string{"accept-loss", "reset"} {
		t.Run(deed, func(t *testing.T) {
			b := setup(t)
			b.alone(clicks)
			b.backup()
			b.alone(clicks)
			next := b.scalar(`SELECT next_offset FROM partition_offsets WHERE source_partition = 2`)
			b.generate(clicks)
			if deed == "accept-loss" {
				os := kadm.Offsets{}
				os.Add(kadm.Offset{Topic: b.cfg.Topics.Input, Partition: 2, At: next + 10})
				_, err := b.adm.Kadm().DeleteRecords(b.ctx, os)
				require.NoError(t, err)
			}
			b.exactly("offsets", deed, "--partition", "2", "--to", fmt.Sprint(next+10), "--reason", "lost")
			w := b.start("a")
			b.settle()
			w.stop()
			b.empty()
			was := b.snapshot()
			b.restore()
			require.Contains(t, b.exactly("heal", "postgres", "--reason", "test"), "1 deeds done again")
			same(t, was, b.snapshot(), tables...)
			require.EqualValues(t, 1, b.scalar(`SELECT count(*) FROM offset_ledger WHERE kind IN ('accept_loss', 'reset') AND source_partition = 2
				AND from_offset = $1 AND to_offset = $1 + 10 AND why LIKE 'test (heal: done again%lost%'`, next))
			require.Contains(t, b.exactly("ledger", "verify"), "the chains hold")
			b.start("b")
			b.generate(clicks)
			b.settle()
		})
	}
}
