package heal

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/connect"
	"github.com/exactly-pipeline/exactly/internal/teststack"
)

const partitions = 4

var (
	// patience is for anything to happen on a crowded machine; nothing waits this long when all is well.
	patience = 60 * time.Second

	all    = []int32{0, 1, 2, 3}
	worlds atomic.Int64
)

// world is one test's database, topics and group.
type world struct {
	t       *testing.T
	ctx     context.Context
	name    string
	dsn     string
	cfg     config.Config
	env     map[string]string
	adm     *admin.Admin
	sent    int64
	odd     *rand.Rand
	workers []*worker
	dir     string
}

// setup makes a world on the shared stack; with are further NAME=VALUE settings.
func setup(t *testing.T, with ...string) *world {
	t.Helper()
	t.Parallel()
	return newWorld(t, with...)
}

func newWorld(t *testing.T, with ...string) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute+patience)
	t.Cleanup(cancel)
	name := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(t.Name()), "_") + fmt.Sprint("_", worlds.Add(1))
	b := &world{t: t, ctx: ctx, name: name, dir: t.TempDir(), env: shared.Stack.Env(), odd: rand.New(rand.NewPCG(7, 7))}
	for k, v := range map[string]string{
		"EXACTLY_GROUP": name, "EXACTLY_TOPICS_INPUT": name + ".in", "EXACTLY_TOPICS_OUTPUT": name + ".out",
		"EXACTLY_TOPICS_DLQ": name + ".dlq", "EXACTLY_TOPICS_REPLAY": name + ".replay", "EXACTLY_TOPICS_PARTITIONS": fmt.Sprint(partitions), "EXACTLY_HTTP_ADDR": "",
		"EXACTLY_KAFKA_SESSION_TIMEOUT": "3s", "EXACTLY_KAFKA_HEARTBEAT_INTERVAL": "300ms", "EXACTLY_KAFKA_STABLE_TIMEOUT": "500ms",
		"EXACTLY_POSTGRES_LOCK_TIMEOUT": "1s", "EXACTLY_BATCH_MAX_RECORDS": "500", "EXACTLY_LOG_LEVEL": "debug", "EXACTLY_FAILPOINT_DIR": b.dir,
	} {
		b.env[k] = v
	}
	for _, kv := range with {
		k, v, _ := strings.Cut(kv, "=")
		b.env[k] = v
	}
	if b.env["EXACTLY_POSTGRES_DSN"] == shared.Stack.DSN() {
		var err error
		b.env["EXACTLY_POSTGRES_DSN"], err = shared.Stack.NewDatabase(ctx, name)
		require.NoError(t, err)
	}
	b.dsn = b.env["EXACTLY_POSTGRES_DSN"]
	var err error
	b.cfg, err = config.Load("", b.environ(), nil)
	require.NoError(t, err)
	b.adm, err = admin.New(&b.cfg, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(b.adm.Close)
	b.exactly("setup")
	t.Cleanup(b.end)
	return b
}

func (b *world) environ(with ...string) []string {
	var out []string
	for k, v := range b.env {
		out = append(out, k+"="+v)
	}
	return append(out, with...)
}

// exactly runs a command to its end, which must be exit 0.
func (b *world) exactly(args ...string) string {
	b.t.Helper()
	out, code := b.try(nil, args...)
	require.Zero(b.t, code, "exactly %v:\n%s", args, out)
	return out
}

func (b *world) try(with []string, args ...string) (string, int) {
	cmd := exec.CommandContext(b.ctx, shared.Bin, args...)
	cmd.Env = append(os.Environ(), b.environ(with...)...)
	out, _ := cmd.CombinedOutput()
	return string(out), cmd.ProcessState.ExitCode()
}

// generate sends clicks, some of them bad, and a few records that have all that a record can have: no key, an empty one, headers of other
// pipelines, no value. The same in every world, if called the same way.
func (b *world) generate(n int) {
	b.t.Helper()
	b.exactly("generate", "--rate", "0", "--count", fmt.Sprint(n), "--seed", fmt.Sprint(b.sent+1), "--bad-share", "0.01")
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(b.cfg.Kafka.Brokers, ",")...), kgo.DefaultProduceTopic(b.cfg.Topics.Input),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(b.t, err)
	defer cl.Close()
	const odd = 20
	for i := range odd {
		r := &kgo.Record{Partition: int32(i % partitions), Timestamp: time.UnixMilli(1_700_000_000_000 + int64(i))}
		switch b.odd.IntN(3) {
		case 0:
			r.Key = []byte{}
		case 1:
			r.Key = []byte("7")
		}
		if b.odd.IntN(3) > 0 {
			r.Value = []byte{0, 0, 0, 0, 1, byte(i)}
		}
		for range b.odd.IntN(4) {
			r.Headers = append(r.Headers, []kgo.RecordHeader{
				{Key: "exactly-source", Value: []byte(b.cfg.Topics.Input + "/1/123456")}, {Key: "exactly-error-class", Value: []byte("theirs")},
				{Key: "x", Value: nil}, {Key: "x", Value: []byte{}}, {Key: "__connect.errors.offset", Value: []byte("9")},
			}[b.odd.IntN(5)])
		}
		require.NoError(b.t, cl.ProduceSync(b.ctx, r).FirstErr())
	}
	b.sent += int64(n) + odd
}

