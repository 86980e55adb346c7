package teststack

import (
	"bytes"
	"sync"
)

// Log is what a process writes, to be read while it does.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// Bytes is all of it, as it is now.
func (l *Log) Bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.b.Bytes())
}

// String is the same as text.
func (l *Log) String() string { return string(l.Bytes()) }

// Tail is the last 12,000 bytes of it.
func (l *Log) Tail() string {
	b := l.Bytes()
	return string(b[max(0, len(b)-12_000):])
}
