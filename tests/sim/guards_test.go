//go:build mutants

package sim

import (
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/exactly-pipeline/exactly/internal/guard"
)

var (
	mutantFlag = flag.String("mutant", "", "only guards whose name contains this")
	withinFlag = flag.Int("within", 20000, "how many seeds may be needed")
	// Nothing is expected of these: if they do show something, so much the better, and the table says so.
	coveredFlag = flag.Int("covered", 1000, "how many seeds for guards that others cover for")
)

// mutant is the protocol with one guard taken out, or with one and those that cover for it.
type mutant struct {
	name   string
	guards []guard.Guard // in engine or txn
	cheat  cheats        // or in the models
	breaks []string      // what may break
	stays  string        // why it stays although that is seldom, or never, seen: others cover for it
}

func mutants() []mutant {
	var out []mutant
	in := func(g guard.Guard, breaks ...string) {
		out = append(out, mutant{string(g), []guard.Guard{g}, cheats{}, breaks, ""})
	}
	model := func(name string, c cheats, breaks ...string) { out = append(out, mutant{name, nil, c, breaks, ""}) }
	covered := func(name string, gs []guard.Guard, c cheats, stays string) {
		out = append(out, mutant{name, gs, c, nil, stays})
	}
	both := func(name string, gs []guard.Guard, c cheats, breaks ...string) {
		out = append(out, mutant{name, gs, c, breaks, ""})
	}
	covered(string(guard.NextOffset), []guard.Guard{guard.NextOffset}, cheats{},
		"seldom seen: a claim reads next_offset and raises the epoch at once, so the epoch covers, unless a backup without a new timeline gives epochs out twice")
	both("1 next_offset compared, and 9 memory dropped", []guard.Guard{guard.NextOffset, guard.DropMemory}, cheats{}, "rows")
	in(guard.Epoch, "old epoch")
	covered("2 metadata from inside the callback", nil, cheats{freshMetadata: true},
		"librdkafka does not join again before the callback has returned, and guard 3 empties the queue in it: a client's order, not a promise")
	model("2 metadata from inside the callback, of an eager client", cheats{freshMetadata: true, eager: true}, "twice", "group offset back")
	model("2 metadata at all", cheats{noGeneration: true}, "twice", "group offset back")
	in(guard.StampedAnew, "stuck")
	in(guard.Withdraw, "twice", "group offset back", "kafka ahead")
	covered(string(guard.LostIsAborted), []guard.Guard{guard.LostIsAborted}, cheats{},
		"the broker refuses a lost member's metadata (2), and what was sent before keeps the group offset pending (4): that wait is what it saves")
	model("4 the group offset is read stable", cheats{unstable: true}, "twice", "group offset back")
	model("5 outbox bytes", cheats{reEnrich: true}, "bytes")
	in(guard.CaptureFirst, "kafka ahead")
	in(guard.SameBytesAgain, "lost")
	in(guard.LookAgain, "twice", "group offset back")
	model("8 a new producer fences the old one", cheats{sameProducer: true}, "events without their offset", "twice", "group offset back", "lost")
	in(guard.RenewRepeated, "events without their offset", "lost", "group offset back")
	in(guard.UnknownCapture, "kafka ahead")
	in(guard.DropMemory, "kafka ahead", "old epoch", "stuck")
	covered("9 a claim reads the row it waited for", nil, cheats{staleClaim: true},
		"next_offset is compared (1), and a drain to an offset too low is followed by a refused capture and another claim")
	both("9 a claim reads the row it waited for, and 1 next_offset compared", []guard.Guard{guard.NextOffset}, cheats{staleClaim: true}, "rows")
	in(guard.Expired, "rows")
	in(guard.Truncated, "lost", "stuck")
	in(guard.NewLeader, "lost")
	in(guard.Ahead, "twice", "kafka ahead", "group offset back")
	in(guard.NotOurs, "twice", "group offset back")
	in(guard.Floor, "twice", "group offset back")
	covered(string(guard.NoRow), []guard.Guard{guard.NoRow}, cheats{},
		"the group offset is above what a first start chooses, where it does not choose the latest: it stops before it writes to a database that is not ours")
	both("10 group offset without a stored one, and above the stored one", []guard.Guard{guard.NoRow, guard.Ahead}, cheats{}, "twice", "kafka ahead", "group offset back")
	in(guard.Recreated, "stuck")
	in(guard.Scanned, "lost")
	in(guard.SameStore, "old epoch")
	in(guard.ClaimedAgain, "stuck")
	covered(string(guard.Lives), []guard.Guard{guard.Lives}, cheats{},
		"seldom seen: most times what comes back meets another state or another epoch; tests/model finds it by searching all")
	in(guard.Doubt, "false alarm")
	in(guard.Unowned, "stuck", "stuck after a repair")
	in(guard.FencedByWhom, "turns")
	in(guard.TakenOver, "take-over")
	model("records are marked before they are handled", cheats{unmarked: true}, "stuck", "stuck after a repair")
	return out
}

// TestGuards: each guard taken out in turn is found, by what it says breaks.
func TestGuards(t *testing.T) {
	var table strings.Builder
	for _, m := range mutants() {
		if !strings.Contains(m.name, *mutantFlag) {
			continue
		}
		within := *withinFlag
		if m.stays != "" {
			within = min(within, *coveredFlag)
		}
		guard.TakeOut(m.guards...)
		broken := search(t, m.cheat, *fromFlag, within, true, m.breaks)
		guard.TakeOut()
		if len(broken) == 0 {
			if m.stays == "" {
				t.Errorf("%s: taken out, and none of %v breaks in %d seeds", m.name, m.breaks, *withinFlag)
			}
			fmt.Fprintf(&table, "%-70s nothing      it stays: %s\n", m.name, m.stays)
			continue
		}
		first := ^uint64(0)
		for seed := range broken {
			first = min(first, seed)
		}
		f := broken[first].failure
		fmt.Fprintf(&table, "%-70s seed %6d  %s: %s\n", m.name, first, f.kind, f.what)
	}
	t.Logf("guard taken out, the first seed that shows it, and what broke\n%s", table.String())
}
