package behaviour

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/connect"
	"github.com/exactly-pipeline/exactly/internal/teststack"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

const (
	session    = 3 * time.Second // of the workers under test
	partitions = 6               // as many as all has; a broker pays for each
	// For anything to happen on a crowded machine; nothing waits this long when all is well. Brokers that have lost one of them may stand still for their
	// own requests to it, 30 s (request.timeout.ms).
	patience = 100 * time.Second
)

var all = []int32{0, 1, 2, 3, 4, 5}

// bundle is one test's world.
type bundle struct {
	t       *testing.T
	ctx     context.Context
	cfg     config.Config
	env     map[string]string
	db      *pgxpool.Pool
	adm     *admin.Admin
	sent    int64
	workers []*worker
	dir     string
}

// worlds counts them, so that a test can be run several times on one stack.
var worlds atomic.Int64

func setup(t *testing.T, with ...string) *bundle {
	t.Helper()
	t.Parallel()
	return world(t, with...)
}

// world is setup for a test that wants the stack to itself.
func world(t *testing.T, with ...string) *bundle {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	t.Cleanup(cancel)
	name := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(t.Name()), "_") + fmt.Sprint("_", worlds.Add(1))
	dsn, err := shared.Stack.NewDatabase(ctx, name)
	require.NoError(t, err)
	b := &bundle{t: t, ctx: ctx, dir: t.TempDir(), env: shared.Stack.Env()}
	for k, v := range map[string]string{
		"EXACTLY_POSTGRES_DSN": dsn, "EXACTLY_GROUP": name, "EXACTLY_TOPICS_INPUT": name + ".in", "EXACTLY_TOPICS_OUTPUT": name + ".out",
		"EXACTLY_TOPICS_DLQ": name + ".dlq", "EXACTLY_TOPICS_REPLAY": name + ".replay", "EXACTLY_TOPICS_PARTITIONS": fmt.Sprint(partitions), "EXACTLY_HTTP_ADDR": "",
		"EXACTLY_KAFKA_SESSION_TIMEOUT": session.String(), "EXACTLY_KAFKA_HEARTBEAT_INTERVAL": "300ms", "EXACTLY_KAFKA_STABLE_TIMEOUT": "500ms",
		"EXACTLY_POSTGRES_LOCK_TIMEOUT": "1s", "EXACTLY_BATCH_MAX_RECORDS": "500", "EXACTLY_LOG_LEVEL": "debug",
	} {
		b.env[k] = v
	}
	for _, kv := range with {
		k, v, _ := strings.Cut(kv, "=")
		b.env[k] = v
	}
	b.cfg, err = config.Load("", b.environ(), nil)
	require.NoError(t, err)
	b.db, err = pgxpool.New(ctx, dsn)
	require.NoError(t, err)
	t.Cleanup(b.db.Close)
	b.adm, err = admin.New(&b.cfg, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(b.adm.Close)
	b.exactly("setup")
	t.Cleanup(b.drop)
	t.Cleanup(b.end)
	return b
}

func (b *bundle) environ() []string {
	var out []string
	for k, v := range b.env {
		out = append(out, k+"="+v)
	}
	return out
}

// exactly runs a command to its end, which must be exit 0.
func (b *bundle) exactly(args ...string) string {
	b.t.Helper()
	out, code := b.try(args...)
	require.Zero(b.t, code, "exactly %v:\n%s", args, out)
	return out
}

func (b *bundle) try(args ...string) (string, int) {
	cmd := exec.CommandContext(b.ctx, shared.Bin, args...)
	cmd.Env = append(os.Environ(), b.environ()...)
	out, _ := cmd.CombinedOutput()
	return string(out), cmd.ProcessState.ExitCode()
}

func (b *bundle) generate(n int) {
	b.t.Helper()
	b.exactly("generate", "--rate", "0", "--count", fmt.Sprint(n), "--seed", fmt.Sprint(b.sent+1), "--bad-share", "0.002")
	b.sent += int64(n)
}

