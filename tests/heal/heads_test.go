package heal

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The topic of ledger heads deleted: workers stop and say so; a heal makes it anew, with the newest heads, and the ledger says that it did.
func TestHeadsTopicDeleted(t *testing.T) {
	b := setup(t, "EXACTLY_LEDGER_HEADS_TOPIC=heads_deleted")
	b.alone(clicks)
	require.Contains(t, b.exactly("ledger", "verify"), "the chains hold")
	b.drop("heads_deleted")
	w := b.start("b")
	w.says("topic heads_deleted .*exactly heal kafka")
	require.Contains(t, b.exactly("heal", "kafka", "--reason", "test"), "no event of the records")
	require.Contains(t, b.exactly("ledger", "show", "--deeds"), "topic heads_deleted was ")
	require.Contains(t, b.exactly("ledger", "verify"), "the chains hold")
	b.start("c")
	b.generate(clicks)
	b.settle()
	require.Contains(t, b.exactly("ledger", "verify"), "the chains hold")
	b.audit(true)
}
