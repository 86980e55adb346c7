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
//	panic  panic, at each hit from the Nth on: what makes a handler panic makes the next one panic, too
//
// A point that is about one record asks for its key: `NAME=ACTION:KEY[@N]`, and counts only those that have it. It may be armed once for each key.
//
// Before it acts, it makes the file EXACTLY_FAILPOINT_DIR/NAME.hit (slashes as hyphens), so that a test can tell that the
// fault struck, and where.
package failpoint

// The points, in the order a record passes them.
const (
	ClaimBefore        = "claim/before"         // assigned, not yet claimed
	HandleRecord       = "handle/record"        // a record is about to be handled; asks for the record's key
	BeginMarked        = "begin/marked"         // Postgres knows which records are about to be handled, none is
	EngineLoop         = "engine/loop"          // the worker's loop goes round; of tests of its health alone
	CaptureBefore      = "capture/before"       // batch ready, nothing sent to Postgres
	CaptureCopied      = "capture/copied"       // rows and outbox copied, the transaction still open
	CaptureBisect      = "capture/bisect"       // the rows that Postgres refuses are found, the search not yet rolled back
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

	HealCopied    = "heal/copied"    // a part of what Postgres lacks written, the transaction still open
	HealCommitted = "heal/committed" // and committed
	HealRebuilt   = "heal/rebuilt"   // all of it there, the partitions still held
	HealFinished  = "heal/finished"  // heads replaced, what was erased blanked again, the partitions still held
	HealProduced  = "heal/produced"  // a part of what Kafka lacks produced, the transaction still open
	HealPublished = "heal/published" // and committed
	HealRecorded  = "heal/recorded"  // the ledger has it, the partitions still held

	ReplayRequested = "replay/requested" // what is to be replayed stands in Postgres, no pointer is written
	ReplayWritten   = "replay/written"   // a part of the pointers is
)

// Names lists the points.
func Names() []string {
	return append(OfWorkers(),
		HealCopied, HealCommitted, HealRebuilt, HealFinished, HealProduced, HealPublished, HealRecorded,
		ReplayRequested, ReplayWritten, HandleRecord, BeginMarked, CaptureBisect, EngineLoop,
	)
}

// OfWorkers lists those that a worker comes to whatever it works on; the others are of people's commands, or take certain records or settings.
func OfWorkers() []string {
	return []string{
		ClaimBefore, CaptureBefore, CaptureCopied, CaptureCommitSent, CaptureCommitted,
		PublishProduced, PublishOffsetsSent, PublishCommitSent, PublishCommitted,
		DrainRead, DrainProduced, DrainOffsetsSent, DrainCommitSent, DrainCommitted,
	}
}
