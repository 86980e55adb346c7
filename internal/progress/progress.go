// Package progress owns the line that tells how far a long command is, and how long it will still take; and whether a stream is a terminal.
//
// It promises that a terminal sees one line that moves, at most twice a second, and everything else a whole line every ten seconds, so that what is
// quick says nothing in a log. It never writes an escape sequence to what is no terminal, and never holds up the work that it tells of.
package progress

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/mattn/go-isatty"
)

// How often a line is written, at most.
const (
	movingEvery = 500 * time.Millisecond
	plainEvery  = 10 * time.Second
)

// leastShare of the work must be done before what is left of it is worth saying.
const leastShare = 0.01

// Terminal says whether a person looks at w on a screen that can move a line: a terminal, and not a dumb one.
func Terminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd()) && os.Getenv("TERM") != "dumb"
}

// Line is the progress of one command. A nil Line says nothing.
type Line struct {
	mu     sync.Mutex
	out    io.Writer
	moves  bool
	every  time.Duration
	now    func() time.Time
	stage  string
	began  time.Time // the stage
	said   time.Time
	behind bool // the cursor stands behind a line that moves
}

// New makes the line of a command that starts now.
func New(out io.Writer) *Line {
	l := &Line{out: out, moves: Terminal(out), every: plainEvery, now: time.Now}
	if l.moves {
		l.every = movingEvery
	}
	l.said = l.now()
	return l
}

// At says that done of total are done of a stage; 0: nobody knows how much there is. A stage begins with its first call.
func (l *Line) At(stage string, done, total int64) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if stage != l.stage {
		l.stage, l.began = stage, now
	}
	left := time.Duration(0)
	if total > 0 && float64(done) >= leastShare*float64(total) && done > 0 {
		left = time.Duration(float64(now.Sub(l.began)) * float64(total-done) / float64(done))
	}
	l.say(now, stage, done, total, left)
}

// Share is At for whoever knows the share and the time that is left better.
func (l *Line) Share(stage string, share float64, left time.Duration) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.say(l.now(), stage, int64(1000*share), 1000, left)
}

func (l *Line) say(now time.Time, stage string, done, total int64, left time.Duration) {
	if now.Sub(l.said) < l.every {
		return
	}
	l.said = now
	text := fmt.Sprintf("%s: %d", stage, done)
	if total > 0 {
		text = fmt.Sprintf("%3.0f %% %s", 100*min(float64(done)/float64(total), 1), stage)
	}
	if left >= time.Second {
		text += fmt.Sprintf(", about %s left", left.Round(time.Second))
	}
	if l.moves {
		l.behind = true
		_, _ = fmt.Fprint(l.out, "\r"+text+"\x1b[K") // nobody reads on: the work goes on
		return
	}
	_, _ = fmt.Fprintln(l.out, text)
}

// Clear takes the moving line away, so that what comes next stands alone.
func (l *Line) Clear() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.behind {
		l.behind = false
		_, _ = fmt.Fprint(l.out, "\r\x1b[K")
	}
}

type key struct{}

// Watched is a context whose work is told of on l: what is deep down in it does not know of commands.
func Watched(ctx context.Context, l *Line) context.Context { return context.WithValue(ctx, key{}, l) }

// Of is the line that a context's work is told of on; nil, which may be called, where nobody watches.
func Of(ctx context.Context) *Line {
	l, _ := ctx.Value(key{}).(*Line)
	return l
}
