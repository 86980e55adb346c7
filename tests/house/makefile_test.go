package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// variable is what the Makefile sets a variable to, as a shell gets it.
func variable(t *testing.T, makefile, name string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + name + `\s*:=\s*(.*)$`).FindStringSubmatch(makefile)
	require.NotNil(t, m, "the Makefile does not set %s", name)
	return strings.ReplaceAll(m[1], "$$", "$")
}

// testsIn are the tests of a folder, whatever their build tags, each with the names that it uses.
func testsIn(t *testing.T, folder string) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	files, err := filepath.Glob(filepath.Join(root, folder, "*_test.go"))
	require.NoError(t, err)
	for _, f := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Test") || f.Name.Name == "TestMain" {
				continue
			}
			out[f.Name.Name] = []string{}
			ast.Inspect(f, func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok {
					out[f.Name.Name] = append(out[f.Name.Name], id.Name)
				}
				return true
			})
		}
	}
	return out
}

// Each name that the Makefile picks tests by is a test's: a renamed one would be left out of `make proof`, and run nowhere on Apache Kafka.
func TestMakefilePicksTestsThatExist(t *testing.T) {
	makefile := read(t, "Makefile")
	for name, folder := range map[string]string{"PROOF": "tests/behaviour", "POSTGRES_ALONE": "internal/provision"} {
		picks := regexp.MustCompile(`^\^Test\((.*)\)\$$`).FindStringSubmatch(variable(t, makefile, name))
		require.NotNil(t, picks, "%s: not ^Test(A|B|…)$", name)
		tests := testsIn(t, folder)
		for _, pick := range strings.Split(picks[1], "|") {
			re := regexp.MustCompile("^Test(" + pick + ")$")
			found := false
			for test := range tests {
				found = found || re.MatchString(test)
			}
			require.True(t, found, "%s: no test of %s is called Test%s", name, folder, pick)
		}
	}
}

// What the tag e2e makes longer or larger (a pair of files, one with the tag, one without), some target runs with the tag.
func TestLongerTestsAreRun(t *testing.T) {
	makefile := read(t, "Makefile")
	pairs := 0
	for _, path := range goFiles(t) {
		short := strings.TrimSuffix(path, "_e2e_test.go") + "_test.go"
		if !strings.HasSuffix(path, "_e2e_test.go") || !slices.Contains(goFiles(t), short) || !strings.HasPrefix(read(t, relative(t, short)), "//go:build !e2e\n") {
			continue
		}
		pairs++
		parsed, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		require.NoError(t, err)
		folder := filepath.Dir(relative(t, path))
		longer := 0
		for test, uses := range testsIn(t, folder) {
			if !slices.ContainsFunc(uses, func(name string) bool { return parsed.Scope.Lookup(name) != nil }) { //nolint:staticcheck // one file's own names are all that is asked for
				continue
			}
			longer++
			run := slices.ContainsFunc(strings.Split(makefile, "\n"), func(line string) bool { return runs(t, makefile, line, folder, test) })
			require.True(t, run, "no target runs %s of %s with -tags e2e", test, folder)
		}
		require.Positive(t, longer, "no test uses what %s says", path)
	}
	require.Positive(t, pairs)
}

// runs says whether a line of the Makefile runs a test with the tag e2e.
func runs(t *testing.T, makefile, line, folder, test string) bool {
	if !strings.HasPrefix(line, "\t") || !strings.Contains(line, "-tags e2e ") || !regexp.MustCompile(`\./`+folder+`(\s|$)`).MatchString(line) {
		return false
	}
	for flag, picked := range map[string]bool{"run": true, "skip": false} {
		m := regexp.MustCompile(`-` + flag + ` '([^']*)'`).FindStringSubmatch(line)
		if m == nil {
			continue
		}
		pattern := strings.ReplaceAll(regexp.MustCompile(`\$\(([A-Z_]+)\)`).ReplaceAllStringFunc(m[1], func(v string) string {
			return variable(t, makefile, strings.Trim(v, "$()"))
		}), "$$", "$")
		if regexp.MustCompile(pattern).MatchString(test) != picked {
			return false
		}
	}
	return true
}

func relative(t *testing.T, path string) string {
	t.Helper()
	rel, err := filepath.Rel(root, path)
	require.NoError(t, err)
	return rel
}
