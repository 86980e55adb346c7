package model

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var rewrite = flag.Bool("rewrite", false, "write the lines that doc/protocol.md links to anew")

const document = "../../doc/protocol.md"

var link = regexp.MustCompile(`\[(\w+): ((?:NO|HOLE)_[A-Z0-9_]+)\]\(\.\./tests/model/(\w+)\.pml#L(\d+)\)`)

func text(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(b)
}

// lineOf is where a model first asks for a switch: beside it stands the guard.
func lineOf(t *testing.T, file, out string) int {
	t.Helper()
	for i, l := range strings.Split(text(t, file+".pml"), "\n") {
		if l == "#ifdef "+out || l == "#ifndef "+out {
			return i + 1
		}
	}
	require.Fail(t, "no such switch", "%s.pml: %s", file, out)
	return 0
}

// Each guard of doc/protocol.md leads to where the models take it out, and to that very line; every mutant and every known hole is linked.
func TestGuardsAreLinked(t *testing.T) {
	doc := text(t, document)
	if *rewrite {
		doc = link.ReplaceAllStringFunc(doc, func(l string) string {
			m := link.FindStringSubmatch(l)
			return fmt.Sprintf("[%s: %s](../tests/model/%s.pml#L%d)", m[1], m[2], m[3], lineOf(t, m[3], m[2]))
		})
		require.NoError(t, os.WriteFile(document, []byte(doc), 0o644))
	}
	var linked, tried []string
	for _, m := range link.FindAllStringSubmatch(doc, -1) {
		require.Equal(t, m[1], m[3], "the text of a link names its model: %s", m[0])
		require.Equal(t, strconv.Itoa(lineOf(t, m[3], m[2])), m[4], "%s: go test ./tests/model -run TestGuardsAreLinked -rewrite", m[0])
		linked = append(linked, m[3]+": "+m[2])
	}
	for _, u := range slices.Concat(mutants, holes) {
		tried = append(tried, modelNamed(t, u.model).file+": "+u.out)
	}
	slices.Sort(linked)
	slices.Sort(tried)
	require.Equal(t, tried, linked, "mutants and holes, and what doc/protocol.md links to")

	guards := regexp.MustCompile(`(?m)^\| (\d+) \| .*$`).FindAllStringSubmatch(doc, -1)
	require.Len(t, guards, 11)
	for i, g := range guards {
		require.Equal(t, strconv.Itoa(i+1), g[1])
		found := link.FindAllStringSubmatch(g[0], -1)
		require.NotEmpty(t, found, "guard %s is in no model", g[1])
		for _, m := range found {
			require.Regexp(t, `^NO_GUARD_`+g[1]+`(_|$)`, m[2])
		}
	}
}

// The bounds that doc/protocol.md tells of are those that are searched.
func TestBoundsAreTold(t *testing.T) {
	var told, searched []string
	_, section, found := strings.Cut(text(t, document), "\n| model | what is in it | bounds |\n|---|---|---|\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n\n")
	for _, row := range strings.Split(section, "\n") {
		cells := strings.Split(strings.Trim(row, "| "), " | ")
		require.Len(t, cells, 3, row)
		told = append(told, cells[0]+": "+cells[2])
	}
	for _, m := range models {
		searched = append(searched, m.name+": "+m.bounds)
	}
	require.Equal(t, searched, told)
}
