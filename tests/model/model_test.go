//go:build model

package model

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var tableFile = flag.String("table", "", "where to write the table")

const (
	memoryMB = 2500             // of one search
	depth    = 1_000_000        // of one search, in steps
	patience = 10 * time.Minute // for one search, on a busy machine
)

// missing says what is missing, and the command that installs it.
func missing() error {
	for _, tool := range []string{"spin", "cc"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%s is missing: apt-get install %s (sh scripts/need.sh spin cc says it for other systems)", tool, map[string]string{"spin": "spin", "cc": "gcc libc6-dev"}[tool])
		}
	}
	return nil
}

func TestMain(m *testing.M) {
	flag.Parse()
	if err := missing(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	status := m.Run()
	out := table()
	fmt.Print(out)
	if *tableFile != "" {
		if err := os.WriteFile(*tableFile, []byte(out), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}
	os.Exit(status)
}

// search builds a model's checker and runs it. wants says what to look for: safety and stuck may be looked for in one search, because no
// process of these models can go on for ever and hide that the others are stuck.
func search(t *testing.T, file string, defs []string, optimize string, wants ...property) (report, time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	dir := t.TempDir()
	src, err := filepath.Abs(file + ".pml")
	require.NoError(t, err)
	run := func(name string, args ...string) (string, time.Duration, error) {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		took := time.Duration(0)
		if cmd.ProcessState != nil {
			took = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		}
		return string(out), took, err
	}
	args := []string{"-a"}
	for _, d := range defs {
		args = append(args, "-D"+d)
	}
	out, took, err := run("spin", append(args, src)...)
	require.NoError(t, err, "spin %v: %s", args, out)
	require.NotContains(t, out, "rror", "spin %v", args)
	cc := []string{"-w", optimize, "-o", "pan", "-DVECTORSZ=2048", fmt.Sprintf("-DMEMLIM=%d", memoryMB)}
	pan := []string{fmt.Sprintf("-m%d", depth)}
	if slices.Contains(wants, livelock) {
		cc = append(cc, "-DNP", "-DNFAIR=3")
		pan = append(pan, "-l", "-f")
	} else {
		cc = append(cc, "-DSAFETY", "-DNOFAIR", "-DCOLLAPSE")
	}
	if !slices.Contains(wants, stuck) {
		pan = append(pan, "-E")
	}
	if !slices.Contains(wants, safety) {
		pan = append(pan, "-A")
	}
	out, t2, err := run("cc", append(cc, "pan.c")...)
	require.NoError(t, err, "cc %v: %s", cc, out)
	out, t3, err := run("./pan", pan...)
	require.NoError(t, ctx.Err(), "not finished within %v: %s", patience, out)
	r, readErr := read(out)
	require.NoError(t, readErr, "%v", err)
	return r, took + t2 + t3
}

// line is one search, for the table.
type line struct {
	model, bounds, states, cpu, verdict string
	caught                              []string // mutants of this model, and by what
	open                                []string // known holes
}

var (
	mu    sync.Mutex
	lines = map[string]*line{}
)

func note(name string, f func(*line)) {
	mu.Lock()
	defer mu.Unlock()
	if lines[name] == nil {
		lines[name] = &line{model: name}
	}
	f(lines[name])
}

// TestHolds: with all guards standing, no assertion fails in any state within the bounds, none is stuck, and every fair run ends.
func TestHolds(t *testing.T) {
	for _, m := range models {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			r, took := search(t, m.file, m.defs, "-O1", safety, stuck)
			note(m.name, func(at *line) {
				at.bounds, at.states, at.cpu, at.verdict = m.bounds, fmt.Sprintf("%.0f", r.states), fmt.Sprintf("%.0f s", took.Seconds()), r.String()
			})
			require.Equal(t, "holds", r.String(), "safety and stuck, %s.pml with %v", m.file, m.defs)
			l, took := search(t, m.file, m.livelock, "-O0", livelock)
			note(m.name, func(at *line) {
				at.states += fmt.Sprintf(", %.0f", l.states)
				at.cpu += fmt.Sprintf(", %.0f s", took.Seconds())
				if l.String() != "holds" {
					at.verdict += ", " + l.String()
				}
			})
			require.Equal(t, "holds", l.String(), "livelock, %s.pml with %v", m.file, m.livelock)
		})
	}
}

// TestCaught: a guard taken out is caught, and by what it is there for.
func TestCaught(t *testing.T) {
	tryAll(t, mutants, func(l *line) *[]string { return &l.caught })
}

// TestKnownHoles: what doc/protocol.md says is open is.
func TestKnownHoles(t *testing.T) {
	tryAll(t, holes, func(l *line) *[]string { return &l.open })
}

func tryAll(t *testing.T, all []mutant, in func(*line) *[]string) {
	for _, u := range all {
		t.Run(u.model+"/"+u.out, func(t *testing.T) {
			t.Parallel()
			m := modelNamed(t, u.model)
			defs := m.defs
			if u.by == livelock {
				defs = m.livelock
			}
			if u.more != nil {
				defs = u.more
			}
			r, _ := search(t, m.file, append(slices.Clone(defs), u.out), "-O0", u.by)
			require.Equal(t, u.by, r.found, "%s without it: %s", u.model, r)
			require.Equal(t, u.what, r.what)
			note(u.model, func(at *line) { *in(at) = append(*in(at), strings.TrimPrefix(u.out, "NO_")+": "+r.String()) })
		})
	}
}

func table() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-15s %-24s %-12s %-8s %s\n", "model", "states (safety, livelock)", "CPU", "verdict", "bounds; mutants caught, and by what")
	for _, m := range models {
		l := lines[m.name]
		if l == nil {
			continue
		}
		fmt.Fprintf(&b, "%-15s %-24s  %-12s %-8s %s\n", l.model, l.states, l.cpu, l.verdict, l.bounds)
		slices.Sort(l.caught)
		for _, c := range l.caught {
			fmt.Fprintf(&b, "%-62s   %s\n", "", c)
		}
	}
	caught, open := 0, []string{}
	for _, l := range lines {
		caught += len(l.caught)
		open = append(open, l.open...)
	}
	fmt.Fprintf(&b, "%d of %d mutants caught; known to be open: %s\n", caught, len(mutants), strings.Join(open, ", "))
	return b.String()
}
