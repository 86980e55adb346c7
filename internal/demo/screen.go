package demo

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	plainEvery = 2 * time.Second // how often progress is a line where no line can move
	readable   = 96              // columns; longer lines are hard to read
	indent     = "   "
)

// screen is what a person sees. On a terminal the progress line moves and there are colours; elsewhere there are plain lines only.
type screen struct {
	out    io.Writer
	live   bool // a line can be written over
	colour bool
	fd     int
	moving bool      // the cursor stands behind a progress line
	last   time.Time // of progress as a plain line
	said   string
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out}
	f, ok := out.(*os.File)
	if !ok {
		return s
	}
	s.fd = int(f.Fd())
	_, err := unix.IoctlGetWinsize(s.fd, unix.TIOCGWINSZ) // only a terminal has a size
	s.live = err == nil && os.Getenv("TERM") != "dumb"
	s.colour = s.live && os.Getenv("NO_COLOR") == "" // https://no-color.org
	return s
}

const (
	bold  = "1"
	dim   = "2"
	red   = "31;1"
	green = "32;1"
)

func (s *screen) in(style, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + style + "m" + text + "\x1b[0m"
}

// say writes a line as it is.
func (s *screen) say(format string, a ...any) {
	s.still()
	text := fmt.Sprintf(format, a...)
	if text != "" {
		text = indent + text
	}
	_, _ = fmt.Fprintln(s.out, text) // nobody reads on: the story goes on, its end is what counts
}

// cut writes as much of a line as fits.
func (s *screen) cut(format string, a ...any) {
	text := fmt.Sprintf(format, a...)
	if n := s.width() - len(indent); len(text) > n {
		text = text[:n-3] + "..."
	}
	s.say("%s", text)
}

// tell writes a paragraph in lines that fit.
func (s *screen) tell(format string, a ...any) { s.item("", format, a...) }

// item writes a paragraph with something in front of its first line.
func (s *screen) item(front, format string, a ...any) {
	width := min(s.width(), readable) - len(indent) - len(front)
	line := ""
	flush := func() {
		s.say("%s%s", front, line)
		front, line = strings.Repeat(" ", len(front)), ""
	}
	for _, word := range strings.Fields(fmt.Sprintf(format, a...)) {
		if line != "" && len(line)+1+len(word) > width {
			flush()
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	flush()
}

func (s *screen) title(name, what string) {
	_, _ = fmt.Fprintln(s.out, s.in(bold, name)+": "+what)
}

func (s *screen) act(n int, title string) {
	s.still()
	s.last = time.Now()
	_, _ = fmt.Fprintf(s.out, "\n%s\n", s.in(bold, fmt.Sprintf("%d  %s", n, title)))
}

// verdict is a paragraph in a colour.
func (s *screen) verdict(style, text string) {
	if s.colour {
		_, _ = fmt.Fprint(s.out, "\x1b["+style+"m")
		defer fmt.Fprint(s.out, "\x1b[0m") //nolint:errcheck // as every line
	}
	s.tell("%s", text)
}

// progress shows what is going on: in one line that moves, or every couple of seconds in a line of its own.
func (s *screen) progress(text string) {
	if s.live {
		text = indent + text
		text = text[:min(len(text), s.width()-1)] // what wraps cannot be written over
		_, _ = fmt.Fprint(s.out, "\r"+s.in(dim, text)+"\x1b[K")
		s.moving = true
		return
	}
	if time.Since(s.last) >= plainEvery && text != s.said {
		s.last, s.said = time.Now(), text
		_, _ = fmt.Fprintln(s.out, indent+text)
	}
}

// width is that of the terminal now, for people do change it.
func (s *screen) width() int {
	if ws, err := unix.IoctlGetWinsize(s.fd, unix.TIOCGWINSZ); s.live && err == nil && ws.Col > 20 {
		return int(ws.Col)
	}
	return readable
}

// still takes the moving line away.
func (s *screen) still() {
	if s.moving {
		_, _ = fmt.Fprint(s.out, "\r\x1b[K")
		s.moving = false
	}
}

// number is n as people write it: 50,000.
func number(n int64) string {
	t := strconv.FormatInt(n, 10)
	var b strings.Builder
	for i, c := range t {
		if i > 0 && (len(t)-i)%3 == 0 && t[i-1] != '-' {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	return b.String()
}

// list is partitions as people write them: 0, 2, 4.
func list(ps []int32) string {
	t := make([]string, len(ps))
	for i, p := range ps {
		t[i] = fmt.Sprint(p)
	}
	return strings.Join(t, ", ")
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
