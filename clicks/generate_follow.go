package clicks

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"
)

// change is what has become of a followed file.
type change uint8

const (
	same      change = iota // nothing, or there is more to read
	rotated                 // the path is another file now, and this one has been read to its end
	truncated               // the file is shorter than what was read of it
)

// follower looks at intervals whether a path is still the file that is being read. It asks the file system and needs no
// notifications, which do not exist on network and container mounts.
//
// A file that is truncated and has grown past the old length again before the next look goes unnoticed: nothing in the file
// system tells. Rotation by renaming has no such gap.
type follower struct {
	path   string
	tick   <-chan time.Time
	stop   func()
	quiet  bool  // the path was another file at the last look already …
	offset int64 // … and this much had been read of the old one
}

func newFollower(path string, tick <-chan time.Time) *follower {
	f := &follower{path: path, tick: tick, stop: func() {}}
	if tick == nil {
		t := time.NewTicker(250 * time.Millisecond)
		f.tick, f.stop = t.C, t.Stop
	}
	return f
}

func (f *follower) close() { f.stop() }

// wait waits for the next look and says what it found; offset is how far current has been read.
//
// A server goes on writing to a renamed log until it is told to reopen it, so the old file is left only when it has been silent
// from one look to the next.
func (f *follower) wait(ctx context.Context, current *os.File, offset int64) (change, error) {
	select {
	case <-ctx.Done():
		return same, ctx.Err()
	case <-f.tick:
	}
	info, err := current.Stat()
	if err != nil {
		return same, err
	}
	if info.Size() < offset {
		f.quiet = false
		return truncated, nil
	}
	now, err := os.Stat(f.path)
	switch {
	case errors.Is(err, fs.ErrNotExist): // renamed, and the new one is not there yet
		return same, nil
	case err != nil:
		return same, err
	case os.SameFile(info, now):
		f.quiet = false
		return same, nil
	}
	if f.quiet && f.offset == offset && info.Size() == offset {
		f.quiet = false
		return rotated, nil
	}
	f.quiet, f.offset = true, offset
	return same, nil
}
