// Command testcount owns the end of `make test`: it runs go test, tells of each package as it ends, and counts the tests by the
// stack they ran on. Asked to (-share, before go test's own arguments), it starts the broker and the registry that packages share
// (teststack.Join), and ends them when the tests have ended.
//
// It promises go test's own exit status, every line that a failed test wrote, and a count in which nothing that ran is left out and
// nothing is counted twice. It never decides which tests run.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/exactly-pipeline/exactly/internal/teststack"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout)) }

func run(args []string, out io.Writer) (code int) {
	on, err := stacks()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testcount:", err)
		return 1
	}
	share := len(args) > 0 && args[0] == "-share"
	if share {
		args = args[1:]
	}
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	if share {
		env, stop, err := shared()
		if err != nil {
			fmt.Fprintln(os.Stderr, "testcount:", err)
			return 1
		}
		defer func() {
			if err := stop(); err != nil { // a broker that ended by itself has failed no test, perhaps
				fmt.Fprintln(os.Stderr, "testcount: the shared stack:", err)
				code = 1
			}
		}()
		cmd.Env = append(os.Environ(), env)
	}
	events, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testcount:", err)
		return 1
	}
	c := newCounter(out, on)
	err = c.read(events)
	failed := cmd.Wait()
	if err != nil {
		fmt.Fprintln(os.Stderr, "testcount:", err)
		return 1
	}
	c.close()
	if failed != nil || c.total.failed > 0 || c.total.all() == 0 {
		return 1
	}
	return 0
}

// shared is what packages share, in a folder that goes with it.
func shared() (env string, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "exactly-shared-")
	if err != nil {
		return "", nil, err
	}
	env, stopStack, err := teststack.Share(context.Background(), dir)
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return env, func() error { return errors.Join(stopStack(), os.RemoveAll(dir)) }, nil
}

// The stacks that tests run on unless they say otherwise.
const (
	embedded = "embedded stack"
	none     = "no stack"
)

// stackPackage starts the embedded stack: whoever imports it, in code or in tests, has it in its tests.
const stackPackage = "/internal/stack"

