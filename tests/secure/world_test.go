//go:build e2e

package secure

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/teststack"
)

const patience = 60 * time.Second // for anything to happen on a crowded machine; nothing waits this long when all is well

// password is a user's.
func password(user string) string { return "secret-of-" + user }

// secrets are all that tests give the program, by password and by file. None may be in what it prints: see leaked.
const secretMark = "secret-of-"

// printed is all that any process of these tests wrote, by what it was called with.
var printed struct {
	sync.Mutex
	by map[string][]*teststack.Log
}

// leaked lists who printed a secret.
func leaked() []string {
	printed.Lock()
	defer printed.Unlock()
	var out []string
	for what, all := range printed.by {
		for _, b := range all {
			if i := strings.Index(b.String(), secretMark); i >= 0 {
				out = append(out, fmt.Sprintf("%s: …%.60q", what, b.String()[i:]))
			}
		}
	}
	return out
}

// world is one test's settings: topics, group and database of its own.
type world struct {
	t   *testing.T
	ctx context.Context
	env map[string]string
	dir string
}

// worlds counts them, so that a test can be run several times on one stack.
var worlds atomic.Int64

// newWorld has settings for the plaintext listener, as somebody who may do everything.
func newWorld(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	t.Cleanup(cancel)
	name := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(t.Name()), "_") + fmt.Sprint("_", worlds.Add(1))
	dsn, err := shared.stack.NewDatabase(ctx, name)
	require.NoError(t, err)
	w := &world{t: t, ctx: ctx, dir: t.TempDir(), env: maps.Clone(shared.stack.Env())}
	return w.with("postgres.dsn", dsn, "group", name, "topics.input", name+".in", "topics.output", name+".out", "topics.dlq", name+".dlq", "topics.partitions", "3",
		"topics.replay", name+".replay", "ledger.heads_topic", name+".heads",
		"http.addr", "", "kafka.session_timeout", "3s", "kafka.stable_timeout", "500ms", "postgres.lock_timeout", "1s")
}

// with is a copy with further settings, name and value in turn.
func (w *world) with(settings ...string) *world {
	c := *w
	c.env = maps.Clone(w.env)
	for i := 0; i < len(settings); i += 2 {
		c.env[config.EnvName(settings[i])] = settings[i+1]
	}
	return &c
}

// as is a copy that comes to the SCRAM listener as that user.
func (w *world) as(user string) *world { return w.at(scram).sasl(user, password(user)) }

// at is a copy that connects to another listener, verifying it by the shared authority where it is encrypted.
func (w *world) at(listener string) *world {
	c := w.with("kafka.brokers", shared.stack.Cluster().Addrs(listener))
	if listener != noTLS {
		c = c.with("kafka.tls.enabled", "true", "kafka.tls.ca", shared.ca.File)
	}
	return c
}

// sasl is a copy that comes as user, with its password in a file.
func (w *world) sasl(user, password string) *world {
	file := w.file(fmt.Sprint("password-", worlds.Add(1)), password)
	return w.with("kafka.sasl.mechanism", "SCRAM-SHA-512", "kafka.sasl.username", user, "kafka.sasl.password_file", file)
}

// rewrite puts another secret into the file that a setting names.
func (w *world) rewrite(setting, secret string) {
	w.file(filepath.Base(w.env[config.EnvName(setting)]), secret)
}

// file writes a file of the test's.
func (w *world) file(name, content string) string {
	path := filepath.Join(w.dir, name)
	require.NoError(w.t, os.WriteFile(path+".new", []byte(content+"\n"), 0o600))
	require.NoError(w.t, os.Rename(path+".new", path))
	return path
}

func (w *world) environ() []string {
	var out []string
	for k, v := range w.env {
		out = append(out, k+"="+v)
	}
	return out
}

func (w *world) config() *config.Config {
	c, err := config.Load("", w.environ(), nil)
	require.NoError(w.t, err)
	return &c
}

// process is a command under way.
type process struct {
	w    *world
	cmd  *exec.Cmd
	out  *teststack.Log
	done chan struct{}
	from int
}

func (w *world) start(args ...string) *process {
	w.t.Helper()
	p := &process{w: w, out: &teststack.Log{}, done: make(chan struct{})}
	p.cmd = exec.Command(shared.bin, args...)
	p.cmd.Env = append(os.Environ(), w.environ()...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	printed.Lock()
	if printed.by == nil {
		printed.by = map[string][]*teststack.Log{}
	}
	what := w.t.Name() + ": " + strings.Join(args, " ")
	printed.by[what] = append(printed.by[what], p.out)
	printed.Unlock()
	require.NoError(w.t, p.cmd.Start())
	go func() { _ = p.cmd.Wait(); close(p.done) }() //nolint:errcheck // how it ended is in ProcessState
	w.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if w.t.Failed() {
			w.t.Logf("exactly %v wrote:\n%s", args, p.out.Tail())
		}
	})
	return p
}

// try runs a command to its end.
func (w *world) try(args ...string) (string, int) {
	w.t.Helper()
	p := w.start(args...)
	p.ended(patience)
	return p.out.String(), p.cmd.ProcessState.ExitCode()
}

// exactly runs a command to its end, which must be exit 0.
func (w *world) exactly(args ...string) string {
	w.t.Helper()
	out, code := w.try(args...)
	require.Zero(w.t, code, "exactly %v:\n%s", args, out)
	return out
}

func (p *process) ended(within time.Duration) {
	p.w.t.Helper()
	select {
	case <-p.done:
	case <-time.After(within):
		p.w.t.Fatalf("exactly %v did not end within %v:\n%s", p.cmd.Args[1:], within, p.out.Tail())
	}
}

// stop asks it to end and requires exit 0.
func (p *process) stop() {
	p.w.t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	p.ended(15 * time.Second)
	require.Zero(p.w.t, p.cmd.ProcessState.ExitCode(), "%s", p.out.Tail())
}

// mark has says and count look only at what comes from here on.
func (p *process) mark() { p.from = len(p.out.String()) }

// says waits until it has written one of the texts.
func (p *process) says(texts ...string) {
	p.w.t.Helper()
	require.Eventually(p.w.t, func() bool {
		out := p.out.String()[p.from:]
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(out, text) })
	}, patience, 20*time.Millisecond, "says one of %q", texts)
}

func (p *process) count(text string) int { return strings.Count(p.out.String()[p.from:], text) }

// settled waits until all that was generated is captured and published, as the audit sees it.
func (w *world) settled(clicks int) {
	w.t.Helper()
	var last string
	require.Eventually(w.t, func() bool {
		out, code := w.try("audit", "--settled", "--json")
		last = out
		var rep struct {
			Totals struct {
				Input int64 `json:"input"`
			} `json:"totals"`
		}
		return code == 0 && json.Unmarshal([]byte(out), &rep) == nil && rep.Totals.Input >= int64(clicks)
	}, patience, 500*time.Millisecond, "the audit is not clean of %d clicks", clicks)
	w.t.Log(last[:min(len(last), 400)])
}

// generate produces n clicks.
func (w *world) generate(n int) {
	w.exactly("generate", "--rate", "0", "--count", fmt.Sprint(n), "--seed", fmt.Sprint(n))
}
