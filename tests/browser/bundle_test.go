//go:build browser

package browser

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/teststack"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

var shared teststack.Package

func TestMain(m *testing.M) { os.Exit(shared.Run(m, teststack.Start)) }

const patience = 90 * time.Second

// world is a deployment, its console, and a browser.
type world struct {
	t   *testing.T
	ctx context.Context // the browser's
	env []string
	db  *pgxpool.Pool
	url string

	mu     sync.Mutex
	errors []string // that the browser's console had
}

func setup(t *testing.T) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	t.Cleanup(cancel)
	name := strings.ToLower(t.Name())
	dsn, err := shared.Stack.NewDatabase(ctx, name)
	require.NoError(t, err)
	w := &world{t: t}
	for k, v := range shared.Stack.Env() {
		w.env = append(w.env, k+"="+v)
	}
	addr := free(t)
	w.env = append(w.env, "EXACTLY_POSTGRES_DSN="+dsn, "EXACTLY_GROUP="+name, "EXACTLY_TOPICS_DLQ=user_clicks_dlq."+name, "EXACTLY_TOPICS_REPLAY=user_clicks_replay."+name,
		"EXACTLY_TOPICS_INPUT=user_clicks."+name, "EXACTLY_TOPICS_OUTPUT=enriched_clicks."+name, "EXACTLY_TOPICS_PARTITIONS=12", "EXACTLY_HTTP_ADDR=",
		"EXACTLY_KAFKA_SESSION_TIMEOUT=3s", "EXACTLY_KAFKA_HEARTBEAT_INTERVAL=300ms", "EXACTLY_LOG_LEVEL=warn", "EXACTLY_CONSOLE_ADDR="+addr, "EXACTLY_CONSOLE_WRITE=true")
	w.db, err = pgxpool.New(ctx, dsn)
	require.NoError(t, err)
	t.Cleanup(w.db.Close)
	w.run(ctx, "setup")
	w.start("", "console")
	w.url = "http://" + addr + "/console"
	w.browse(ctx)
	return w
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

func (w *world) run(ctx context.Context, args ...string) {
	w.t.Helper()
	cmd := exec.CommandContext(ctx, shared.Bin, args...)
	cmd.Env = append(os.Environ(), w.env...)
	out, err := cmd.CombinedOutput()
	require.NoError(w.t, err, "exactly %v: %s", args, out)
}

// start runs a command until the test ends, or it is killed.
func (w *world) start(id string, args ...string) *exec.Cmd {
	w.t.Helper()
	cmd := exec.Command(shared.Bin, args...)
	cmd.Env = append(os.Environ(), w.env...)
	if id != "" {
		cmd.Env = append(cmd.Env, "EXACTLY_WORKER_ID="+id)
	}
	var out teststack.Log
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(w.t, cmd.Start())
	done := make(chan struct{})
	go func() { defer close(done); _ = cmd.Wait() }()
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		if w.t.Failed() {
			w.t.Logf("exactly %v:\n%s", args, out.Tail())
		}
	})
	return cmd
}

// browse starts Chromium. What it must not do: speak to anybody but us.
func (w *world) browse(ctx context.Context) {
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("headless", true), chromedp.Flag("disable-quic", true),
		chromedp.Flag("no-first-run", true), chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.WindowSize(1360, 900), chromedp.ExecPath("/usr/bin/chromium"))
	actx, cancel := chromedp.NewExecAllocator(ctx, opts...)
	w.t.Cleanup(cancel)
	var stop context.CancelFunc
	w.ctx, stop = chromedp.NewContext(actx)
	w.t.Cleanup(stop)
	require.NoError(w.t, chromedp.Listen(w.ctx, func(e any) {
		w.mu.Lock()
		defer w.mu.Unlock()
		switch e := e.(type) {
		case *runtime.EventExceptionThrown:
			w.errors = append(w.errors, e.ExceptionDetails.Text)
		case *runtime.EventConsoleAPICalled:
			if e.Type == "error" || e.Type == "warning" {
				w.errors = append(w.errors, fmt.Sprint(e.Args))
			}
		case *log.EventEntryAdded:
			if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
				w.errors = append(w.errors, e.Entry.Text+" "+e.Entry.URL)
			}
		}
	}))
	_, err := chromedp.Call(w.ctx, log.Enable, cdp.Empty{})
	require.NoError(w.t, err)
	_, err = chromedp.Call(w.ctx, runtime.Enable, cdp.Empty{})
	require.NoError(w.t, err)
	w.until("the console answers", func() bool { return chromedp.Do(w.ctx, chromedp.Navigate(w.url+"/")) == nil })
	w.mu.Lock()
	w.errors = nil // it was asked before it answered
	w.mu.Unlock()
}

func (w *world) do(what string, steps ...chromedp.Action[chromedp.Void]) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	require.NoError(w.t, chromedp.Do(ctx, steps...), what)
}

// eval is what an expression comes to on the page shown.
func eval[T any](w *world, expression string) T {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(w.t, err, "%.200s", expression)
	return v
}

func (w *world) open(path string) {
	w.t.Helper()
	w.do("open "+path, chromedp.Navigate(w.url+path), chromedp.WaitVisible(chromedp.CSS("h1")))
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for began := time.Now(); !ok(); {
		if time.Since(began) > patience || w.ctx.Err() != nil {
			w.t.Fatalf("waited in vain until: %s", what)
		}
		_ = wait.For(w.ctx, 200*time.Millisecond)
	}
}

// text is what an element shows.
func (w *world) text(selector string) string {
	w.t.Helper()
	return eval[string](w, fmt.Sprintf("(document.querySelector(%q) || {innerText: ''}).innerText", selector))
}

func (w *world) size(width, height int64) {
	_, err := chromedp.Call(w.ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 500})
	require.NoError(w.t, err)
}

func (w *world) scheme(is string) {
	_, err := chromedp.Call(w.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: is}}})
	require.NoError(w.t, err)
}

// clean requires that the browser's console had nothing to say.
func (w *world) clean() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Empty(w.t, w.errors)
}

// stored is how many records are captured, and how many of the partitions are this worker's.
func (w *world) stored(worker string) (n int64, owned int) {
	w.t.Helper()
	require.NoError(w.t, w.db.QueryRow(w.ctx, `SELECT coalesce(sum(next_offset), 0)::bigint, count(*) FILTER (WHERE worker = $1) FROM partition_offsets p
		JOIN sources s USING (source_id) WHERE s.topic LIKE 'user_clicks.%'`, worker).Scan(&n, &owned))
	return n, owned
}
