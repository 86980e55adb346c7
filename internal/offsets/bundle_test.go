package offsets

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/audit"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/internal/wait"
	"github.com/exactly-pipeline/exactly/ledger"
)

const patience = 60 * time.Second // for anything to happen on a crowded machine; nothing waits this long when all is well

var nth atomic.Int32

// bundle is one test's world.
type bundle struct {
	t    *testing.T
	ctx  context.Context
	cfg  config.Config
	env  []string
	desk *Desk
	dir  string
	sent int64
}

func setup(t *testing.T) *bundle {
	t.Helper()
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	name := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(t.Name()), "_")
	name = fmt.Sprintf("offsets_%s_%d", name, nth.Add(1)) // -count
	dsn, err := shared.Stack.NewDatabase(ctx, name)
	require.NoError(t, err)
	b := &bundle{t: t, ctx: ctx, dir: t.TempDir()}
	b.env = []string{
		"EXACTLY_KAFKA_BROKERS=" + shared.Stack.Brokers(), "EXACTLY_REGISTRY_URL=" + shared.Stack.RegistryURL(), "EXACTLY_POSTGRES_DSN=" + dsn,
		"EXACTLY_GROUP=" + name, "EXACTLY_TOPICS_INPUT=" + name + ".in", "EXACTLY_TOPICS_OUTPUT=" + name + ".out", "EXACTLY_TOPICS_DLQ=" + name + ".dlq",
		"EXACTLY_TOPICS_PARTITIONS=4", "EXACTLY_HTTP_ADDR=", "EXACTLY_KAFKA_SESSION_TIMEOUT=3s", "EXACTLY_KAFKA_HEARTBEAT_INTERVAL=300ms",
		"EXACTLY_KAFKA_STABLE_TIMEOUT=300ms", "EXACTLY_BATCH_MAX_RECORDS=100", "EXACTLY_LOG_LEVEL=debug", "EXACTLY_FAILPOINT_DIR=" + b.dir,
	}
	b.cfg, err = config.Load("", b.env, nil)
	require.NoError(t, err)
	_, err = provision.Setup(ctx, &b.cfg, provision.Options{Log: zap.NewNop()})
	require.NoError(t, err)
	b.desk, err = Open(ctx, &b.cfg, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(b.desk.Close)
	return b
}

// exactly runs the program to its end.
func (b *bundle) exactly(args ...string) (string, int) {
	cmd := exec.CommandContext(b.ctx, shared.Bin, args...)
	cmd.Env = append(os.Environ(), b.env...)
	out, err := cmd.CombinedOutput()
	require.NotNil(b.t, cmd.ProcessState, err)
	return string(out), cmd.ProcessState.ExitCode()
}

func (b *bundle) generate(n int) {
	b.t.Helper()
	out, code := b.exactly("generate", "--rate", "0", "--count", fmt.Sprint(n), "--seed", fmt.Sprint(b.sent+1), "--bad-share", "0.01")
	require.Zero(b.t, code, out)
	b.sent += int64(n)
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
	for began := time.Now(); !ok(); { // less often the longer it takes: most of what is asked costs the stores more than the wait does
		waited := time.Since(began)
		if waited > patience || b.ctx.Err() != nil {
			b.t.Fatalf("waited %v in vain until: %s", waited, what)
		}
		_ = wait.For(b.ctx, min(max(waited/10, 20*time.Millisecond), 150*time.Millisecond))
	}
}

func (b *bundle) rows() []*row {
	b.t.Helper()
	rows, err := b.desk.rows(b.ctx, b.desk.db, nil, false)
	require.NoError(b.t, err)
	return rows
}

func (b *bundle) row(p int32) *row {
	b.t.Helper()
	rows, err := b.desk.rows(b.ctx, b.desk.db, []int32{p}, false)
	require.NoError(b.t, err)
	return rows[0]
}