// feed generates a little at a time until it is so: where Kafka is slow a transaction takes all there is, and a worker that is to die in its
// second would only have one.
func (b *bundle) feed(what string, ok func() bool) {
	b.t.Helper()
	b.until(what, func() bool {
		if ok() {
			return true
		}
		b.generate(clicks / 20)
		return ok()
	})
}

// worker is one process of `exactly run`.
type worker struct {
	b    *bundle
	id   string
	cmd  *exec.Cmd
	log  *teststack.Log
	done chan struct{}
}

// start runs a worker; with are further NAME=VALUE settings.
func (b *bundle) start(id string, with ...string) *worker {
	b.t.Helper()
	w := &worker{b: b, id: id, log: &teststack.Log{}, done: make(chan struct{})}
	w.cmd = exec.Command(shared.Bin, "run")
	w.cmd.Env = append(append(append(os.Environ(), b.environ()...), "EXACTLY_WORKER_ID="+id, "EXACTLY_FAILPOINT_DIR="+b.dir), with...)
	w.cmd.Stdout, w.cmd.Stderr = w.log, w.log
	require.NoError(b.t, w.cmd.Start())
	go func() { _ = w.cmd.Wait(); close(w.done) }() //nolint:errcheck // how it ended is in ProcessState
	b.workers = append(b.workers, w)
	return w
}

func failpoint(spec string) string { return "EXACTLY_FAILPOINT=" + spec }

func (w *worker) signal(s syscall.Signal) { _ = w.cmd.Process.Signal(s) }

func (w *worker) kill() {
	w.signal(syscall.SIGKILL)
	<-w.done
}

// stop asks it to end and requires exit 0 within ten seconds.
func (w *worker) stop() {
	w.b.t.Helper()
	w.signal(syscall.SIGTERM)
	select {
	case <-w.done:
	case <-time.After(10 * time.Second):
		w.b.t.Fatalf("worker %s did not end within 10s of SIGTERM", w.id)
	}
	require.Zero(w.b.t, w.cmd.ProcessState.ExitCode(), "worker %s: %s", w.id, w.log.Tail())
}

// ended says whether the process is gone.
func (w *worker) ended() bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

// killed waits until the worker was killed by its own failpoint.
func (w *worker) killed(point string) {
	w.b.t.Helper()
	select {
	case <-w.done:
	case <-time.After(patience):
		w.b.t.Fatalf("worker %s was not killed at %s\n%s", w.id, point, w.log.Tail())
	}
	st, _ := w.cmd.ProcessState.Sys().(syscall.WaitStatus)
	require.True(w.b.t, st.Signaled() && st.Signal() == syscall.SIGKILL, "worker %s ended otherwise: %v\n%s", w.id, w.cmd.ProcessState, w.log.Tail())
	require.True(w.b.t, w.b.hit(point), "the kill did not happen at %s", point)
}

func (b *bundle) file(point, suffix string) string {
	return filepath.Join(b.dir, strings.ReplaceAll(point, "/", "-")+suffix)
}

func (b *bundle) hit(point string) bool {
	_, err := os.Stat(b.file(point, ".hit"))
	return err == nil
}

func (b *bundle) release(point string) {
	require.NoError(b.t, os.WriteFile(b.file(point, ".release"), nil, 0o600))
}

// says waits until the worker's log matches.
func (w *worker) says(pattern string) {
	w.b.t.Helper()
	re := regexp.MustCompile(pattern)
	w.b.until(fmt.Sprintf("worker %s says %q", w.id, pattern), func() bool { return re.Match(w.log.Bytes()) })
}

// until waits for the thing itself, and fails when patience runs out. It asks less often the longer it has waited: most of what it asks costs the stores
// and us more than the wait does.
func (b *bundle) until(what string, ok func() bool) {
	b.t.Helper()
	for began := time.Now(); !ok(); {
		waited := time.Since(began)
		if waited > patience || b.ctx.Err() != nil {
			b.t.Fatalf("waited %v in vain until: %s", waited, what)
		}
		_ = wait.For(b.ctx, min(max(waited/10, 20*time.Millisecond), 150*time.Millisecond))
	}
}

