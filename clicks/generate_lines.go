package clicks

import (
	"bytes"
	"context"
	"errors"
	"io"
)

// maxLine bounds a line, in bytes: one that is longer is counted as unreadable and skipped, whatever its length.
const maxLine = 64 << 10

var errLineTooLong = errors.New("longer than 65,536 bytes")

// ctxReader is an io.Reader whose wait ends with ctx.
type ctxReader interface {
	read(ctx context.Context, p []byte) (int, error)
}

// direct reads a file that never makes the reader wait.
type direct struct{ io.Reader }

func (d direct) read(_ context.Context, p []byte) (int, error) { return d.Read(p) }

// pump reads what can make the reader wait for ever (a terminal, a pipe) in a goroutine of its own. The goroutine ends with the
// input: a read that waits cannot be called off, so it stays until then if the program ends first.
type pump struct {
	chunks chan []byte
	stop   chan struct{}
	rest   []byte
	err    error // valid once chunks is closed
}

func startPump(r io.Reader) *pump {
	p := &pump{chunks: make(chan []byte), stop: make(chan struct{})}
	go func() {
		defer close(p.chunks)
		for {
			b := make([]byte, maxLine)
			n, err := r.Read(b)
			if n > 0 {
				select {
				case p.chunks <- b[:n]:
				case <-p.stop:
					return
				}
			}
			if err != nil {
				p.err = err
				return
			}
		}
	}()
	return p
}

func (p *pump) read(ctx context.Context, to []byte) (int, error) {
	if len(p.rest) == 0 {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case b, ok := <-p.chunks:
			if !ok {
				return 0, p.err
			}
			p.rest = b
		}
	}
	n := copy(to, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// lineReader cuts what it reads into lines. Unlike bufio.Scanner it survives a line that is too long, and an end of file after which
// more comes.
type lineReader struct {
	from     ctxReader
	buf      []byte // unread bytes: the beginning of the next line
	space    []byte // what buf is part of
	searched int    // bytes of buf known to hold no line end
	skipping bool   // inside a line that is too long
	number   int64  // of the line returned last, from 1
	offset   int64  // bytes read
}

func newLineReader(from ctxReader) *lineReader {
	return &lineReader{from: from, space: make([]byte, 2*maxLine)}
}

// next returns the next line without its end, valid until the next call. It returns errLineTooLong once for each line that is too
// long, and what the reader returned when there is no whole line: after io.EOF it can be called again, and last has the rest.
func (l *lineReader) next(ctx context.Context) ([]byte, error) {
	for {
		if i := bytes.IndexByte(l.buf[l.searched:], '\n'); i >= 0 {
			line := l.buf[:l.searched+i]
			l.buf, l.searched = l.buf[l.searched+i+1:], 0
			return l.finish(line)
		}
		l.searched = len(l.buf)
		if len(l.buf) > maxLine+1 { // a carriage return may follow a line of maxLine bytes
			l.skipping, l.buf, l.searched = true, nil, 0
		}
		n := copy(l.space, l.buf)
		k, err := l.from.read(ctx, l.space[n:])
		l.buf = l.space[:n+k]
		l.offset += int64(k)
		if k == 0 && err != nil {
			return nil, err
		}
	}
}

// last returns what follows the last line end, nil if nothing does, and forgets it.
func (l *lineReader) last() ([]byte, error) {
	if len(l.buf) == 0 && !l.skipping {
		return nil, nil
	}
	line := l.buf
	l.buf, l.searched = nil, 0
	return l.finish(line)
}

func (l *lineReader) finish(line []byte) ([]byte, error) {
	l.number++
	line = bytes.TrimSuffix(line, []byte("\r"))
	if l.skipping || len(line) > maxLine {
		l.skipping = false
		return nil, errLineTooLong
	}
	return line, nil
}
