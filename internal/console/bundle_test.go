package console

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/console/guard"
	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/internal/teststack"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

// shared is what all tests of this package use. They run one after the other: one of them stops Postgres.
var shared teststack.Package

func TestMain(m *testing.M) { os.Exit(shared.Run(m, teststack.Start)) }

const (
	patience   = 60 * time.Second
	partitions = 4
)

var nth atomic.Int32

// bundle is one test's world, with a console in this process.
type bundle struct {
	t       testing.TB
	ctx     context.Context
	cfg     config.Config
	env     []string
	db      *pgxpool.Pool
	adm     *admin.Admin
	console *Console
	url     string
	sent    int64
}

// setup makes a world; with are settings, NAME=VALUE.
func setup(t testing.TB, with ...string) *bundle {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	name := fmt.Sprintf("console_%s_%d", regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(t.Name()), "_"), nth.Add(1))
	dsn, err := shared.Stack.NewDatabase(ctx, name)
	require.NoError(t, err)
	b := &bundle{t: t, ctx: ctx}
	b.env = append([]string{
		"EXACTLY_KAFKA_BROKERS=" + shared.Stack.Brokers(), "EXACTLY_REGISTRY_URL=" + shared.Stack.RegistryURL(), "EXACTLY_POSTGRES_DSN=" + dsn,
		"EXACTLY_GROUP=" + name, "EXACTLY_TOPICS_INPUT=" + name + ".in", "EXACTLY_TOPICS_OUTPUT=" + name + ".out", "EXACTLY_TOPICS_DLQ=" + name + ".dlq",
		"EXACTLY_TOPICS_REPLAY=" + name + ".replay", "EXACTLY_TOPICS_PARTITIONS=" + fmt.Sprint(partitions), "EXACTLY_HTTP_ADDR=", "EXACTLY_KAFKA_SESSION_TIMEOUT=3s",
		"EXACTLY_KAFKA_HEARTBEAT_INTERVAL=300ms", "EXACTLY_KAFKA_STABLE_TIMEOUT=300ms", "EXACTLY_BATCH_MAX_RECORDS=200",
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
	b.console, err = New(&b.cfg, Options{Build: "test", Addr: b.cfg.Console.Addr, Log: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(b.console.Close)
	srv := httptest.NewServer(b.console)
	t.Cleanup(srv.Close)
	b.url = srv.URL + Prefix
	return b
}

func (b *bundle) exactly(args ...string) {
	b.t.Helper()
	cmd := exec.CommandContext(b.ctx, shared.Bin, args...)
	cmd.Env = append(os.Environ(), b.env...)
	out, err := cmd.CombinedOutput()
	require.NoError(b.t, err, "exactly %v: %s", args, out)
}

func (b *bundle) generate(n int) {
	b.t.Helper()
	b.exactly("generate", "--rate", "0", "--count", fmt.Sprint(n), "--seed", fmt.Sprint(b.sent+1), "--bad-share", "0.01")
	b.sent += int64(n)
}

// worker is a process of `exactly run`.
type worker struct {
	cmd  *exec.Cmd
	log  teststack.Log
	done chan struct{}
}

func (b *bundle) start(id string) *worker {
	b.t.Helper()
	w := &worker{cmd: exec.Command(shared.Bin, "run"), done: make(chan struct{})}
	w.cmd.Env = append(append(os.Environ(), b.env...), "EXACTLY_WORKER_ID="+id)
	w.cmd.Stdout, w.cmd.Stderr = &w.log, &w.log
	require.NoError(b.t, w.cmd.Start())
	go func() { defer close(w.done); _ = w.cmd.Wait() }()
	b.t.Cleanup(func() {
		_ = w.cmd.Process.Signal(syscall.SIGCONT)
		_ = w.cmd.Process.Kill()
		<-w.done
		if b.t.Failed() {
			b.t.Logf("worker %s:\n%s", id, w.log.Tail())
		}
	})
	return w
}

func (b *bundle) until(what string, ok func() bool) {
	b.t.Helper()
	for began := time.Now(); !ok(); {
		if time.Since(began) > patience || b.ctx.Err() != nil {
			b.t.Fatalf("waited in vain until: %s", what)
		}
		_ = wait.For(b.ctx, 100*time.Millisecond)
	}
}

// stores are what SQL and Kafka say, -1 where there is nothing.
func (b *bundle) stores() (stored, group, end map[int32]int64, epoch map[int32]int64) {
	b.t.Helper()
	stored, group, end, epoch = map[int32]int64{}, map[int32]int64{}, map[int32]int64{}, map[int32]int64{}
	rows, err := b.db.Query(b.ctx, `SELECT source_partition, next_offset, epoch FROM partition_offsets`)
	require.NoError(b.t, err)
	for rows.Next() {
		var p int32
		var next, e int64
		require.NoError(b.t, rows.Scan(&p, &next, &e))
		stored[p], epoch[p] = next, e
	}
	require.NoError(b.t, rows.Err())
	gs, err := b.adm.LastGroupOffsets(b.ctx, []int32{0, 1, 2, 3})
	require.NoError(b.t, err)
	for p, g := range gs {
		if group[p] = -1; g.Has {
			group[p] = g.Offset
		}
	}
	es, err := b.adm.Kadm().ListCommittedOffsets(b.ctx, b.cfg.Topics.Input)
	require.NoError(b.t, err)
	for p := range int32(partitions) {
		o, _ := es.Lookup(b.cfg.Topics.Input, p)
		end[p] = o.Offset
	}
	return stored, group, end, epoch
}

// settled waits until everything sent is in both sinks.
func (b *bundle) settled() {
	b.t.Helper()
	b.until("all is stored and published", func() bool {
		stored, group, _, _ := b.stores()
		var s, g int64
		for p := range int32(partitions) {
			s, g = s+stored[p], g+group[p]
		}
		return s == b.sent && g == b.sent
	})
}

// browser is somebody with cookies.
type browser struct {
	b *bundle
	c *http.Client
}

func (b *bundle) browser() *browser {
	jar, err := cookiejar.New(nil)
	require.NoError(b.t, err)
	return &browser{b, &http.Client{Jar: jar, Timeout: 30 * time.Second}}
}

func (w *browser) get(path string, with ...string) (int, string) {
	w.b.t.Helper()
	r, err := http.NewRequestWithContext(w.b.ctx, http.MethodGet, w.b.url+path, nil)
	require.NoError(w.b.t, err)
	for _, kv := range with {
		k, v, _ := strings.Cut(kv, ": ")
		r.Header.Set(k, v)
	}
	res, err := w.c.Do(r)
	require.NoError(w.b.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(w.b.t, err)
	return res.StatusCode, string(body)
}

var csrf = regexp.MustCompile(`name="csrf" value="([0-9a-f]{64})"`)

// post sends a form of the page at from.
func (w *browser) post(from, path string, v url.Values) (int, string) {
	w.b.t.Helper()
	_, page := w.get(from)
	if m := csrf.FindStringSubmatch(page); m != nil {
		v.Set("csrf", m[1])
	}
	res, err := w.c.PostForm(w.b.url+path, v)
	require.NoError(w.b.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(w.b.t, err)
	return res.StatusCode, string(body)
}

// login is a browser of somebody with a token.
func (b *bundle) login(token string) *browser {
	w := b.browser()
	code, _ := w.post("/login", "/login", url.Values{"token": {token}})
	require.Equal(b.t, http.StatusOK, code)
	return w
}

// people is a file of tokens, with those of a viewer and an operator.
func people(t *testing.T) (file, viewer, operator string) {
	t.Helper()
	viewer, one, err := guard.NewToken("vera", guard.Viewer)
	require.NoError(t, err)
	operator, two, err := guard.NewToken("otto", guard.Operator)
	require.NoError(t, err)
	file = t.TempDir() + "/tokens"
	require.NoError(t, os.WriteFile(file, []byte(one+"\n"+two+"\n"), 0o600))
	return file, viewer, operator
}
