package heal

import (
	"testing"

	"github.com/stretchr/testify/require"

	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
)

// auto starts a worker that heals by itself.
func (b *world) auto(id string, with ...string) *worker {
	b.t.Helper()
	return b.spawn(id, append(with, "EXACTLY_WORKER_ID="+id), "run", "--auto-heal")
}

// Two workers start on a database that was restored; the one that heals is killed in the middle, the other goes on with it.
func TestAutoHealPostgres(t *testing.T) {
	b := setup(t, "EXACTLY_BATCH_DRAIN_RECORDS=400")
	was := b.lost()
	first := b.auto("b", "EXACTLY_FAILPOINT="+fp.HealCommitted+"=kill@3")
	require.Equal(t, -1, first.ended(), first.log.Tail())
	b.auto("c")
	b.auto("d")
	b.until("all is rebuilt", func() bool { return b.stored() == b.sent })
	same(t, was, b.snapshot(), tables...)
	b.generate(clicks)
	b.settle()
	require.Zero(t, b.scalar(`SELECT count(*) FROM partition_offsets WHERE state <> 'open'`))
	require.Positive(t, b.scalar(`SELECT count(*) FROM offset_ledger WHERE kind = 'heal' AND who = 'worker b' AND why LIKE 'auto_heal%'`))
}

// Output topics are recreated while a worker is idle, and again while none runs.
func TestAutoHealKafka(t *testing.T) {
	b := setup(t)
	b.alone(clicks)
	was := b.events()
	w := b.auto("b")
	b.until("it has all partitions", func() bool {
		return b.scalar(`SELECT count(*) FROM partition_offsets WHERE worker = 'b'`) == partitions
	})
	b.recreate(b.cfg.Topics.Output)
	w.says("auto_heal: published")
	sameEvents(t, was, b.events())
	b.generate(clicks)
	b.settle()
	w.stop()
	b.empty()
	was = b.events()
	b.drop(b.cfg.Topics.Output, b.cfg.Topics.DLQ)
	b.auto("c").says("auto_heal: output topics were deleted or recreated")
	b.generate(clicks / 10)
	b.settle()
	got := b.events()
	for k := range got {
		got[k] = got[k][:min(len(got[k]), len(was[k]))]
	}
	sameEvents(t, was, got)
}
