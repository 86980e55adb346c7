package child

import (
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Loopback is the address of a port on this machine.
func Loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// reserved are the ports this process has chosen. A JVM takes seconds until it listens, and until then nobody else must choose its port.
// Other processes see it by a lock on a byte of a file: it is the kernel's, and goes with the process, however it ends.
var reserved struct {
	mu    sync.Mutex
	file  *os.File // open as long as the process: closing it would end all locks
	tried bool
	ports map[int]bool
}

// FreePort is want if nobody listens there and no other process has reserved it, else another one. It is reserved until ReleasePort. It looks
// below the range from which the kernel takes the ports of outgoing connections (Linux: 32768): a port from that range may be somebody's
// when the stack comes back for it.
func FreePort(want int) (int, error) {
	reserved.mu.Lock()
	defer reserved.mu.Unlock()
	for try := range 200 {
		port := 15_000 + mathrand.IntN(17_000)
		if try == 0 && want != 0 {
			port = want
		} else if reserved.ports[port] {
			continue
		}
		if reserve(port) {
			return port, nil
		}
	}
	l, err := net.Listen("tcp", Loopback(0))
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

// Listen is net.Listen on a port from FreePort. FreePort has listened there itself to see that it is free, and a process that was being started
// just then holds a copy of that socket until its exec, a moment in which the port looks taken.
func Listen(network, address string) (net.Listener, error) {
	for end := time.Now().Add(listenWithin); ; time.Sleep(5 * time.Millisecond) {
		l, err := net.Listen(network, address)
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(end) {
			return l, err
		}
	}
}

const listenWithin = 2 * time.Second

// ReleasePort gives a port back. One that was not reserved is none's business.
func ReleasePort(port int) {
	reserved.mu.Lock()
	defer reserved.mu.Unlock()
	if reserved.ports[port] {
		lock(port, syscall.F_UNLCK)
		delete(reserved.ports, port)
	}
}

func reserve(port int) bool {
	if !lock(port, syscall.F_WRLCK) {
		return false
	}
	l, err := net.Listen("tcp", Loopback(port))
	if err != nil || l.Close() != nil {
		if !reserved.ports[port] {
			lock(port, syscall.F_UNLCK)
		}
		return false
	}
	if reserved.ports == nil {
		reserved.ports = map[int]bool{}
	}
	reserved.ports[port] = true
	return true
}

// lock says whether no other process has the port. Where there can be no file, nobody has: that somebody listens is seen in any case.
func lock(port int, kind int16) bool {
	if !reserved.tried {
		reserved.tried = true
		reserved.file = lockFile()
	}
	if reserved.file == nil {
		return true
	}
	err := syscall.FcntlFlock(reserved.file.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: kind, Start: int64(port), Len: 1})
	return err == nil || err != syscall.EAGAIN && err != syscall.EACCES
}

// lockFile is beside what this user's stacks have fetched: the temporary folder is to be as it was when a stack has ended. Other users'
// stacks are seen once they listen.
func lockFile() *os.File {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil
	}
	dir := filepath.Join(cache, "exactly")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil
	}
	f, err := os.OpenFile(filepath.Join(dir, "ports.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil
	}
	return f
}
