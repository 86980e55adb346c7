package demo

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNumber(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 7: "7", 999: "999", 1000: "1,000", 50337: "50,337", 1234567: "1,234,567", -100: "-100", -1000: "-1,000"} {
		require.Equal(t, want, number(n))
	}
}

func TestParagraph(t *testing.T) {
	var b bytes.Buffer
	s := newScreen(&b)
	s.item("   0.0 s  ", "%s", strings.Repeat("word ", 40))
	lines := strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
	require.Len(t, lines, 3)
	require.True(t, strings.HasPrefix(lines[0], indent+"   0.0 s  word word"))
	for _, l := range lines {
		require.LessOrEqual(t, len(l), readable)
	}
	for _, l := range lines[1:] {
		require.True(t, strings.HasPrefix(l, indent+strings.Repeat(" ", 10)+"word"), "%q", l)
	}
	require.Equal(t, 40, strings.Count(b.String(), "word"))
}

func TestCut(t *testing.T) {
	var b bytes.Buffer
	newScreen(&b).cut("%s", strings.Repeat("x", 200))
	require.Len(t, strings.TrimRight(b.String(), "\n"), readable)
}
