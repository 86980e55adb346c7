package house

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/doctor"
	"github.com/exactly-pipeline/exactly/schema"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, path))
	require.NoError(t, err)
	return string(b)
}

var documents = []string{"README.md", "CHANGELOG.md", "doc/protocol.md", "doc/operations.md", "doc/failures.md", "doc/chaos.md", "doc/security.md", "doc/applications.md", "doc/console.md", "doc/metrics.md"}

// What a document names exists: `file.go: Symbol`, `folder: TestName`, links, settings.
func TestDocumentsNameWhatExists(t *testing.T) {
	var code strings.Builder
	for _, f := range goFiles(t) {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		code.Write(b)
	}
	settings := map[string]bool{}
	for _, n := range config.Names() {
		settings[config.EnvName(n)] = true
	}
	for _, doc := range documents {
		text := read(t, doc)
		for _, m := range regexp.MustCompile("`([a-z_./]+\\.go): ([A-Za-z0-9_., ]+)`").FindAllStringSubmatch(text, -1) {
			file := read(t, m[1])
			for _, symbol := range strings.Split(m[2], ", ") {
				symbol = symbol[strings.LastIndexByte(symbol, '.')+1:]
				require.True(t, regexp.MustCompile(`\b`+symbol+`\b`).MatchString(file), "%s: %s has no %s", doc, m[1], symbol)
			}
		}
		for _, m := range regexp.MustCompile("`([a-z/]+): (Test[A-Za-z0-9_/, ]+)`").FindAllStringSubmatch(text, -1) {
			for _, name := range strings.Split(m[2], ", ") {
				name, _, _ = strings.Cut(name, "/")
				found := false
				files, _ := filepath.Glob(filepath.Join(root, m[1], "*_test.go"))
				for _, f := range files {
					b, err := os.ReadFile(f)
					require.NoError(t, err)
					found = found || strings.Contains(string(b), "func "+name+"(t *testing.T)")
				}
				require.True(t, found, "%s: %s has no %s", doc, m[1], name)
			}
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`).FindAllStringSubmatch(text, -1) {
			if !strings.Contains(m[1], "://") {
				require.FileExists(t, filepath.Join(root, filepath.Dir(doc), m[1]), "%s links to it", doc)
			}
		}
		for _, name := range regexp.MustCompile(`EXACTLY_[A-Z_]+[A-Z]`).FindAllString(text, -1) {
			require.True(t, settings[name] || strings.HasPrefix(name, "EXACTLY_FAILPOINT"), "%s: %s is no setting", doc, name)
		}
		for _, name := range regexp.MustCompile("`make ([a-z]+)`").FindAllStringSubmatch(text, -1) {
			require.Regexp(t, `(?m)^`+name[1]+`:`, read(t, "Makefile"), "%s: make %s", doc, name[1])
		}
	}
}

// What an error tells people to look up is there to be read.
func TestErrorsPointToHeadings(t *testing.T) {
	headings := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(read(t, "doc/failures.md"), -1) {
		headings[m[1]] = true
	}
	pointers := 0
	for _, path := range goFiles(t) {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, m := range regexp.MustCompile(`doc/failures\.md, \\"([^"\\]+)\\"`).FindAllStringSubmatch(string(b), -1) {
			require.True(t, headings[m[1]], "%s points to a heading %q that doc/failures.md does not have", path, m[1])
			pointers++
		}
	}
	require.Positive(t, pointers, "the pattern no longer finds them")
}

// What the documents say of metrics is said of metrics that exist: those of doc/metrics.md, which the program itself is held to (internal/telemetry: TestReference).
func TestMetricsExist(t *testing.T) {
	exists := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (counter|gauge|histogram) \\|").FindAllStringSubmatch(read(t, "doc/metrics.md"), -1) {
		exists[m[1]] = true
	}
	require.Greater(t, len(exists), 40)
	named := 0
	for _, doc := range documents {
		for _, m := range regexp.MustCompile("`(exactly_[a-z_]+_(?:total|seconds|records|bytes|partitions|offset|state|findings|waiting|epoch)|kafka_consumer_lag)`").FindAllStringSubmatch(read(t, doc), -1) {
			require.True(t, exists[m[1]], "%s names the metric %s, which does not exist", doc, m[1])
			named++
		}
	}
	require.Greater(t, named, 40)
}

// doc/operations.md has a line for each of doctor's rules, with its severity, and none for a rule that does not exist.
func TestDoctorsRulesAreExplained(t *testing.T) {
	said := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| (`[a-z-]+`(?:, `[a-z-]+`)*) \\| (error|warning|development) \\|").FindAllStringSubmatch(read(t, "doc/operations.md"), -1) {
		for _, name := range strings.Split(m[1], ", ") {
			said[strings.Trim(name, "`")] = m[2]
		}
	}
	rules := map[string]string{}
	for _, r := range doctor.Rules() {
		rules[r.Name] = string(r.Severity)
	}
	require.Equal(t, rules, said)
}

// doc/operations.md has the rules that clicks are held to, in their order.
func TestValidationRulesAreExplained(t *testing.T) {
	_, section, found := strings.Cut(read(t, "doc/operations.md"), "\n## Validation\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	var said, rules [][2]string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\| (.*) \\|$").FindAllStringSubmatch(section, -1) {
		said = append(said, [2]string{m[1], m[2]})
	}
	for _, r := range schema.Rules() {
		rules = append(rules, [2]string{r.Name, r.Says})
	}
	require.Equal(t, rules, said)
}

// What the documents quote of the program's own words, in a block that begins with ```log, it does say.
func TestQuotedLogsAreSaid(t *testing.T) {
	var code strings.Builder
	for _, path := range goFiles(t) {
		if !strings.HasSuffix(path, "_test.go") {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			code.Write(b)
		}
	}
	// Texts are written over several lines of code, with values in them: the pieces between the values are looked for.
	said := regexp.MustCompile(`"\s*\+\s*"`).ReplaceAllString(code.String(), "")
	said = strings.ReplaceAll(said, `\"`, `"`)
	quoted := 0
	for _, doc := range documents {
		for _, block := range regexp.MustCompile("(?s)```log\n(.*?)```").FindAllStringSubmatch(read(t, doc), -1) {
			for _, line := range strings.Split(strings.TrimSpace(block[1]), "\n") {
				for _, piece := range regexp.MustCompile(`\{[^}]*\}|…`).Split(line, -1) {
					piece = strings.Trim(piece, " ")
					if len(piece) > 3 {
						require.True(t, strings.Contains(said, piece), "%s quotes %q: nothing says %q", doc, line, piece)
						quoted++
					}
				}
			}
		}
	}
	require.Positive(t, quoted)
}
