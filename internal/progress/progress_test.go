package progress

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// at is a line whose clock the test moves.
func at(moves bool) (l *Line, out *bytes.Buffer, pass func(time.Duration)) {
	out = &bytes.Buffer{}
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	l = New(out)
	l.now, l.said = func() time.Time { return now }, now
	if l.moves = moves; moves {
		l.every = movingEvery
	}
	return l, out, func(d time.Duration) { now = now.Add(d) }
}

// A log gets whole lines, seldom; what is over before the first says nothing.
func TestPlain(t *testing.T) {
	l, out, pass := at(false)
	l.At("reading", 0, 100)
	for range 9 {
		pass(time.Second)
		l.At("reading", 5, 100)
	}
	require.Empty(t, out.String())
	pass(time.Second)
	l.At("reading", 25, 100)
	pass(11 * time.Second)
	l.At("counting", 7, 0)
	l.Clear()
	require.Equal(t, " 25 % reading, about 30s left\ncounting: 7\n", out.String())
}

// A terminal gets one line that moves and is taken away at the end.
func TestMoving(t *testing.T) {
	l, out, pass := at(true)
	l.At("reading", 0, 100)
	pass(time.Second)
	l.At("reading", 50, 100)
	l.At("reading", 51, 100) // too soon
	pass(time.Second)
	l.Share("auditing", 0.5, 3*time.Second)
	l.Clear()
	l.Clear()
	require.Equal(t, "\r 50 % reading, about 1s left\x1b[K\r 50 % auditing, about 3s left\x1b[K\r\x1b[K", out.String())
}

// What is left is told of a stage's own pace, and not from next to nothing.
func TestLeft(t *testing.T) {
	l, out, pass := at(true)
	l.At("one", 0, 1000)
	pass(time.Minute)
	l.At("one", 5, 1000)
	require.NotContains(t, out.String(), "left")
	l.At("two", 0, 10)
	pass(10 * time.Second)
	l.At("two", 5, 10)
	require.True(t, strings.HasSuffix(out.String(), " 50 % two, about 10s left\x1b[K"), out.String())
}

func TestNobodyWatches(t *testing.T) {
	Of(t.Context()).At("reading", 1, 2)
	Of(t.Context()).Share("reading", 0.1, 0)
	Of(t.Context()).Clear()
	l, _, _ := at(false)
	require.Same(t, l, Of(Watched(context.Background(), l)))
}

func TestTerminal(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer null.Close()
	require.False(t, Terminal(null), "a character device, but nobody looks at it")
	require.False(t, Terminal(&bytes.Buffer{}))
}