// group is the group offset of a partition, -1 if there is none, -2 if it is not ours, -3 if it is pending.
func (b *bundle) group(p int32) int64 {
	b.t.Helper()
	g, err := b.desk.adm.GroupOffsets(b.ctx, []int32{p})
	require.NoError(b.t, err)
	switch {
	case g[p].Pending:
		return -3
	case !g[p].Has:
		return -1
	case !g[p].Ours:
		return -2
	}
	return g[p].Offset
}

// committed is the group offset once it is not pending: Apache Kafka answers a commit when it is decided, and the offset is there a little later.
func (b *bundle) committed(p int32) (at int64) {
	b.t.Helper()
	b.until("the group offset is stable", func() bool {
		at = b.group(p)
		return at != -3
	})
	return at
}

// settled waits until everything sent is captured and published.
func (b *bundle) settled() {
	b.t.Helper()
	b.until("all is stored and published", func() bool {
		var stored, published int64
		for _, r := range b.rows() {
			stored += r.next
			published += b.group(r.partition)
		}
		return stored == b.sent && published == b.sent
	})
}

// work runs a worker until all of n more clicks are done, then stops it; nobody is left in the group.
func (b *bundle) work(n int) {
	b.t.Helper()
	b.generate(n)
	w := b.start("a")
	b.settled()
	w.ended(true)
	b.empty()
}

func (b *bundle) empty() {
	b.t.Helper()
	b.until("the group is empty", func() bool {
		m, err := b.desk.adm.Members(b.ctx)
		require.NoError(b.t, err)
		return len(m) == 0
	})
}

// reset commits a group offset by hand, as kafka-consumer-groups does.
func (b *bundle) reset(p int32, at int64, metadata string) {
	b.t.Helper()
	os := kadm.Offsets{}
	os.Add(kadm.Offset{Topic: b.cfg.Topics.Input, Partition: p, At: at, LeaderEpoch: -1, Metadata: metadata})
	require.NoError(b.t, b.desk.adm.Kadm().CommitAllOffsets(b.ctx, b.cfg.Group, os))
}

func (b *bundle) audit(settled bool) *audit.Report {
	b.t.Helper()
	r, err := audit.Run(b.ctx, audit.Options{
		Brokers: strings.Split(b.cfg.Kafka.Brokers, ","), DSN: b.cfg.Postgres.DSN, RegistryURL: b.cfg.Registry.URL, Group: b.cfg.Group,
		Input: b.cfg.Topics.Input, Output: b.cfg.Topics.Output, DLQ: b.cfg.Topics.DLQ, Settled: settled,
	})
	require.NoError(b.t, err)
	require.True(b.t, r.Clean(), "audit: %+v", r)
	return r
}

// chain recomputes the ledger of a partition and returns its entries; the last one must be the row's head.
func (b *bundle) chain(p int32) []ledger.Entry {
	b.t.Helper()
	rs, err := b.desk.db.Query(b.ctx, `SELECT `+ledger.Columns+` FROM offset_ledger WHERE source_partition = $1 ORDER BY seq`, p)
	require.NoError(b.t, err)
	var head []byte
	es, err := pgx.CollectRows(rs, func(rs pgx.CollectableRow) (e ledger.Entry, err error) {
		hash, err := e.Scan(rs)
		require.NoError(b.t, err)
		require.Equal(b.t, len(head), len(e.PrevHash), "seq %d", e.Seq)
		require.True(b.t, bytes.Equal(head, e.PrevHash), "seq %d does not follow the entry before", e.Seq)
		require.Equal(b.t, e.Hash(), hash, "seq %d", e.Seq)
		head = hash
		return e, err
	})
	require.NoError(b.t, err)
	for i, e := range es {
		require.EqualValues(b.t, i+1, e.Seq)
	}
	r := b.row(p)
	require.EqualValues(b.t, len(es), r.seq)
	require.Equal(b.t, head, r.head)
	return es
}

// deeds are a partition's ledger entries of a kind.
func (b *bundle) deeds(p int32, k ledger.Kind) []ledger.Entry {
	b.t.Helper()
	var out []ledger.Entry
	for _, e := range b.chain(p) {
		if e.Kind == k {
			out = append(out, e)
		}
	}
	return out
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
