package engine

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"
)

// TestMachine runs scripts of events against one partition's machine. Under each event stand the actions it must lead to and the
// state after them. An event is reported under the life the partition is in; `stale` before it reports it under the one before;
// `withdrawn` belongs to the withdrawal asked for last. go test ./engine -run TestMachine -rewrite writes the golden output anew.
func TestMachine(t *testing.T) {
	datadriven.Walk(t, "testdata/machine", func(t *testing.T, path string) {
		p := NewPartition(7)
		var withdrawing uint64 // the life of the withdrawal asked for last: what the shell reports as withdrawn
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			switch d.Cmd {
			case "new":
				p = NewPartition(7)
				return describe(p) + "\n"
			case "step":
				for _, line := range strings.Split(d.Input, "\n") {
					if line = strings.TrimSpace(line); line == "" {
						continue
					}
					e := scriptEvent(t, p, line)
					if line == string(EvWithdrawn) {
						e.Life = withdrawing
					}
					actions := p.Step(e)
					fmt.Fprintf(&out, "%s\n", line)
					for _, a := range actions {
						if a.Kind == DoWithdraw {
							withdrawing = a.Life
						}
						fmt.Fprintf(&out, "    do %s\n", a)
						require.Equal(t, p.Life, a.Life, "an action belongs to the life it begins in")
					}
					fmt.Fprintf(&out, "    = %s\n", describe(p))
				}
			case "ignores": // each of the events leaves the state as it is and does nothing
				for _, line := range strings.Split(d.Input, "\n") {
					before := *p
					require.Empty(t, p.Step(scriptEvent(t, p, line)), line)
					require.Equal(t, before, *p, line)
				}
				return "ok\n"
			default:
				d.Fatalf(t, "unknown command %q", d.Cmd)
			}
			return out.String()
		})
	})
}

func describe(p *Partition) string {
	s := fmt.Sprintf("%s life=%d", p.State, p.Life)
	if !p.Assigned {
		s += " not-assigned"
	}
	if p.Epoch != 0 {
		s += fmt.Sprintf(" epoch=%d next=%d published=%d", p.Epoch, p.Next, p.Published)
	}
	if p.Reason != "" {
		s += " (" + p.Reason + ")"
	}
	return s
}

// scriptEvent reads one line of a script.
func scriptEvent(t *testing.T, p *Partition, line string) Event {
	t.Helper()
	line, stale := strings.CutPrefix(line, "stale ")
	cmd, args, err := datadriven.ParseLine(line)
	require.NoError(t, err)
	a := map[string]string{}
	for _, arg := range args {
		a[arg.Key] = strings.Join(arg.Vals, ",")
	}
	num := func(k string, def int64) int64 {
		if _, ok := a[k]; !ok {
			return def
		}
		n, err := strconv.ParseInt(a[k], 10, 64)
		require.NoError(t, err, line)
		return n
	}
	has := func(k string) bool { _, ok := a[k]; return ok }
	e := Event{Kind: EventKind(cmd), Life: p.Life, To: num("to", 0), Why: a["why"]}
	if stale {
		e.Life--
	}
	switch e.Kind {
	case EvClaimed:
		e.Claim = Claim{
			Epoch: num("epoch", 1), Next: num("next", 0), Floor: num("floor", 0), LedgerSeq: num("seq", 1),
			LeaderEpoch: int32(num("leader-epoch", -1)), Captured: has("captured"),
		}
		if a["predecessors"] != "" {
			e.Claim.Predecessors = strings.Split(a["predecessors"], ",")
		}
	case EvLooked:
		e.Look = Look{
			HasOffset: has("offset"), Offset: num("offset", 0), Ours: has("ours"), LogStart: num("start", 0), LogEnd: num("end", 1000),
			EpochEnd: num("epoch-end", -1), Changed: a["changed"],
		}
	case EvAssigned, EvRevoked, EvLost, EvProducerLost, EvProducerReady:
		e.Life = 0
	case EvUnclaimed, EvHeld, EvUnstable, EvFenced, EvStarted, EvScanned, EvCaptured, EvRefused, EvPublished, EvFailed, EvBroken, EvWithdrawn, EvRetry:
	default:
		require.Fail(t, "unknown event", line)
	}
	return e
}
