package conformance

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var rewrite = flag.Bool("rewrite", false, "write the differences into doc/protocol.md")

const (
	document = "../../doc/protocol.md"
	begin    = "| rule: where in it | on | does instead | what it means |\n|---|---|---|---|\n"
)

// doc/protocol.md tells of each difference, and of none that is not asserted.
func TestDocument(t *testing.T) {
	b, err := os.ReadFile(document)
	require.NoError(t, err)
	text := string(b)
	at := strings.Index(text, begin)
	require.Positive(t, at, "no table of differences")
	at += len(begin)
	end := at
	for strings.HasPrefix(text[end:], "|") {
		end += strings.IndexByte(text[end:], '\n') + 1
	}
	var want strings.Builder
	for i := range differs {
		want.WriteString(row(&differs[i]))
	}
	if *rewrite {
		require.NoError(t, os.WriteFile(document, []byte(text[:at]+want.String()+text[end:]), 0o644))
		return
	}
	require.Equal(t, want.String(), text[at:end], "go test ./tests/conformance -run TestDocument -rewrite")
}

func row(d *difference) string {
	where := strings.Join(d.places, ", ")
	switch {
	case slices.Equal(d.places, withConfluent):
		where = "all, with librdkafka"
	case slices.Equal(d.places, onApicurio):
		where = "Apicurio"
	}
	return fmt.Sprintf("| %s: %s | %s | `%s` | %s |\n", d.rule, d.point, where, d.instead, d.why)
}
