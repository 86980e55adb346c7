package retention

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
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
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/provision"
)

const patience = 90 * time.Second // for anything to happen on a crowded machine; nothing waits this long when all is well

var nth atomic.Int32

// bundle is one test's world.
type bundle struct {
	t    *testing.T
	ctx  context.Context
	cfg  config.Config
	env  []string
	db   *pgxpool.Pool // as the server's superuser
	adm  *admin.Admin
	dir  string
	name string
	sent int64
}

const partitions = 4

func setup(t *testing.T, with ...string) *bundle {
	t.Helper()
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	name := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(t.Name()), "_")
	name = fmt.Sprintf("%s_%d", name, nth.Add(1)) // -count
	dsn, err := shared.Stack.NewDatabase(ctx, name)
	require.NoError(t, err)
	b := &bundle{t: t, ctx: ctx, dir: t.TempDir(), name: name}
	b.env = append([]string{
		"EXACTLY_KAFKA_BROKERS=" + shared.Stack.Brokers(), "EXACTLY_REGISTRY_URL=" + shared.Stack.RegistryURL(), "EXACTLY_POSTGRES_DSN=" + dsn,
		"EXACTLY_GROUP=" + name, "EXACTLY_TOPICS_INPUT=" + name + ".in", "EXACTLY_TOPICS_OUTPUT=" + name + ".out", "EXACTLY_TOPICS_DLQ=" + name + ".dlq",
		"EXACTLY_LEDGER_HEADS_TOPIC=" + name + ".heads",
		fmt.Sprintf("EXACTLY_TOPICS_PARTITIONS=%d", partitions), "EXACTLY_HTTP_ADDR=", "EXACTLY_KAFKA_SESSION_TIMEOUT=3s", "EXACTLY_KAFKA_HEARTBEAT_INTERVAL=300ms",
		"EXACTLY_KAFKA_STABLE_TIMEOUT=300ms", "EXACTLY_BATCH_MAX_RECORDS=100", "EXACTLY_LOG_LEVEL=debug", "EXACTLY_FAILPOINT_DIR=" + b.dir,
	}, with...)
	b.cfg, err = config.Load("", b.env, nil)
	require.NoError(t, err)
	_, err = provision.Setup(ctx, &b.cfg, provision.Options{Log: zap.NewNop()})
	require.NoError(t, err)
	b.db, err = pgxpool.New(ctx, dsn)
	require.NoError(t, err)
	t.Cleanup(b.db.Close)
	b.adm, err = admin.New(&b.cfg, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(b.adm.Close)
	return b
}

// exactly runs the program to its end.
func (b *bundle) exactly(args ...string) (string, int) { return b.with(nil, args...) }

func (b *bundle) with(env []string, args ...string) (string, int) {
	cmd := exec.CommandContext(b.ctx, shared.Bin, args...)
	cmd.Env = append(append(os.Environ(), b.env...), env...)
	out, err := cmd.CombinedOutput()
	require.NotNil(b.t, cmd.ProcessState, err)
	return string(out), cmd.ProcessState.ExitCode()
}

// must runs the program to its end, which has to be a good one.
func (b *bundle) must(args ...string) string {
	b.t.Helper()
	out, code := b.exactly(args...)
	require.Zero(b.t, code, "%v: %s", args, out)
	return out
}

func (b *bundle) generate(n int) {
	b.t.Helper()
	b.must("generate", "--rate", "0", "--count", fmt.Sprint(n), "--seed", fmt.Sprint(b.sent+1), "--bad-share", "0.02")
	b.sent += int64(n)
}

func (b *bundle) exec(sql string, args ...any) {
	b.t.Helper()
	_, err := b.db.Exec(b.ctx, sql, args...)
	require.NoError(b.t, err, sql)
}

func (b *bundle) scalar(sql string, args ...any) (n int64) {
	b.t.Helper()
	require.NoError(b.t, b.db.QueryRow(b.ctx, sql, args...).Scan(&n), sql)
	return n
}

// daysAgo lets captures take place so many days ago, by the database's clock, in a day's partition if there is to be one.
func (b *bundle) daysAgo(n int, partition bool) (suffix string) {
	b.t.Helper()
	day := time.Now().UTC().AddDate(0, 0, -n)
	if partition {
		b.exec(`SELECT exactly_make_time_partitions($1, $2)`, day.AddDate(0, 0, -1), day.AddDate(0, 0, 1)) // midnight may pass
		b.exec(`SELECT exactly_grant()`)
	}
	for table, column := range map[string]string{"outbox": "created_at", "dead_letters": "created_at", "enriched_clicks": "captured_at", "offset_ledger": "captured_at"} {
		b.exec(fmt.Sprintf(`ALTER TABLE %s ALTER %s SET DEFAULT now() - interval '%d days'`, table, column, n))
	}
	return day.Format("20060102")
}