// worker is one process of `exactly`.
type worker struct {
	b    *world
	id   string
	cmd  *exec.Cmd
	log  *teststack.Log
	done chan struct{}
}

// start runs a worker; with are further NAME=VALUE settings.
func (b *world) start(id string, with ...string) *worker {
	return b.spawn(id, append(with, "EXACTLY_WORKER_ID="+id), "run")
}

func (b *world) spawn(id string, with []string, args ...string) *worker {
	b.t.Helper()
	w := &worker{b: b, id: id, log: &teststack.Log{}, done: make(chan struct{})}
	w.cmd = exec.Command(shared.Bin, args...)
	w.cmd.Env = append(os.Environ(), b.environ(with...)...)
	w.cmd.Stdout, w.cmd.Stderr = w.log, w.log
	require.NoError(b.t, w.cmd.Start())
	go func() { _ = w.cmd.Wait(); close(w.done) }() //nolint:errcheck // how it ended is in ProcessState
	b.workers = append(b.workers, w)
	return w
}

// stop asks it to end and requires exit 0.
func (w *worker) stop() {
	w.b.t.Helper()
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	require.Zero(w.b.t, w.ended(), "%s: %s", w.id, w.log.Tail())
}

// ended waits for its end and returns the exit code, -1 if it was killed.
func (w *worker) ended() int {
	w.b.t.Helper()
	select {
	case <-w.done:
	case <-time.After(patience):
		w.b.t.Fatalf("%s did not end:\n%s", w.id, w.log.Tail())
	}
	return w.cmd.ProcessState.ExitCode()
}

func (w *worker) kill() {
	_ = w.cmd.Process.Kill()
	<-w.done
}

// says waits until its log matches.
func (w *worker) says(pattern string) {
	w.b.t.Helper()
	re := regexp.MustCompile(pattern)
	w.b.until(fmt.Sprintf("%s says %q", w.id, pattern), func() bool { return re.Match(w.log.Bytes()) })
}

func (b *world) file(point, suffix string) string {
	return filepath.Join(b.dir, strings.ReplaceAll(point, "/", "-")+suffix)
}

func (b *world) hit(point string) bool {
	_, err := os.Stat(b.file(point, ".hit"))
	return err == nil
}

func (b *world) release(point string) {
	require.NoError(b.t, os.WriteFile(b.file(point, ".release"), nil, 0o600))
}

// until waits for the thing itself, and fails when patience runs out.
func (b *world) until(what string, ok func() bool) {
	b.t.Helper()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			b.t.Fatalf("waited %v in vain until: %s", patience, what)
		}
	}
}

// sql runs f on a connection of its own: none is left open, so that the database can be copied and replaced.
func (b *world) sql(f func(*pgx.Conn)) {
	b.t.Helper()
	conn, err := pgx.Connect(b.ctx, b.dsn)
	require.NoError(b.t, err)
	defer conn.Close(b.ctx)
	f(conn)
}

func (b *world) scalar(sql string, args ...any) (n int64) {
	b.t.Helper()
	b.sql(func(c *pgx.Conn) { require.NoError(b.t, c.QueryRow(b.ctx, sql, args...).Scan(&n)) })
	return n
}

func (b *world) stored() int64 {
	return b.scalar(`SELECT coalesce(sum(next_offset), 0)::bigint FROM partition_offsets WHERE source_id = 1`)
}

// published is the sum of the group offsets, -1 while it can't be told.
func (b *world) published() int64 {
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
func (b *world) settle() {
	b.t.Helper()
	b.until(fmt.Sprintf("all %d records are stored and published", b.sent), func() bool { return b.stored() == b.sent && b.published() == b.sent })
	b.audit(true)
}

// alone generates n, runs one worker until everything is done, and stops it; the group is empty then.
func (b *world) alone(n int, with ...string) {
	b.t.Helper()
	b.generate(n)
	w := b.start("a", with...)
	b.settle()
	w.stop()
	b.empty()
}

func (b *world) empty() {
	b.t.Helper()
	b.until("the group is empty", func() bool {
		m, err := b.adm.Members(b.ctx)
		require.NoError(b.t, err)
		return len(m) == 0
	})
}

func (b *world) audit(settled bool) *audit.Report {
	b.t.Helper()
	o, err := connect.Audit(&b.cfg)
	require.NoError(b.t, err)
	o.Settled = settled
	r, err := audit.Run(b.ctx, o)
	require.NoError(b.t, err)
	require.True(b.t, r.Clean(), "audit: %+v", r)
	require.Positive(b.t, r.Totals.Input)
	return r
}

// end stops what is left, and shows the logs of a failed test.
func (b *world) end() {
	for _, w := range b.workers {
		_ = w.cmd.Process.Signal(syscall.SIGCONT)
		w.kill()
		if b.t.Failed() {
			b.t.Logf("%s:\n%s", w.id, w.log.Tail())
		}
	}
	if b.t.Failed() {
		out, _ := b.try(nil, "offsets", "show")
		b.t.Log(out)
	}
}
