package behaviour

import (
	"testing"

	"github.com/stretchr/testify/require"

	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
)

// TestBothClients: workers of either Kafka client share a group, and each takes over from the other what it left in the middle of a
// transaction.
func TestBothClients(t *testing.T) {
	const setting = "EXACTLY_KAFKA_CLIENT="
	for _, c := range []struct{ dies, lives, point string }{
		{"confluent", "franz", fp.PublishOffsetsSent}, {"franz", "confluent", fp.PublishOffsetsSent},
		{"franz", "franz", fp.PublishCommitSent}, {"franz", "franz", fp.CaptureCommitted}, {"franz", "franz", fp.PublishProduced},
	} {
		t.Run(c.dies+"_"+c.lives+"_"+c.point, func(t *testing.T) {
			b := setup(t)
			a := b.start("a", setting+c.dies, failpoint(c.point+"=kill@2"))
			a.says("consuming")
			o := b.start("b", setting+c.lives)
			o.says("rebalance: assigned")
			b.feed("a is dead", a.ended)
			a.killed(c.point)
			b.start("a", setting+c.lives).says("rebalance: assigned")
			b.generate(clicks / 2)
			r := b.settle()
			require.EqualValues(t, b.sent, r.Totals.Input)
		})
	}
}
