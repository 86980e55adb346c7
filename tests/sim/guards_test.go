//go:build mutants

package sim

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/exactly-pipeline/exactly/internal/guard"
)

var (
	mutantFlag = flag.String("mutant", "", "only guards whose name contains this")
	withinFlag = flag.Int("within", 20000, "how many seeds may be needed")
)

// mutant is the protocol with one guard taken out, or with one and those that cover for it.
type mutant struct {
	name   string
	guards []guard.Guard // in engine or txn
	cheat  cheats        // or in the models
	breaks []string      // what may break; none: nothing does, the guard is covered by others
}

func mutants() []mutant {
	var out []mutant
	in := func(g guard.Guard, breaks ...string) {
		out = append(out, mutant{string(g), []guard.Guard{g}, cheats{}, breaks})
	}
	model := func(name string, c cheats, breaks ...string) { out = append(out, mutant{name, nil, c, breaks}) }
	both := func(name string, gs []guard.Guard, c cheats, breaks ...string) {
		out = append(out, mutant{name, gs, c, breaks})
	}
	in(guard.NextOffset)
	both("1 next_offset compared, and 9 memory dropped", []guard.Guard{guard.NextOffset, guard.DropMemory}, cheats{}, "rows")
	in(guard.Epoch, "old epoch")
	model("2 metadata from inside the callback", cheats{freshMetadata: true})
	model("2 metadata from inside the callback, of an eager client", cheats{freshMetadata: true, eager: true}, "twice", "group offset back")
	model("2 metadata at all", cheats{noGeneration: true}, "twice", "group offset back")
	in(guard.StampedAnew, "stuck")
	in(guard.Withdraw, "twice", "group offset back", "kafka ahead")
	in(guard.LostIsAborted)
	model("4 the group offset is read stable", cheats{unstable: true}, "twice", "group offset back")
	model("5 outbox bytes", cheats{reEnrich: true}, "bytes")
	in(guard.CaptureFirst, "kafka ahead")
	in(guard.SameBytesAgain, "lost")
	in(guard.LookAgain, "twice", "group offset back")
	model("8 a new producer fences the old one", cheats{sameProducer: true}, "events without their offset", "twice", "group offset back", "lost")
	in(guard.UnknownCapture, "kafka ahead")
	in(guard.DropMemory, "stuck")
	model("9 a claim reads the row it waited for", cheats{staleClaim: true})
	both("9 a claim reads the row it waited for, and 1 next_offset compared", []guard.Guard{guard.NextOffset}, cheats{staleClaim: true}, "rows")
	in(guard.Expired, "rows")
	in(guard.Truncated, "stuck")
	in(guard.Ahead, "twice", "kafka ahead", "group offset back")
	in(guard.NotOurs, "twice", "group offset back")
	in(guard.Floor, "twice", "group offset back")
	in(guard.NoRow, "twice", "group offset back")
	in(guard.Recreated, "stuck")
	in(guard.Scanned, "lost")
	in(guard.SameStore, "old epoch")
	in(guard.ClaimedAgain, "stuck")
	in(guard.FencedByWhom, "turns")
	in(guard.TakenOver, "take-over")
	model("(a limit) a second copy of an answered EndTxn may arrive", cheats{strays: true}, "events without their offset", "lost")
	model("(a limit) a static member that comes again never causes a rebalance", cheats{orphans: true}, "stuck", "take-over", "stuck after a repair")
	return out
}

// TestGuards: each guard taken out in turn is found, by what it says breaks.
func TestGuards(t *testing.T) {
	var table strings.Builder
	for _, m := range mutants() {
		if !strings.Contains(m.name, *mutantFlag) {
			continue
		}
		guard.TakeOut(m.guards...)
		broken := search(t, m.cheat, *fromFlag, *withinFlag, true)
		guard.TakeOut()
		if len(broken) == 0 {
			if m.breaks != nil {
				t.Errorf("%s: taken out, and nothing breaks in %d seeds", m.name, *withinFlag)
			}
			fmt.Fprintf(&table, "%-70s nothing\n", m.name)
			t.Logf("%s: nothing", m.name)
			continue
		}
		first := ^uint64(0)
		for seed := range broken {
			first = min(first, seed)
		}
		f := broken[first].failure
		if !slices.Contains(m.breaks, f.kind) {
			t.Errorf("%s: %s broke at seed %d, expected %v", m.name, f.kind, first, m.breaks)
		}
		fmt.Fprintf(&table, "%-70s seed %6d  %s: %s\n", m.name, first, f.kind, f.what)
	}
	t.Logf("guard taken out, the first seed that shows it, and what broke\n%s", table.String())
}
