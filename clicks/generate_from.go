package clicks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/exactly-pipeline/exactly/schema"
)

// FromConfig says where real clicks are read from.
type FromConfig struct {
	Path    string           // a web server's access log or NDJSON; "-": Stdin
	Stdin   io.Reader        // nil: os.Stdin
	BaseURL string           // scheme and host before a log's request targets; empty: http://localhost
	Follow  bool             // at the end wait for more, through rotation and truncation, instead of returning io.EOF
	Tick    <-chan time.Time // when Follow looks again; nil: four times a second
	// Unreadable is told each line that cannot be read: its number in its file, what is wrong with it and its first bytes, which may
	// hold an address. May be nil.
	Unreadable func(number int64, reason error, text string)
}

// Lines is a Source that reads a web server's access log (Common or Combined Log Format, X-Forwarded-For understood) or NDJSON.
// Which of the two is decided for each file by its first line that can be read. What a line does not say is derived from what it
// does, always the same from the same lines:
//
//	user_id     a hash of address and user agent, 1..2^31
//	session_id  a UUID (version 5) of address, user agent and the time of the session's first request; half an hour of silence ends a session
//	url         BaseURL and the request target
//	timestamp   the line's
//
// Not safe for use by several goroutines.
type Lines struct {
	cfg        FromConfig
	file       *os.File // nil: standard input
	lines      *lineReader
	pump       *pump // nil: lines reads the file directly
	follow     *follower
	format     format
	visitors   visitors
	number     int64  // of the line being read, in its file
	pending    change // what to do once the old file's last line has been given
	unreadable int64
}

type format uint8

const (
	undecided format = iota
	accessLog
	ndjson
)

var errUndecided = errors.New("neither a line of an access log nor a JSON object of a click")

// OpenLines opens the file. What is wrong with cfg itself is an error too; Close releases it.
func OpenLines(cfg FromConfig) (*Lines, error) {
	if cfg.BaseURL == "" {
		cfg.BaseURL = "http://localhost"
	}
	if !isHTTP(cfg.BaseURL) {
		return nil, fmt.Errorf("base URL %q must begin with http:// or https:// and name a host", cfg.BaseURL)
	}
	cfg.BaseURL = strings.TrimRight(percentEncode(cfg.BaseURL), "/")
	s := &Lines{cfg: cfg}
	if cfg.Path == "-" {
		if cfg.Follow {
			return nil, errors.New("standard input cannot be followed: it ends when its writer does")
		}
		in := cfg.Stdin
		if in == nil {
			in = os.Stdin
		}
		s.pump = startPump(in)
		s.lines = newLineReader(s.pump)
		return s, nil
	}
	f, err := os.Open(cfg.Path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = fmt.Errorf("%s is a directory", cfg.Path)
	case cfg.Follow && !info.Mode().IsRegular():
		err = fmt.Errorf("%s is not a regular file: only those can be followed", cfg.Path)
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	s.use(f, info.Mode().IsRegular())
	if cfg.Follow {
		s.follow = newFollower(cfg.Path, cfg.Tick)
	}
	return s, nil
}

// use begins to read f.
func (s *Lines) use(f *os.File, regular bool) {
	s.file, s.format = f, undecided
	if regular {
		s.lines = newLineReader(direct{f})
		return
	}
	s.pump = startPump(f) // a named pipe, or a shell's <(…)
	s.lines = newLineReader(s.pump)
}

// Close releases the file.
func (s *Lines) Close() error {
	if s.follow != nil {
		s.follow.close()
	}
	if s.pump != nil {
		close(s.pump.stop)
	}
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// Unreadable is how many lines could not be read so far. Empty lines are not counted.
func (s *Lines) Unreadable() int64 { return s.unreadable }

// Next reads up to the next line that is a click. A line that is none is counted and told to Unreadable, never an error.
func (s *Lines) Next(ctx context.Context, c *schema.Click) (Defect, error) {
	for {
		if err := s.turn(); err != nil {
			return None, fmt.Errorf("read %s: %w", s.cfg.Path, err)
		}
		line, err := s.lines.next(ctx)
		s.number = s.lines.number
		if errors.Is(err, io.EOF) {
			var done bool
			if line, done, err = s.atEnd(ctx); done {
				return None, io.EOF
			}
			if err == nil && line == nil {
				continue
			}
		}
		if err != nil && !errors.Is(err, errLineTooLong) {
			return None, fmt.Errorf("read %s: %w", s.cfg.Path, err)
		}
		if err == nil {
			if len(bytes.TrimSpace(line)) == 0 {
				continue
			}
			if err = s.parse(line, c); err == nil {
				return None, nil
			}
		}
		s.count(err, line)
	}
}

// atEnd is what to do at the end of what there is: the last line if it has no end, then done, or, if following, another look.
func (s *Lines) atEnd(ctx context.Context) (last []byte, done bool, err error) {
	if s.follow != nil {
		s.pending, err = s.follow.wait(ctx, s.file, s.lines.offset)
		if err != nil || s.pending == same {
			return nil, false, err
		}
	}
	last, err = s.lines.last() // nobody will end it any more
	s.number = s.lines.number
	return last, s.follow == nil && last == nil && err == nil, err
}

// turn goes on to what a followed file has become. It comes after the old file's last line, which is in the old file's format.
func (s *Lines) turn() error {
	was := s.pending
	s.pending = same
	switch was {
	case truncated:
		if _, err := s.file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		s.use(s.file, true)
	case rotated:
		f, err := os.Open(s.cfg.Path)
		if errors.Is(err, os.ErrNotExist) {
			return nil // moved again at this very moment: a later look finds what comes after
		}
		if err != nil {
			return err
		}
		_ = s.file.Close() // read only: nothing to lose
		s.use(f, true)
	}
	return nil
}

// parse reads a line in the file's format, or in whichever fits as long as none did.
func (s *Lines) parse(line []byte, c *schema.Click) error {
	switch s.format {
	case accessLog:
		return s.parseAccess(line, c)
	case ndjson:
		return parseJSONLine(line, &s.visitors, c)
	}
	if s.parseAccess(line, c) == nil {
		s.format = accessLog
		return nil
	}
	err := parseJSONLine(line, &s.visitors, c)
	switch {
	case err == nil:
		s.format = ndjson
	case errors.Is(err, errNotObject):
		err = errUndecided
	}
	return err
}

func (s *Lines) parseAccess(line []byte, c *schema.Click) error {
	a, err := parseAccessLine(line)
	if err != nil {
		return err
	}
	if !isHTTP(a.target) {
		a.target = s.cfg.BaseURL + a.target
	}
	v := visitor{ip: a.client.String(), agent: a.agent}
	at := a.at.UnixMilli()
	*c = schema.Click{UserID: v.userID(), SessionID: s.visitors.sessionID(v, at), TimestampMs: at, URL: a.target, IP: v.ip}
	return nil
}

func (s *Lines) count(reason error, line []byte) {
	s.unreadable++
	if s.cfg.Unreadable != nil {
		s.cfg.Unreadable(s.number, reason, string(line[:min(len(line), 80)]))
	}
}
