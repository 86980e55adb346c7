// Package failpoint owns the named moments at which a test may kill, stop or hold a worker. They are compiled in only with the
// build tag `failpoints`; otherwise Hit is an empty function.
//
// It promises that a fault leaves a mark before it strikes, so that no test passes for want of it. It never decides what a test means by it.
//
// EXACTLY_FAILPOINT arms them: `NAME=ACTION[@N]`, several separated by commas; the action happens at the Nth hit (default 1), once.
//
//	kill   SIGKILL to this process
//	stop   SIGSTOP to this process
//	hold   wait until the file EXACTLY_FAILPOINT_DIR/NAME.release exists
//
// Before it acts, it makes the file EXACTLY_FAILPOINT_DIR/NAME.hit (slashes as hyphens), so that a test can tell that the
// fault struck, and where.
package failpoint

// The points, in the order a record passes them.
const (
	ClaimBefore        = "claim/before"         // assigned, not yet claimed
	CaptureBefore      = "capture/before"       // batch ready, nothing sent to Postgres
	CaptureCopied      = "capture/copied"       // rows and outbox copied, the transaction still open
	CaptureCommitSent  = "capture/commit-sent"  // COMMIT on its way
	CaptureCommitted   = "capture/committed"    // captured, nothing published
	PublishProduced    = "publish/produced"     // events produced, offsets not sent
	PublishOffsetsSent = "publish/offsets-sent" // offsets sent, the transaction still open
	PublishCommitSent  = "publish/commit-sent"  // EndTxn on its way
	PublishCommitted   = "publish/committed"    // committed, the worker does not know yet
	DrainRead          = "drain/read"           // the gap read from the outbox
	DrainProduced      = "drain/produced"
	DrainOffsetsSent   = "drain/offsets-sent"
	DrainCommitSent    = "drain/commit-sent"
	DrainCommitted     = "drain/committed"
)

// Names lists the points.
func Names() []string {
	return []string{
		ClaimBefore, CaptureBefore, CaptureCopied, CaptureCommitSent, CaptureCommitted,
		PublishProduced, PublishOffsetsSent, PublishCommitSent, PublishCommitted,
		DrainRead, DrainProduced, DrainOffsetsSent, DrainCommitSent, DrainCommitted,
	}
}
