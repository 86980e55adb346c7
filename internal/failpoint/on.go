//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Enabled says whether this binary was built with failpoints.
const Enabled = true

type armed struct {
	action string
	left   int
}

var (
	mu     sync.Mutex
	points = parse(os.Getenv("EXACTLY_FAILPOINT"))
	dir    = os.Getenv("EXACTLY_FAILPOINT_DIR")
)

func parse(s string) map[string]*armed {
	m := map[string]*armed{}
	for _, f := range strings.Split(s, ",") {
		if f == "" {
			continue
		}
		name, action, ok := strings.Cut(f, "=")
		if !ok {
			panic("EXACTLY_FAILPOINT: " + f + ": must be NAME=ACTION[@N]")
		}
		n := 1
		if a, count, ok := strings.Cut(action, "@"); ok {
			v, err := strconv.Atoi(count)
			if err != nil || v < 1 {
				panic("EXACTLY_FAILPOINT: " + f + ": bad count")
			}
			action, n = a, v
		}
		known := false
		for _, k := range Names() {
			known = known || k == name
		}
		if !known {
			panic("EXACTLY_FAILPOINT: unknown point " + name)
		}
		action, key, keyed := strings.Cut(action, ":")
		if keyed != (name == HandleRecord) {
			panic("EXACTLY_FAILPOINT: " + f + ": a record's key belongs to " + HandleRecord + ", and to it alone")
		}
		if action == "panic" && !keyed {
			panic("EXACTLY_FAILPOINT: " + f + ": panics are of records")
		}
		m[at(name, key)] = &armed{action, n}
	}
	return m
}

// at is where an armed point is in the map: those that ask for a key are armed once for each.
func at(name, key string) string { return name + ":" + key }

func take(name, key string) string {
	mu.Lock()
	defer mu.Unlock()
	a := points[at(name, key)]
	if a == nil {
		return ""
	}
	if a.left--; a.left > 0 {
		return ""
	}
	if a.action != "panic" {
		delete(points, at(name, key))
	}
	return a.action
}

// Hit acts if the point is armed.
func Hit(name string) {
	if a := take(name, ""); a != "" {
		act(name, a)
	}
}

// HitKey acts if the point is armed for this key.
func HitKey(name string, key []byte) {
	if a := take(name, string(key)); a != "" {
		act(name, a)
	}
}

// Beside acts while the caller goes on into a blocking call: the request is then on its way, or about to be, or answered but unread.
func Beside(name string) {
	if a := take(name, ""); a != "" {
		go func() {
			time.Sleep(300 * time.Microsecond) // long enough for a request to leave, most times too short for its answer to be read
			act(name, a)
		}()
	}
}

func act(name, action string) {
	file := filepath.Join(dir, strings.ReplaceAll(name, "/", "-"))
	if err := os.WriteFile(file+".hit", []byte(time.Now().Format(time.RFC3339Nano)), 0o644); err != nil {
		panic(fmt.Sprintf("failpoint %s: %v", name, err))
	}
	switch action {
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "stop":
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	case "hold":
		for {
			if _, err := os.Stat(file + ".release"); err == nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	case "panic":
		panic("failpoint " + name)
	default:
		panic("failpoint: unknown action " + action)
	}
}