// logs shows where things stand, and what the workers said.
func (b *bundle) logs() {
	offsets, _ := b.adm.GroupOffsets(b.ctx, all)
	ends, _ := b.adm.Kadm().ListEndOffsets(b.ctx, b.cfg.Topics.Input)
	for p := range int32(partitions) {
		var next, epoch int64
		_ = b.db.QueryRow(b.ctx, `SELECT next_offset, epoch FROM partition_offsets WHERE source_partition = $1`, p).Scan(&next, &epoch)
		end, _ := ends.Lookup(b.cfg.Topics.Input, p)
		b.t.Logf("partition %d: group %+v, stored %d (epoch %d), end %d", p, offsets[p], next, epoch, end.Offset)
	}
	for _, w := range b.workers {
		b.t.Logf("worker %s:\n%s", w.id, w.log.Tail())
	}
}

func (b *bundle) scalar(sql string, args ...any) int64 {
	b.t.Helper()
	var n int64
	require.NoError(b.t, b.db.QueryRow(b.ctx, sql, args...).Scan(&n))
	return n
}

func (b *bundle) stored() int64 {
	return b.scalar(`SELECT coalesce(sum(next_offset), 0)::bigint FROM partition_offsets`)
}

// published is the sum of the group offsets, -1 while it can't be told: one is pending, or the coordinator moves.
func (b *bundle) published() int64 {
	os, err := b.adm.GroupOffsets(b.ctx, all)
	if err != nil {
		b.t.Log(err)
		return -1
	}
	var n int64
	for _, o := range os {
		if o.Pending {
			return -1
		}
		n += o.Offset
	}
	return n
}

// settle waits until everything sent is in both sinks and requires the audit to be clean.
func (b *bundle) settle() *audit.Report {
	b.t.Helper()
	b.until(fmt.Sprintf("all %d clicks are stored and published", b.sent), func() bool { return b.stored() == b.sent && b.published() == b.sent })
	return b.audit(true)
}

func (b *bundle) audit(settled bool) *audit.Report {
	b.t.Helper()
	o, err := connect.Audit(&b.cfg)
	require.NoError(b.t, err)
	o.Settled = settled
	r, err := audit.Run(b.ctx, o)
	require.NoError(b.t, err)
	if !r.Clean() {
		b.t.Log("the output topic's log:\n" + b.forensics())
	}
	require.True(b.t, r.Clean(), "audit: %+v", r)
	return r
}

// drop has the brokers forget the test's topics: the next ones pay for every partition there is.
func (b *bundle) drop() {
	if _, err := b.adm.Kadm().DeleteTopics(b.ctx, b.cfg.Topics.Input, b.cfg.Topics.Output, b.cfg.Topics.DLQ, b.cfg.Topics.Replay); err != nil {
		b.t.Logf("topics stay: %v", err)
	}
}

// end stops what is left, and shows the logs of a failed test.
func (b *bundle) end() {
	failed := b.t.Failed()
	if failed {
		b.group()
		b.logs()
	}
	for _, w := range b.workers {
		w.signal(syscall.SIGCONT)
		if failed { // a Go program says what it was doing
			w.signal(syscall.SIGQUIT)
			select {
			case <-w.done:
			case <-time.After(5 * time.Second):
			}
		}
		w.kill()
	}
	dir := os.Getenv("TEST_LOGS")
	if !failed || dir == "" {
		return
	}
	for i, w := range b.workers {
		name := fmt.Sprintf("%s-%d-%s.log", b.cfg.Group, i, w.id)
		require.NoError(b.t, os.WriteFile(filepath.Join(dir, name), w.log.Bytes(), 0o600))
	}
}
