package schema

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// addCorpus adds what fuzzing has found so far to f's seeds: testdata/corpus has a file for each target, a line for each seed, its arguments as Go's own
// corpus files have them, separated by tabs.
func addCorpus(f *testing.F) {
	f.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", "corpus", f.Name()+".txt"))
	require.NoError(f, err)
	for line := range strings.Lines(string(content)) {
		args, err := parseSeed(strings.TrimSuffix(line, "\n"))
		require.NoError(f, err, line)
		f.Add(args...)
	}
}

func parseSeed(line string) ([]any, error) {
	var args []any
	for arg := range strings.SplitSeq(line, "\t") {
		kind, value, _ := strings.Cut(strings.TrimSuffix(arg, ")"), "(")
		var v any
		var err error
		switch kind {
		case "[]byte":
			var s string
			s, err = strconv.Unquote(value)
			v = []byte(s)
		case "string":
			v, err = strconv.Unquote(value)
		case "int64":
			v, err = strconv.ParseInt(value, 10, 64)
		default:
			err = strconv.ErrSyntax
		}
		if err != nil {
			return nil, err
		}
		args = append(args, v)
	}
	return args, nil
}

func TestParseSeed(t *testing.T) {
	args, err := parseSeed("int64(-42)\tstring(\"a\\t)\\x00\")\t[]byte(\"\\xff(\")")
	require.NoError(t, err)
	require.Equal(t, []any{int64(-42), "a\t)\x00", []byte{0xff, '('}}, args)
	for _, wrong := range []string{"", "int(1)", "string(a)", "int64(x)"} {
		_, err := parseSeed(wrong)
		require.Error(t, err, wrong)
	}
}