// worker is a process of `exactly run`.
type worker struct {
	b    *bundle
	cmd  *exec.Cmd
	done chan struct{}
	log  *bytes.Buffer // read it after done only
}

func (b *bundle) start(id string, with ...string) *worker {
	b.t.Helper()
	w := &worker{b: b, cmd: exec.Command(shared.Bin, "run"), done: make(chan struct{}), log: &bytes.Buffer{}}
	w.cmd.Env = append(append(append(os.Environ(), b.env...), "EXACTLY_WORKER_ID="+id), with...)
	w.cmd.Stdout, w.cmd.Stderr = w.log, w.log
	require.NoError(b.t, w.cmd.Start())
	go func() { defer close(w.done); _ = w.cmd.Wait() }()
	b.t.Cleanup(func() {
		_ = w.cmd.Process.Kill()
		<-w.done
		if b.t.Failed() {
			b.t.Logf("worker %s:\n%s", id, w.log.Bytes()[max(0, w.log.Len()-8000):])
		}
	})
	return w
}

// ended waits until the worker has ended, by itself or because it is asked to.
func (w *worker) ended(ask bool) {
	w.b.t.Helper()
	if ask {
		require.NoError(w.b.t, w.cmd.Process.Signal(syscall.SIGTERM))
	}
	select {
	case <-w.done:
	case <-time.After(patience):
		w.b.t.Fatal("the worker did not end")
	}
}

func (b *bundle) until(what string, ok func() bool) {
	b.t.Helper()
	require.Eventually(b.t, ok, patience, 20*time.Millisecond, what)
}

func (b *bundle) stored() int64 {
	return b.scalar(`SELECT coalesce(sum(next_offset), 0)::bigint FROM partition_offsets`)
}

func (b *bundle) published() (sum int64) {
	g, err := b.adm.GroupOffsets(b.ctx, []int32{0, 1, 2, 3})
	require.NoError(b.t, err)
	for _, o := range g {
		if !o.Pending {
			sum += o.Offset
		}
	}
	return sum
}

// settled waits until everything sent is captured and published.
func (b *bundle) settled() {
	b.t.Helper()
	b.until("all is stored and published", func() bool { return b.stored() == b.sent && b.published() == b.sent })
}

// work runs a worker until all of n more clicks are done, then stops it.
func (b *bundle) work(n int) {
	b.t.Helper()
	b.generate(n)
	w := b.start("w")
	b.settled()
	w.ended(true)
}

// prune runs `exactly prune` and returns its report.
func (b *bundle) prune(want int, args ...string) (r Report) {
	b.t.Helper()
	cmd := exec.CommandContext(b.ctx, shared.Bin, append([]string{"prune", "--json"}, args...)...)
	cmd.Env = append(os.Environ(), b.env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NotNil(b.t, cmd.ProcessState, err)
	require.Equal(b.t, want, cmd.ProcessState.ExitCode(), "%s%s", out, stderr.Bytes())
	require.NoError(b.t, json.Unmarshal(out, &r), "%s", out)
	return r
}

// user is a login role of the server, a member of the role given.
func (b *bundle) user(role string) (env string) {
	b.t.Helper()
	name := b.name + "_" + role
	b.exec(fmt.Sprintf(`CREATE ROLE %s LOGIN PASSWORD 'secret' IN ROLE exactly_%s`, pgx.Identifier{name}.Sanitize(), role))
	u, err := url.Parse(b.cfg.Postgres.DSN)
	require.NoError(b.t, err)
	u.User = url.UserPassword(name, "secret")
	return "EXACTLY_POSTGRES_DSN=" + u.String()
}

func (b *bundle) file(name string) string { return filepath.Join(b.dir, name) }

// table says whether there is one.
func (b *bundle) table(name string) bool {
	return b.scalar(`SELECT count(*) FROM pg_class WHERE oid = to_regclass($1)`, name) == 1
}

// commit sets a group offset by hand, as kafka-consumer-groups does.
func (b *bundle) commit(p int32, at int64, metadata string) {
	b.t.Helper()
	os := kadm.Offsets{}
	os.Add(kadm.Offset{Topic: b.cfg.Topics.Input, Partition: p, At: at, LeaderEpoch: -1, Metadata: metadata})
	require.NoError(b.t, b.adm.Kadm().CommitAllOffsets(b.ctx, b.cfg.Group, os))
}
