// Package house owns the rules of this tree that a compiler does not know: who may import whom, how a package introduces itself, how
// long a file may be, which names the outside relies on, and that the documents name things that exist.
//
// It promises that a rule broken is named with its place. It never changes a file.
package house

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	root   = "../.."
	module = "github.com/exactly-pipeline/exactly"
)

// room is a package as go list tells of it. Its name is its folder, "" for the module's own.
type room struct {
	ImportPath, Dir                    string
	Imports, TestImports, XTestImports []string
	Deps                               []string
	GoFiles, TestGoFiles, XTestGoFiles []string
}

func (r *room) name() string {
	return strings.TrimPrefix(strings.TrimPrefix(r.ImportPath, module), "/")
}

// rooms are this module's packages.
func rooms(t *testing.T) map[string]*room {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,Imports,TestImports,XTestImports,Deps,GoFiles,TestGoFiles,XTestGoFiles", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	require.NoError(t, err)
	all := map[string]*room{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		r := &room{}
		require.NoError(t, dec.Decode(r))
		all[r.name()] = r
	}
	require.NotEmpty(t, all)
	return all
}

// importers are the packages whose code (not tests) imports any package below prefix.
func importers(all map[string]*room, prefix string) []string {
	var out []string
	for name, r := range all {
		if slices.ContainsFunc(r.Imports, func(i string) bool { return below(i, prefix) }) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func below(path, prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }

// Who may import a library: everybody else asks them.
func TestLibrariesHaveAnOwner(t *testing.T) {
	all := rooms(t)
	for _, c := range []struct {
		library string
		owners  []string
	}{
		{"github.com/hamba/avro/v2", []string{"schema"}},
		{"github.com/confluentinc/confluent-kafka-go/v2", []string{"clicks", "internal/confluent", "internal/security"}}, // clicks: its generator's producer
		{"github.com/santhosh-tekuri/jsonschema", []string{"schema"}},
		{"github.com/pressly/goose/v3", []string{"migrations"}},
		{"github.com/spf13/cobra", []string{"cmd/exactly"}},
		{"github.com/knadh/koanf", []string{"internal/config"}},
		{"github.com/prometheus/client_golang", []string{"internal/telemetry"}},
		{"go.opentelemetry.io/otel", []string{"internal/tracing"}},
		{"go.opentelemetry.io/contrib", []string{"internal/tracing"}},
		{"github.com/exaring/otelpgx", []string{"internal/tracing"}},
		{"github.com/twmb/franz-go/pkg/kfake", []string{"internal/stack"}},
		{"github.com/fergusstrange/embedded-postgres", []string{"internal/stack"}},
		{"github.com/Shopify/toxiproxy/v2", []string{"internal/chaos/rig"}}, // not in the program
	} {
		require.Subset(t, c.owners, importers(all, c.library), "%s is imported by somebody else than %v", c.library, c.owners)
	}
}

// What a room must not know, neither itself (imports) nor through others (reaches).
func TestRoomsKeepToThemselves(t *testing.T) {
	all := rooms(t)
	for _, c := range []struct {
		room             string
		imports, reaches []string
	}{
		{"engine", []string{"github.com/jackc/pgx/v5", module + "/txn"}, []string{"github.com/confluentinc", "github.com/twmb/franz-go", module + "/clicks"}},
		{"txn", []string{module + "/clicks"}, []string{"github.com/confluentinc", module + "/clicks"}},
		{"clicks", nil, []string{module + "/txn", module + "/ledger/", module + "/internal/admin"}},
		{"outbox", nil, []string{module + "/clicks", module + "/engine", module + "/txn"}},
		{"ledger", nil, []string{module + "/clicks", module + "/engine", module + "/txn"}},
		{"schema", nil, []string{module + "/clicks", module + "/engine", module + "/txn"}},
		{"audit", nil, []string{module + "/txn", module + "/engine", module + "/ledger", module + "/internal/admin", module + "/clicks", "github.com/confluentinc"}},
	} {
		r := all[c.room]
		require.NotNil(t, r, c.room)
		for _, no := range c.imports {
			for _, i := range r.Imports {
				require.False(t, below(i, no), "%s imports %s", c.room, i)
			}
		}
		for _, no := range c.reaches {
			for _, d := range r.Deps {
				require.False(t, below(d, no), "%s reaches %s", c.room, d)
			}
		}
	}
}

// Examples show what an application outside of this module can do: they import nothing internal, and nothing of the clicks.
func TestExamplesUseWhatOthersCan(t *testing.T) {
	found := 0
	for name, r := range rooms(t) {
		if !strings.HasPrefix(name, "examples/") {
			continue
		}
		found++
		for _, i := range r.Imports {
			require.False(t, below(i, module+"/internal"), "%s imports %s", name, i)
		}
		require.NotContains(t, r.Deps, module+"/clicks", name)
	}
	require.Positive(t, found)
}

func TestNoRoomForOddsAndEnds(t *testing.T) {
	for name := range rooms(t) {
		for _, part := range strings.Split(name, "/") {
			require.NotContains(t, []string{"util", "utils", "common", "helper", "helpers", "misc", "shared", "base", "lib"}, part, "package %s", name)
		}
	}
}

// Each package says what it owns, what it promises and what it never does.
func TestPackagesIntroduceThemselves(t *testing.T) {
	for name, r := range rooms(t) {
		files := r.GoFiles
		if len(files) == 0 {
			files = append(slices.Clone(r.TestGoFiles), r.XTestGoFiles...)
		}
		var comment string
		for _, f := range files {
			parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(r.Dir, f), nil, parser.PackageClauseOnly|parser.ParseComments)
			require.NoError(t, err)
			comment += docOf(parsed)
		}
		require.NotEmpty(t, comment, "package %s has no comment", name)
		if len(r.GoFiles) == 0 {
			continue // tests need no more than to say what they are for
		}
		for _, word := range []string{"owns", "promises", "never"} {
			says := strings.Contains(strings.Join(strings.Fields(strings.ToLower(comment)), " "), word)
			require.True(t, says, "the comment of package %s does not say %q", name, word)
		}
	}
}

func docOf(f *ast.File) string {
	if f.Doc == nil {
		return ""
	}
	return f.Doc.Text()
}

// goFiles are this tree's, whatever their build tags.
func goFiles(t *testing.T) []string {
	t.Helper()
	var out []string
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(path, ".go") {
			out = append(out, path)
		}
		return nil
	}))
	return out
}

const longestFile = 400 // lines

func TestFilesFitTheHead(t *testing.T) {
	for _, path := range goFiles(t) {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.LessOrEqual(t, strings.Count(string(b), "\n"), longestFile, "%s: lines", path)
	}
}

var skips = regexp.MustCompile(`\b(t|b|tb)\.Skip(f|Now)?\(`)

// A test that is left out proves nothing and looks as if it did.
func TestNoTestIsSkipped(t *testing.T) {
	for _, path := range goFiles(t) {
		if !strings.HasSuffix(path, "_test.go") {
			continue
		}
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		require.False(t, skips.Match(b), "%s skips a test", path)
	}
}
