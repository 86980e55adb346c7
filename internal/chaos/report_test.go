package chaos

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/internal/failpoint"
)

// sound is a report of a run in which all went well.
func sound() *Report {
	found := map[audit.Class]int64{}
	return &Report{
		Seed: 7, Began: time.Unix(0, 0).UTC(), TookMs: 60_000, BarMs: 6000, SessionMs: 3000, Generated: 1000, What: "a stack",
		Audit: &audit.Report{Found: found, Totals: audit.Totals{Input: 1000}, Verdict: "clean"},
		Faults: []*Fault{
			{N: 1, Lane: "kills", Kind: KillAt, Point: failpoint.CaptureCopied, Confirmed: "seen", Recovered: true, TakeoverMs: 3000, TookMs: 3500, AtMs: 1000, SIGKILLs: 1},
			{N: 2, Lane: "zombies", Kind: Zombie, Confirmed: "seen", Recovered: true, TookMs: 5000, AtMs: 2000},
		},
		Samples: []Sample{{0, 0, 0, 0}, {1, 10, 5, 5}, {30, 900, 800, 700}, {59, 1000, 1000, 1000}},
	}
}

// Each thing that can be wrong has its verdict, and none is a pass.
func TestVerdicts(t *testing.T) {
	for name, c := range map[string]struct {
		damage  func(*Report)
		verdict string
		says    string
	}{
		"nothing":            {func(*Report) {}, Held, ""},
		"lost":               {func(r *Report) { r.Audit.Found[audit.Missing] = 1 }, Broken, "1 missing"},
		"doubled":            {func(r *Report) { r.Audit.Found[audit.Duplicate] = 2 }, Broken, "2 duplicate"},
		"different":          {func(r *Report) { r.Audit.Found[audit.Different] = 1 }, Broken, "different"},
		"out of order":       {func(r *Report) { r.Audit.Found[audit.OutOfOrder] = 1 }, Broken, "out of order"},
		"left behind":        {func(r *Report) { r.Audit.Found[audit.Gap] = 1 }, Broken, "gap"},
		"fewer than sent":    {func(r *Report) { r.Generated = 1001 }, Broken, "1001 clicks were acknowledged"},
		"hidden":             {func(r *Report) { r.Audit.Found[audit.Undecided] = 1 }, NotKnown, "hidden"},
		"hidden and lost":    {func(r *Report) { r.Audit.Found[audit.Undecided], r.Audit.Found[audit.Missing] = 1, 1 }, Broken, "missing"},
		"not audited":        {func(r *Report) { r.Audit = nil }, NotKnown, "nothing was audited"},
		"nothing to audit":   {func(r *Report) { r.Audit.Totals.Input, r.Generated = 0, 0 }, NotKnown, "nothing is proved"},
		"did not strike":     {func(r *Report) { r.Faults[1].Confirmed = "" }, Missed, "not seen to strike"},
		"not recovered from": {func(r *Report) { r.Faults[1].fail("stuck") }, Missed, "stuck"},
		"late":               {func(r *Report) { r.Faults[0].TakeoverMs = 6001 }, Missed, "takeover took"},
		"late amid more":     {func(r *Report) { r.Faults[0].TakeoverMs, r.Faults[0].Beside = 9000, []string{"2: broker killed"} }, Missed, "no takeover could be measured"},
	} {
		t.Run(name, func(t *testing.T) {
			r := sound()
			c.damage(r)
			r.count()
			r.judge()
			require.Equal(t, c.verdict, r.Verdict, r.Why)
			require.Contains(t, strings.Join(r.Why, "\n"), c.says)
			require.Equal(t, c.verdict == Held, len(r.Why) == 0)
			page, err := r.HTML()
			require.NoError(t, err)
			require.Contains(t, string(page), `class="verdict `+c.verdict)
			require.NotContains(t, string(page), "http", "the page needs nothing else")
		})
	}
}

func TestPageEscapes(t *testing.T) {
	r := sound()
	r.Faults[0].Confirmed = "<script>alert(1)</script>"
	r.count()
	r.judge()
	page, err := r.HTML()
	require.NoError(t, err)
	require.NotContains(t, string(page), "<script>")
	require.Contains(t, string(page), "polyline")
}

func TestSpread(t *testing.T) {
	require.Equal(t, Spread{}, spread(nil))
	var ms []int64
	for i := range int64(200) {
		ms = append(ms, 200-i)
	}
	require.Equal(t, Spread{N: 200, Median: 100, P99: 198, Worst: 200}, spread(ms))
	require.Equal(t, Spread{N: 2, Median: 1, P99: 9, Worst: 9}, spread([]int64{9, 1}))
}

// The same seed is the same schedule; it has as many kills as asked for, and every failpoint in each round.
func TestPlan(t *testing.T) {
	size := Size{Kills: 40, Calm: 12, Rounds: 1, Zombies: 8, Terms: 2, Memory: 1, Twins: 1, Session: 3 * time.Second, Between: time.Second, Clients: []string{"confluent", "franz"}}
	plan := Plan(NewRand(5), size)
	require.Equal(t, plan, Plan(NewRand(5), size))
	require.NotEqual(t, plan, Plan(NewRand(6), size))
	kills, calm, at, zombies := 0, 0, map[string]int{}, 0
	for _, f := range plan {
		if f.Calm {
			require.False(t, drains(f.Point), "a kill in a drain takes two")
			calm++
		}
		switch f.Kind {
		case KillAt:
			at[f.Point]++
			kills++
			if drains(f.Point) {
				kills++
			}
		case KillAny:
			kills++
		case Zombie:
			zombies++
			require.Greater(t, f.For, size.Session)
		}
	}
	require.Equal(t, 40, kills)
	require.Equal(t, 12, calm)
	require.Equal(t, 8, zombies)
	for _, p := range failpoint.OfWorkers() {
		require.Equal(t, 1, at[p], p)
	}
}

// A partition that owes what it owed, or has work and does not go on, has not recovered; one that had nothing to do has.
func TestRecovery(t *testing.T) {
	before := State{Positions: map[int32]Position{0: {End: 10, Stored: 8, Published: 5}, 1: {End: 3, Stored: 3, Published: 3}}}
	for _, c := range []struct {
		now  Position
		says string
	}{
		{Position{End: 10, Stored: 8, Published: 5}, "still owed"}, {Position{End: 10, Stored: 9, Published: 7}, "still owed"},
		{Position{End: 10, Stored: 8, Published: 8}, "does not go on"}, {Position{End: 12, Stored: 9, Published: 8}, ""},
	} {
		says := lagging(before, State{Positions: map[int32]Position{0: c.now, 1: {End: 3, Stored: 3, Published: 3}}})
		require.Contains(t, says, c.says)
		require.Equal(t, c.says == "", says == "")
	}
}

// Rates are averages; a time in which nobody could be asked is spread evenly.
func TestRates(t *testing.T) {
	sent, _, _ := rates([]Sample{{S: 0}, {S: 10, Sent: 100}, {S: 20, Sent: 100}}, 20)
	require.InDelta(t, 10, sent[9], 0.01)
	require.InDelta(t, 0, sent[20], 0.01)
}