// stacks says of each package which stack its tests run on unless they say otherwise (teststack.Says). Those of the stack itself run on it.
func stacks() (map[string]string, error) {
	cmd := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}} {{join .TestImports " "}} {{join .XTestImports " "}}`, "./...")
	cmd.Stderr = os.Stderr
	list, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	on := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(string(list)), "\n") {
		names := strings.Fields(line)
		on[names[0]] = none
		for _, n := range names {
			if strings.HasSuffix(n, stackPackage) {
				on[names[0]] = embedded
			}
		}
	}
	return on, nil
}

// event is a line of go test -json (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // build-output
	Test       string
	Elapsed    float64
	Output     string
}

type count struct{ passed, failed, skipped int }

func (c count) all() int { return c.passed + c.failed + c.skipped }

func (c *count) add(action string) {
	switch action {
	case "pass":
		c.passed++
	case "fail":
		c.failed++
	case "skip":
		c.skipped++
	}
}

type test struct{ pkg, name string }

// counter reads a run's events. A test with subtests is as many tests as it has subtests without any of their own: what is counted is
// what was tried, not the headings above it.
//
// A line with teststack.Says tells which stack tests run on: in a package's output, those of the package; in a test's, that one and those
// below it.
type counter struct {
	out     io.Writer
	on      map[string]string // by package
	onTest  map[test]string
	output  map[test]*strings.Builder // until the test ends
	parents map[test]bool
	ended   map[test]string // test to how it ended, until its package ends
	byStack map[string]*count
	total   count
	lines   []string // go test's own line a package
}

func newCounter(out io.Writer, on map[string]string) *counter {
	return &counter{
		out: out, on: on, onTest: map[test]string{}, output: map[test]*strings.Builder{}, parents: map[test]bool{}, ended: map[test]string{}, byStack: map[string]*count{},
	}
}

func (c *counter) read(r io.Reader) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) != nil {
				fmt.Fprint(c.out, line) // not of test2json: go's own word
			} else {
				c.take(e)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read go test: %w", err)
		}
	}
}

func (c *counter) take(e event) {
	t := test{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		fmt.Fprint(c.out, e.Output)
	case "run":
		for name := e.Test; ; {
			i := strings.LastIndexByte(name, '/')
			if i < 0 {
				break
			}
			name = name[:i]
			c.parents[test{e.Package, name}] = true
		}
	case "output":
		if c.output[t] == nil {
			c.output[t] = &strings.Builder{}
		}
		c.output[t].WriteString(e.Output)
		if _, stack, ok := strings.Cut(e.Output, teststack.Says); ok {
			if stack = strings.TrimSpace(stack); e.Test == "" {
				c.on[e.Package] = stack
			} else {
				c.onTest[t] = stack
			}
		}
		if e.Test == "" && resultLine(e.Output) {
			c.lines = append(c.lines, e.Output)
		}
	case "pass", "fail", "skip":
		if e.Test == "" {
			c.packageEnded(e)
		} else {
			c.ended[t] = e.Action
			if e.Action == "fail" && c.output[t] != nil {
				fmt.Fprint(c.out, c.output[t])
			}
			delete(c.output, t)
		}
	}
}

// resultLine says whether a line is go test's result of a package that has tests.
func resultLine(s string) bool {
	return strings.HasPrefix(s, "ok  \t") || strings.HasPrefix(s, "FAIL\t")
}

func (c *counter) packageEnded(e event) {
	var n count
	note := func(stack, how string) {
		if c.byStack[stack] == nil {
			c.byStack[stack] = &count{}
		}
		n.add(how)
		c.byStack[stack].add(how)
		c.total.add(how)
	}
	for t, how := range c.ended {
		if t.pkg != e.Package {
			continue
		}
		// A heading whose subtests all passed may itself have failed: that counts.
		if !c.parents[t] || how == "fail" && !c.failedBelow(t) {
			note(c.stackOf(t), how)
		}
	}
	for t := range c.ended {
		if t.pkg == e.Package {
			delete(c.ended, t)
		}
	}
	if e.Action == "fail" {
		if n.failed == 0 {
			note(c.stackOf(test{pkg: e.Package}), "fail") // it did not build, or it died: its TestMain, a panic, the timeout
		}
		c.dump(e.Package)
	}
	if n.all() > 0 {
		fmt.Fprintf(c.out, "%s: %d tests, %.1f s: %s\n", short(e.Package), n.all(), e.Elapsed, e.Action)
	}
	delete(c.output, test{e.Package, ""})
}

// stackOf is what the test says, else the nearest above it, else its package.
func (c *counter) stackOf(t test) string {
	for {
		if stack := c.onTest[t]; stack != "" {
			return stack
		}
		i := strings.LastIndexByte(t.name, '/')
		if i < 0 {
			break
		}
		t.name = t.name[:i]
	}
	return cmp.Or(c.on[t.pkg], none)
}

func (c *counter) failedBelow(t test) bool {
	for s, how := range c.ended {
		if s.pkg == t.pkg && how == "fail" && strings.HasPrefix(s.name, t.name+"/") {
			return true
		}
	}
	return false
}

// dump shows what a package that failed had written outside of tests, and in tests that never ended.
func (c *counter) dump(pkg string) {
	for t, o := range c.output {
		if t.pkg == pkg {
			fmt.Fprint(c.out, o)
			delete(c.output, t)
		}
	}
}

func short(pkg string) string {
	if _, rest, ok := strings.Cut(pkg, "/exactly/"); ok {
		return rest
	}
	return pkg
}

// close prints the counts, then go test's own lines, then the sum.
func (c *counter) close() {
	fmt.Fprintln(c.out)
	for _, stack := range slices.Sorted(maps.Keys(c.byStack)) {
		n := c.byStack[stack]
		fmt.Fprintf(c.out, "%-24s %5d tests: %d passed, %d failed, %d skipped\n", stack, n.all(), n.passed, n.failed, n.skipped)
	}
	fmt.Fprintln(c.out)
	for _, l := range c.lines {
		fmt.Fprint(c.out, l)
	}
	fmt.Fprintf(c.out, "tests: %d passed, %d failed, %d skipped\n", c.total.passed, c.total.failed, c.total.skipped)
}
