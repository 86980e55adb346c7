package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/stack"
	"github.com/exactly-pipeline/exactly/internal/teststack"
)

const (
	payments = 600
	bad      = payments / 50 // have a currency without a rate
	patience = 100 * time.Second
)

// world is the program, built with failpoints, on a stack.
type world struct {
	t   *testing.T
	ctx context.Context
	bin string
	env []string
	cl  *kgo.Client
	db  *pgx.Conn
}

func setUp(t *testing.T) *world {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	t.Cleanup(cancel)
	dir, err := os.MkdirTemp("", "exactly-payments-") // not the test's own: its name is too long for a socket
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{t: t, ctx: ctx, bin: filepath.Join(dir, "payments")}
	out, err := exec.CommandContext(ctx, "go", "build", "-tags", "failpoints", "-o", w.bin, ".").CombinedOutput()
	require.NoError(t, err, "%s", out)
	s, err := teststack.Start(ctx, stack.Options{Dir: filepath.Join(dir, "stack")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	dsn, err := s.NewDatabase(ctx, "payments")
	require.NoError(t, err)
	env := s.Env()
	for _, k := range []string{"EXACTLY_GROUP", "EXACTLY_TOPICS_INPUT", "EXACTLY_TOPICS_OUTPUT", "EXACTLY_TOPICS_DLQ", "EXACTLY_TOPICS_REPLAY", "EXACTLY_WORKER_ID"} {
		delete(env, k) // the example's own
	}
	env["EXACTLY_POSTGRES_DSN"], env["EXACTLY_HTTP_ADDR"], env["EXACTLY_TOPICS_PARTITIONS"] = dsn, "", "3"
	env["EXACTLY_KAFKA_SESSION_TIMEOUT"], env["EXACTLY_KAFKA_HEARTBEAT_INTERVAL"], env["EXACTLY_KAFKA_STABLE_TIMEOUT"] = "3s", "300ms", "500ms"
	env["EXACTLY_POSTGRES_LOCK_TIMEOUT"], env["EXACTLY_BATCH_MAX_RECORDS"], env["EXACTLY_FAILPOINT_DIR"] = "1s", "40", dir
	for k, v := range env {
		w.env = append(w.env, k+"="+v)
	}
	w.db, err = pgx.Connect(ctx, dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.db.Close(context.Background()) })
	w.cl, err = kgo.NewClient(kgo.SeedBrokers(strings.Split(s.Brokers(), ",")...), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeTopics("booked_payments", "payments_dlq"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords())
	require.NoError(t, err)
	t.Cleanup(w.cl.Close)
	return w
}

func (w *world) command(args ...string) (*exec.Cmd, *log) {
	cmd, l := exec.CommandContext(w.ctx, w.bin, args...), &log{}
	cmd.Env = append(os.Environ(), w.env...)
	cmd.Stdout, cmd.Stderr = l, l
	return cmd, l
}

// killed runs a worker until it is killed at a failpoint.
func (w *world) killed(id, at string) {
	w.t.Helper()
	cmd, l := w.command("run")
	cmd.Env = append(cmd.Env, "EXACTLY_WORKER_ID="+id, "EXACTLY_FAILPOINT="+at)
	err := cmd.Run()
	st, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	require.True(w.t, st.Signaled() && st.Signal() == syscall.SIGKILL, "worker %s ended otherwise: %v\n%s", id, err, l)
}

// payment is the i-th of a test.
func payment(i int) Payment {
	p := Payment{ID: fmt.Sprintf("p-%d", i), Account: fmt.Sprintf("a-%d", i%17), Cents: int64(100 + i), Currency: []string{"EUR", "USD", "CHF"}[i%3], At: time.UnixMilli(1_769_817_600_000 + int64(i)).UTC()}
	if i%50 == 7 {
		p.Currency = "XXX"
	}
	return p
}

// Two workers are killed in the middle, one between its transactions and one within the second. Every payment is booked in both sinks, once.
func TestPaymentsAreBookedOnce(t *testing.T) {
	w := setUp(t)
	for range 2 { // safe to repeat
		cmd, l := w.command("setup")
		require.NoError(t, cmd.Run(), "%s", l)
	}
	var rs []*kgo.Record
	for i := range payments {
		p := payment(i)
		value, err := json.Marshal(p)
		require.NoError(t, err)
		rs = append(rs, &kgo.Record{Topic: "payments", Key: []byte(p.Account), Value: value})
	}
	require.NoError(t, w.cl.ProduceSync(w.ctx, rs...).FirstErr())

	w.killed("a", failpoint.CaptureCommitted+"=kill@2")
	w.killed("b", failpoint.PublishOffsetsSent+"=kill@3")
	last, l := w.command("run")
	last.Env = append(last.Env, "EXACTLY_WORKER_ID=c")
	require.NoError(t, last.Start())
	stopped := sync.OnceValue(func() error { _ = last.Process.Signal(syscall.SIGTERM); return last.Wait() })
	t.Cleanup(func() {
		_ = stopped()
		if t.Failed() {
			t.Log(l.String())
		}
	})
	adm := kadm.NewClient(w.cl)
	require.Eventually(t, func() bool {
		os, err := adm.FetchOffsetsForTopics(w.ctx, "payments", "payments")
		n := int64(0)
		os.Each(func(o kadm.OffsetResponse) { n += max(o.At, 0) })
		return err == nil && n == payments
	}, patience, 100*time.Millisecond, "all payments are published")
	require.NoError(t, stopped())

	want := map[string]int64{} // in euro cents
	rates := Rates{"EUR": 1_000_000, "USD": 920_000, "CHF": 1_060_000}
	for i := range payments {
		if p := payment(i); rates[p.Currency] > 0 {
			want[p.ID] = p.Cents * rates[p.Currency] / 1_000_000
		}
	}
	require.Len(t, want, payments-bad)
	rows := map[string]int64{}
	rw, err := w.db.Query(w.ctx, `SELECT payment_id, euro_cents FROM payments`)
	require.NoError(t, err)
	var id string
	var cents int64
	_, err = pgx.ForEachRow(rw, []any{&id, &cents}, func() error { rows[id] += cents; return nil })
	require.NoError(t, err)
	require.Equal(t, want, rows)
	events, dead := w.published(adm)
	require.Equal(t, want, events)
	require.Equal(t, bad, dead)
	require.NoError(t, w.db.QueryRow(w.ctx, `SELECT count(*) FROM dead_letters`).Scan(&cents))
	require.EqualValues(t, bad, cents)
}

// published is what readers see, in euro cents by payment, and the number of dead letters: all there is up to the topics' stable ends.
func (w *world) published(adm *kadm.Client) (events map[string]int64, dead int) {
	w.t.Helper()
	ends, err := adm.ListCommittedOffsets(w.ctx, "booked_payments", "payments_dlq")
	require.NoError(w.t, err)
	require.NoError(w.t, ends.Error())
	left := map[string]map[int32]int64{}
	n := 0
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			if left[o.Topic] == nil {
				left[o.Topic] = map[int32]int64{}
			}
			left[o.Topic][o.Partition] = o.Offset
			n++
		}
	})
	events = map[string]int64{}
	for n > 0 {
		w.cl.PollFetches(w.ctx).EachRecord(func(r *kgo.Record) {
			if end, ok := left[r.Topic][r.Partition]; ok && r.Offset+1 >= end {
				delete(left[r.Topic], r.Partition)
				n--
			}
			switch {
			case r.Attrs.IsControl():
			case r.Topic == "payments_dlq":
				dead++
			default:
				var b Booked
				require.NoError(w.t, json.Unmarshal(r.Value, &b))
				events[b.ID] += b.EuroCents
				require.Equal(w.t, "exactly-source", r.Headers[0].Key)
			}
		})
		require.NoError(w.t, w.ctx.Err())
	}
	return events, dead
}

// log is what a process says, read while it is written.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
