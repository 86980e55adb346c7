package behaviour

import (
	"testing"

	"github.com/stretchr/testify/require"

	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
)

const clicks = 20_000

// TestKilledAt kills one of two workers at every failpoint; what it left is finished by the other, and nothing is lost, doubled or different.
func TestKilledAt(t *testing.T) {
	for _, point := range []string{
		fp.ClaimBefore, fp.CaptureBefore, fp.CaptureCopied, fp.CaptureCommitSent, fp.CaptureCommitted,
		fp.PublishProduced, fp.PublishOffsetsSent, fp.PublishCommitSent, fp.PublishCommitted,
	} {
		t.Run(point, func(t *testing.T) {
			b := setup(t)
			count := "@2"
			if point == fp.ClaimBefore {
				count = ""
			}
			a := b.start("a", failpoint(point+"=kill"+count))
			if count != "" {
				a.says("consuming")
			}
			b.start("b").says("rebalance: assigned")
			b.feed("a is dead", a.ended)
			a.killed(point)
			b.generate(clicks / 2)
			r := b.settle()
			require.EqualValues(t, b.sent, r.Totals.Input)
		})
	}
	// A drain needs a gap: the first worker leaves one, the second dies in draining it, the third finishes.
	for _, point := range []string{fp.DrainRead, fp.DrainProduced, fp.DrainOffsetsSent, fp.DrainCommitSent, fp.DrainCommitted} {
		t.Run(point, func(t *testing.T) {
			b := setup(t, "EXACTLY_BATCH_DRAIN_RECORDS=20")
			b.generate(clicks / 2)
			b.start("a", failpoint(fp.CaptureCommitted+"=kill@3")).killed(fp.CaptureCommitted)
			b.start("b", failpoint(point+"=kill@2")).killed(point)
			b.generate(clicks / 2)
			b.start("c")
			r := b.settle()
			require.EqualValues(t, clicks, r.Totals.Input)
		})
	}
}
