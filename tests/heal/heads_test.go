package heal

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/heads"
	"github.com/exactly-pipeline/exactly/txn"
)

// The topic of ledger heads deleted: workers stop and say so; a heal makes it anew, with the newest heads, and the ledger says that it did.
func TestHeadsTopicDeleted(t *testing.T) {
	b := setup(t, "EXACTLY_LEDGER_HEADS_TOPIC=heads_deleted")
	b.alone(clicks)
	b.eraseOne(1)
	erased := b.erasuresInKafka()
	require.Len(t, erased, 1)
	require.Contains(t, b.exactly("ledger", "verify"), "the chains hold")
	b.drop("heads_deleted")
	w := b.start("b")
	w.says("topic heads_deleted .*exactly heal kafka")
	require.Contains(t, b.exactly("heal", "kafka", "--reason", "test"), "no event of the records")
	require.Contains(t, b.exactly("ledger", "show", "--deeds"), "topic heads_deleted was ")
	require.Equal(t, erased, b.erasuresInKafka(), "a restored backup would not know of it")
	require.Contains(t, b.exactly("ledger", "verify"), "the chains hold")
	b.start("c")
	b.generate(clicks)
	b.settle()
	require.Contains(t, b.exactly("ledger", "verify"), "the chains hold")
	b.audit(true)
}

// erasuresInKafka are the offsets of the erasures that the topic of heads has, by partition and seq.
func (b *world) erasuresInKafka() map[[2]int64][]int64 {
	b.t.Helper()
	out := map[[2]int64][]int64{}
	b.sql(func(c *pgx.Conn) {
		src, err := txn.FindSource(b.ctx, c, b.cfg.Topics.Input, b.cfg.Group)
		require.NoError(b.t, err)
		es, damaged, err := heads.Erasures(b.ctx, &b.cfg, src.Stream(), nil)
		require.NoError(b.t, err)
		require.Empty(b.t, damaged)
		for i := range es {
			out[[2]int64{int64(es[i].Entry.Partition), es[i].Entry.Seq}] = es[i].Offsets
		}
	})
	return out
}
