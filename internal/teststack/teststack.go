// Package teststack owns which stack a package's tests run on: the environment variable TEST_STACK says it, and whoever starts a stack for
// tests starts it here; and the program that tests run on it, built as they want it.
//
// It promises that the same tests run on any of them, and says on standard output which one it was: internal/testcount reads that. It never
// falls back to another stack than the one asked for.
package teststack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/exactly-pipeline/exactly/internal/stack"
)

// Variable is the environment variable that chooses. Empty: embedded.
const Variable = "TEST_STACK"

// Says introduces the line that tells which stack tests run on.
const Says = "these tests run on: "

// The stacks there are, as the variable names them.
var stacks = []struct {
	name    string
	kind    stack.Kind
	brokers int
}{
	{"embedded", stack.Embedded, 1},
	{"kafka", stack.Kafka, 1},
	{"kafka3", stack.Kafka, 3},
}

// Start starts the stack that TEST_STACK asks for, in o.Dir and with what o says beside that. Nothing of it is synced to disk: a test's data
// has to survive kills, not power failures.
func Start(ctx context.Context, o stack.Options) (*stack.Stack, error) {
	if err := asked(&o); err != nil {
		return nil, err
	}
	fmt.Println(Says + o.String())
	return stack.Start(ctx, o)
}

func asked(o *stack.Options) error {
	asked := os.Getenv(Variable)
	for i, s := range stacks {
		if asked == s.name || asked == "" && i == 0 {
			o.Kind, o.Apache.Brokers = s.kind, s.brokers
			o.NoSyncKafka, o.NoSyncPostgres = true, true
			return nil
		}
	}
	return fmt.Errorf("%s=%s: it must be embedded, kafka (one broker) or kafka3 (three)", Variable, asked)
}

// Build builds the program, without what only a debugger reads, with build tags (failpoints), into dir, and returns where it is. It is kept in
// the user's cache folder as well: linking it takes as long as many a test, and whoever asks next gets a copy if nothing has changed. The error
// has what the compiler said.
func Build(dir string, tags ...string) (string, error) {
	bin := filepath.Join(dir, "exactly")
	if err := build(bin, strings.Join(tags, ",")); err != nil {
		return "", fmt.Errorf("build the program: %w", err)
	}
	return bin, nil
}

func build(bin, tags string) error {
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	cache = filepath.Join(cache, "exactly")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	kept := filepath.Join(cache, "tested-"+tags)
	// One at a time, and nobody copies what is being written. The lock goes with the file.
	lock, err := os.OpenFile(kept+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	out, err := exec.Command("go", "build", "-ldflags", "-s -w", "-tags", tags, "-o", kept, "github.com/exactly-pipeline/exactly/cmd/exactly").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	content, err := os.ReadFile(kept)
	if err != nil {
		return err
	}
	return os.WriteFile(bin, content, 0o755)
}
