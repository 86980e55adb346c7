package clicks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/schema"
)

func logLine(path string) string {
	return fmt.Sprintf(`8.8.8.8 - - [31/Jan/2026:23:59:59 +0000] "GET %s HTTP/1.1" 200 1 "-" "x"`, path)
}

// readAll is every click's url, and "n: reason" for each unreadable line.
func readAll(t *testing.T, in io.Reader) (urls, bad []string) {
	t.Helper()
	s, err := OpenLines(FromConfig{Path: "-", Stdin: in, Unreadable: func(n int64, reason error, text string) {
		require.LessOrEqual(t, len(text), 80)
		bad = append(bad, fmt.Sprintf("%d: %v", n, reason))
	}})
	require.NoError(t, err)
	defer s.Close()
	for {
		var c schema.Click
		d, err := s.Next(t.Context(), &c)
		if errors.Is(err, io.EOF) {
			require.EqualValues(t, len(bad), s.Unreadable())
			return urls, bad
		}
		require.NoError(t, err)
		require.Equal(t, None, d)
		urls = append(urls, strings.TrimPrefix(c.URL, "http://localhost"))
	}
}

func TestLinesOfEveryKind(t *testing.T) {
	long := logLine("/" + strings.Repeat("a", 200_000))
	fits := logLine("/")
	fits += strings.Repeat(" ", maxLine-len(fits))
	js := `{"timestamp":1,"url":"/json","ip":"8.8.8.8"}`
	for name, tc := range map[string]struct {
		in        string
		urls, bad []string
	}{
		"empty":                      {in: ""},
		"empty lines":                {in: "\n\r\n  \n"},
		"without a last line end":    {in: logLine("/1") + "\n" + logLine("/2"), urls: []string{"/1", "/2"}},
		"CRLF":                       {in: logLine("/1") + "\r\n\r\n" + logLine("/2") + "\r\n", urls: []string{"/1", "/2"}},
		"a log with JSON in it":      {in: logLine("/1") + "\n" + js + "\n", urls: []string{"/1"}, bad: []string{"2: the first field is not an address"}},
		"JSON with a log line in it": {in: js + "\n" + logLine("/1") + "\n" + js, urls: []string{"/json", "/json"}, bad: []string{"2: not a JSON object"}},
		"garbage first":              {in: "x\n{\n" + js, urls: []string{"/json"}, bad: []string{"1: " + errUndecided.Error(), "2: " + errUndecided.Error()}},
		"a long line":                {in: logLine("/1") + "\n" + long + "\n" + logLine("/2"), urls: []string{"/1", "/2"}, bad: []string{"2: " + errLineTooLong.Error()}},
		"a long last line":           {in: logLine("/1") + "\n" + long, urls: []string{"/1"}, bad: []string{"2: " + errLineTooLong.Error()}},
		"a line that just fits":      {in: fits + "\r\n" + fits + " \n" + fits, urls: []string{"/", "/"}, bad: []string{"2: " + errLineTooLong.Error()}},
	} {
		t.Run(name, func(t *testing.T) {
			urls, bad := readAll(t, strings.NewReader(tc.in))
			require.Equal(t, tc.urls, urls)
			require.Equal(t, tc.bad, bad)
			urls, bad = readAll(t, iotest.HalfReader(strings.NewReader(tc.in)))
			require.Equal(t, tc.urls, urls)
			require.Equal(t, tc.bad, bad)
		})
	}
}

