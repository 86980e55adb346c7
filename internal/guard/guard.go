// Package guard owns the names of the protocol's guards that a simulation may take out, one at a time, to see what breaks without it.
//
// It promises that all of them stand in every build without the tag `mutants`: Off is then a constant, and what it would lead to is not
// compiled in. It never decides what a guard does: that stands where it is asked for.
package guard

// Guard is one guard, or a part of one, of doc/protocol.md. The number in front is the guard's there.
type Guard string

// The guards whose place is in engine and txn.
const (
	NextOffset     Guard = "1 next_offset compared"
	Epoch          Guard = "1 epoch compared"
	StampedAnew    Guard = "2 what is retained is stamped anew"
	Withdraw       Guard = "3 a revoke returns when nothing is queued or open"
	LostIsAborted  Guard = "3 lost is aborted"
	CaptureFirst   Guard = "6 capture before publish"
	SameBytesAgain Guard = "7 an abort is followed by the same bytes"
	LookAgain      Guard = "8 after a lost producer: claim, look, drain"
	RenewRepeated  Guard = "8 a repeated request leads to a new producer"
	UnknownCapture Guard = "9 an unknown capture is not taken for done"
	DropMemory     Guard = "9 an unknown capture drops what is in memory"
	Expired        Guard = "10 stored offset below the log's start"
	Truncated      Guard = "10 log truncated below the stored offset"
	NewLeader      Guard = "10 a new leader's first record leads to another look"
	Ahead          Guard = "10 group offset above the stored offset"
	NotOurs        Guard = "10 group offset without our metadata"
	Floor          Guard = "10 group offset below published_at_least"
	NoRow          Guard = "10 group offset without a stored one"
	Recreated      Guard = "10 topic ids compared"
	Scanned        Guard = "10 no group offset although something was captured"
	SameStore      Guard = "11 system identifier and timeline compared"
	ClaimedAgain   Guard = "given up but still assigned: claimed again"
	Lives          Guard = "what comes back from an older life is for nobody"
	Doubt          Guard = "Kafka ahead is believed at the second claim in a row"
	Unowned        Guard = "a partition nobody has leads to a rebalance"
	FencedByWhom   Guard = "fenced: by whom"
	TakenOver      Guard = "take over at once: absent predecessors are fenced"
)
