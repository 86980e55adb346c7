package model

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func modelNamed(t *testing.T, name string) model {
	t.Helper()
	i := slices.IndexFunc(models, func(m model) bool { return m.name == name })
	require.GreaterOrEqual(t, i, 0, "no model %s", name)
	return models[i]
}

// Every switch that a model has is a mutant, every mutant's switch is in its model, and every model is searched.
func TestEverySwitchIsAMutant(t *testing.T) {
	files, err := filepath.Glob("*.pml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		name := strings.TrimSuffix(f, ".pml")
		var has, tried []string
		for _, m := range regexp.MustCompile(`(?m)^#(?:ifdef|ifndef) ((?:NO|HOLE)_[A-Z0-9_]+)`).FindAllStringSubmatch(string(b), -1) {
			has = append(has, m[1])
		}
		for _, u := range slices.Concat(mutants, holes) {
			if modelNamed(t, u.model).file == name {
				tried = append(tried, u.out)
			}
		}
		slices.Sort(has)
		slices.Sort(tried)
		require.Equal(t, slices.Compact(has), tried, "%s: switches, and mutants", f)
		require.True(t, slices.ContainsFunc(models, func(m model) bool { return m.file == name }), "%s is not searched", f)
		for _, u := range slices.Concat(mutants, holes) {
			if u.by == safety && modelNamed(t, u.model).file == name {
				require.Contains(t, string(b), "assert(!"+u.what+")", "%s without %s", f, u.out)
			}
		}
	}
}

// A report is read for what it says; one that says nothing, or not everything, is never taken for good.
func TestReports(t *testing.T) {
	const end = "State-vector 140 byte, depth reached 89, errors: %\n   303499 states, stored\n"
	say := func(before, errors string) string { return before + strings.Replace(end, "%", errors, 1) }
	for _, c := range []struct{ out, want string }{
		{say("", "0"), "holds"},
		{say("pan:1: assertion violated  !(duplicate_event) (at depth 72)\n", "1"), "duplicate_event"},
		{say("pan:1: invalid end state (at depth 37)\n", "1"), "stuck"},
		{say("pan:1: non-progress cycle (at depth 37)\n", "1"), "livelock"},
		{say("error: max search depth too small\n", "0"), "not finished: max search depth too small"},
		{say("pan: reached -DMEMLIM bound\npan: out of memory\n", "0"), "not finished: out of memory"},
	} {
		r, err := read(c.out)
		require.NoError(t, err)
		require.Equal(t, c.want, r.String())
		require.EqualValues(t, 303499, r.states)
	}
	for _, out := range []string{"", "Killed", say("pan:1: something else (at depth 3)\n", "1"), say("pan:1: assertion violated (x==1) (at depth 3)\n", "1")} {
		_, err := read(out)
		require.Error(t, err, out)
	}
}