func TestLinesReadErrorsAreErrors(t *testing.T) {
	s, err := OpenLines(FromConfig{Path: "-", Stdin: io.MultiReader(strings.NewReader(logLine("/1")+"\n"), iotest.ErrReader(io.ErrUnexpectedEOF))})
	require.NoError(t, err)
	defer s.Close()
	var c schema.Click
	_, err = s.Next(t.Context(), &c)
	require.NoError(t, err)
	_, err = s.Next(t.Context(), &c)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

func TestLinesWaitForStandardInputEndsWithContext(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	s, err := OpenLines(FromConfig{Path: "-", Stdin: r})
	require.NoError(t, err)
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var c schema.Click
	_, err = s.Next(ctx, &c)
	require.ErrorIs(t, err, context.Canceled)
}

func TestOpenLinesRefuses(t *testing.T) {
	for _, cfg := range []FromConfig{
		{Path: "-", Follow: true}, {Path: t.TempDir()}, {Path: filepath.Join(t.TempDir(), "none")}, {Path: "-", BaseURL: "ftp://x"}, {Path: os.DevNull, Follow: true},
	} {
		_, err := OpenLines(cfg)
		require.Error(t, err, cfg)
	}
}

// followBundle drives a follower by hand: it looks only when a tick is sent, so nothing here waits for time to pass.
type followBundle struct {
	t    *testing.T
	path string
	tick chan time.Time
	got  chan string
	bad  chan string
}

func setupFollow(t *testing.T) *followBundle {
	b := &followBundle{t: t, path: filepath.Join(t.TempDir(), "access.log"), tick: make(chan time.Time), got: make(chan string, 100), bad: make(chan string, 100)}
	b.write(logLine("/0") + "\n")
	s, err := OpenLines(FromConfig{Path: b.path, Follow: true, Tick: b.tick, BaseURL: "https://www.example.org/", Unreadable: func(n int64, reason error, _ string) {
		b.bad <- fmt.Sprintf("%d: %v", n, reason)
	}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		for {
			var c schema.Click
			if _, err := s.Next(ctx, &c); err != nil {
				ended <- err
				return
			}
			b.got <- strings.TrimPrefix(c.URL, "https://www.example.org")
		}
	}()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
		require.NoError(t, s.Close())
	})
	require.Equal(t, "/0", <-b.got)
	return b
}

func (b *followBundle) write(text string) {
	f, err := os.OpenFile(b.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	require.NoError(b.t, err)
	_, err = f.WriteString(text)
	require.NoError(b.t, err)
	require.NoError(b.t, f.Close())
}

// look has the follower look n times: a tick is taken only when it is at the end of what there is.
func (b *followBundle) look(n int) {
	for range n {
		b.tick <- time.Time{}
	}
}

func (b *followBundle) expect(urls ...string) {
	b.t.Helper()
	for _, u := range urls {
		require.Equal(b.t, u, <-b.got)
	}
	require.Empty(b.t, b.got)
}

func TestFollowGrowth(t *testing.T) {
	b := setupFollow(t)
	b.write(logLine("/1")) // without its end: not a line yet
	b.look(3)
	b.expect()
	b.write("\n" + logLine("/2") + "\n")
	b.look(1)
	b.expect("/1", "/2")
}

func TestFollowRotation(t *testing.T) {
	b := setupFollow(t)
	old, err := os.OpenFile(b.path, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	defer old.Close()
	require.NoError(t, os.Rename(b.path, b.path+".1"))
	b.look(2) // the path is nothing for a while
	// Both at once: the last look may only be taken now, and with one more in between the old file would have been silent twice.
	b.write(`{"timestamp":1,"url":"/json","ip":"8.8.8.8"}` + "\n")
	_, err = old.WriteString(logLine("/late") + "\n" + logLine("/last")) // the server has not reopened its log yet
	require.NoError(t, err)
	b.look(3) // reads the late lines; silent once; silent twice
	b.expect("/late", "/last", "/json")
	require.Empty(t, b.bad, "the new file's format is its own")
}

func TestFollowTruncation(t *testing.T) {
	b := setupFollow(t)
	require.NoError(t, os.Truncate(b.path, 0))
	b.look(2) // the second is taken only when the first has seen it; a file that grew back in between cannot be told from one that grew
	b.write(logLine("/1") + "\n" + "x\n")
	b.look(1)
	b.expect("/1")
	require.Equal(t, "2: the first field is not an address", <-b.bad)
}
