package engine

import (
	"fmt"

	"github.com/exactly-pipeline/exactly/internal/guard"
	"github.com/exactly-pipeline/exactly/ledger"
)

// Claim is what Postgres says of a partition when its epoch has been raised.
type Claim struct {
	Epoch        int64
	Next         int64 // stored offset
	LeaderEpoch  int32 // of the record before Next; -1 unknown
	LedgerSeq    int64
	Head         *ledger.Head // of that entry; nil: not known
	Floor        int64        // published_at_least
	Captured     bool         // the ledger goes on beyond its start: something may have been published
	Predecessors []string     // who owned it since its gap was last drained
	Care         Care
}

// Look is what Kafka says of a partition, all of it read after the claim.
type Look struct {
	HasOffset bool
	Offset    int64 // group offset, stable
	Ours      bool  // its metadata is ours: exactly/1 …
	LogStart  int64 // first offset still there
	LogEnd    int64 // offset of the next record to be appended (high watermark)
	EpochEnd  int64 // end of the stored leader epoch by KIP-320; -1 unknown
	Changed   string
}

// looked decides what the group offset and the log's ends mean for the stored offset: guard 10. Everything that could be a
// silent loss or a duplicate stops the partition with what happened, how many records it concerns, and what repairs it.
func (p *Partition) looked(l Look) []Action {
	switch {
	case l.Changed != "":
		return p.stop(l.Changed)
	case p.Epoch == 0 && l.HasOffset && !guard.Off(guard.NoRow):
		return p.ahead(fmt.Sprintf("no stored offset in Postgres although the group has committed offset %d: this database does not belong to this "+
			"group, or has lost its partition_offsets; use the right database, or another group name; if it is the right one: exactly heal postgres --reason …", l.Offset))
	case p.Epoch == 0:
		p.State = Starting
		return p.do(DoStart)
	case p.Next < l.LogStart && !guard.Off(guard.Expired):
		return p.stop(fmt.Sprintf("%d records, offsets [%d,%d), expired from the input before they were read; to go on without them: "+
			"exactly offsets accept-loss --partition %d --to %d --reason …", l.LogStart-p.Next, p.Next, l.LogStart, p.ID, l.LogStart))
	case p.Next > l.LogEnd && !guard.Off(guard.Truncated):
		return p.stop(fmt.Sprintf("the input log ends at %d, below our stored offset %d: it was truncated and %d records that were captured are no "+
			"longer in it (unclean leader election, or the topic was restored); see doc/failures.md, \"Input truncated\"", l.LogEnd, p.Next, p.Next-l.LogEnd))
	case l.EpochEnd >= 0 && l.EpochEnd < p.Next && !guard.Off(guard.Truncated):
		return p.stop(fmt.Sprintf("the input log diverged at %d, below our stored offset %d (KIP-320: its leader epoch ended there): %d records that "+
			"were captured have been replaced; see doc/failures.md, \"Input truncated\"", l.EpochEnd, p.Next, p.Next-l.EpochEnd))
	case !l.HasOffset && (!p.Captured || guard.Off(guard.Scanned)):
		return p.drain(p.Next) // a first start: nothing was captured, so nothing is owed
	case !l.HasOffset:
		p.State = Scanning
		return p.do(DoScan)
	case !l.Ours && !guard.Off(guard.NotOurs):
		return p.stop(fmt.Sprintf("the group offset was set to %d by somebody else (it does not carry our metadata; stored offset %d, last seen at least %d): "+
			"to set it again to what the output topics say: exactly offsets restore --partition %d --reason …", l.Offset, p.Next, p.Floor, p.ID))
	case l.Offset > p.Next && guard.Off(guard.Ahead):
		return p.consume()
	case l.Offset > p.Next:
		return p.ahead(brokenAhead(l.Offset, p.Next))
	case l.Offset < p.Floor && !guard.Off(guard.Floor):
		return p.stop(fmt.Sprintf("the group offset is %d, but was already seen at %d: it was reset, or Kafka lost commits; %d records would be published twice; "+
			"to set it again to what the output topics say: exactly offsets restore --partition %d --reason …", l.Offset, p.Floor, p.Floor-l.Offset, p.ID))
	}
	return p.drain(l.Offset)
}

func brokenAhead(group, stored int64) string {
	return fmt.Sprintf("the group offset %d is above the stored offset %d: Postgres has gone back in time (a restored backup, a promoted replica) and lacks %d records "+
		"that Kafka has; to rebuild them from the output topics: exactly heal postgres --reason …; see doc/failures.md, \"Postgres gone back in time\"", group, stored, group-stored)
}
