package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/teststack"
)

// program is one process that is measured.
type program struct {
	cmd  *exec.Cmd
	log  *teststack.Log
	http string // where its profiles are; empty: nowhere
}

// launch starts a program.
func launch(tb testing.TB, cmd *exec.Cmd) *program {
	p := &program{cmd: cmd, log: &teststack.Log{}}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	require.NoError(tb, cmd.Start())
	return p
}

func (p *program) stop(tb testing.TB) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	err := p.cmd.Wait()
	if s, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); err != nil && !(ok && s.Signal() == syscall.SIGTERM) {
		tb.Logf("%v: %v\n%s", p.cmd.Args, err, p.log.Tail())
	}
}

func startWorker(client string) func(context.Context, testing.TB, *place, int) *program {
	return func(ctx context.Context, tb testing.TB, p *place, i int) *program {
		cmd := exec.CommandContext(ctx, p.bin, "run")
		addr := ""
		if *profiles != "" {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(tb, err)
			addr = l.Addr().String()
			require.NoError(tb, l.Close())
		}
		cmd.Env = p.environ("EXACTLY_HTTP_ADDR="+addr, fmt.Sprint("EXACTLY_WORKER_ID=worker-", i), "EXACTLY_KAFKA_CLIENT="+client)
		w := launch(tb, cmd)
		w.http = addr
		return w
	}
}

// measure runs a contender once and reports what it took.
func (r *rig) measure(ctx context.Context, b *testing.B, c contender) {
	b.StopTimer()
	defer b.StartTimer()
	p := r.place(c.name)
	p.clear(ctx, b)
	c.prepare(ctx, b, p)
	var conn *pgx.Conn
	if c.rows != nil {
		var err error
		conn, err = pgx.Connect(ctx, p.dsn)
		require.NoError(b, err)
		defer conn.Close(ctx) //nolint:errcheck // the stack goes with it
	}
	broker, postgres := r.stack.Cluster().Broker(0).PID(), r.stack.PostgresPID()
	brokerBefore, postgresBefore := used(broker), used(postgres)
	wal := walAt(ctx, b, conn)

	start := time.Now()
	var programs []*program
	for i := range c.workers {
		programs = append(programs, c.start(ctx, b, p, i))
	}
	if *profiles != "" && programs[0].http != "" {
		go profile(p.group, programs[0].http)
	}
	r.await(ctx, b, p, c, conn, programs)
	took := time.Since(start)
	var own usage
	for _, w := range programs {
		own = own.plus(used(w.cmd.Process.Pid))
	}
	brokerUsed, postgresUsed := used(broker).since(brokerBefore), used(postgres).since(postgresBefore)
	walBytes := walAt(ctx, b, conn) - wal
	if *profiles != "" && programs[0].http != "" {
		fetch(programs[0].http+"/debug/pprof/allocs", p.group+"-allocs.pprof")
	}
	for _, w := range programs {
		w.stop(b)
	}
	if c.kafka {
		require.EqualValues(b, *total, r.readable(ctx, b, p.output, int64(*total)), "events a reader of committed ones gets")
	}
	if c.settled && *audit {
		p.do(ctx, b, "audit", "--settled")
	}
	p.clear(ctx, b)
	million := float64(*total) / 1e6
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(*total)/took.Seconds(), "clicks/s")
	b.ReportMetric(own.cpu.Seconds()/million, "program-cpu-s/M")
	b.ReportMetric(brokerUsed.cpu.Seconds()/million, "broker-cpu-s/M")
	b.ReportMetric(postgresUsed.cpu.Seconds()/million, "postgres-cpu-s/M")
	b.ReportMetric(float64(own.peak)/(1<<20), "program-MiB-peak")
	b.ReportMetric(float64(brokerUsed.written)/float64(*total), "broker-B-written/click")
	b.ReportMetric(float64(postgresUsed.written)/float64(*total), "postgres-B-written/click")
	b.ReportMetric(float64(walBytes)/float64(*total), "wal-B/click")
}

// await waits until everything is committed in each sink of the contender's.
func (r *rig) await(ctx context.Context, b *testing.B, p *place, c contender, conn *pgx.Conn, programs []*program) {
	want := int64(*total)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	until := time.Now().Add(10 * time.Minute)
	var events, rows int64
	for {
		if c.rows == nil {
			rows = want
		} else if rows < want {
			rows = p.stored(ctx, conn, c.rows(p))
		}
		if !c.kafka {
			events = want
		} else if rows >= want {
			events = r.committed(ctx, b, p.group)
		}
		if rows >= want && events >= want {
			return
		}
		<-tick.C
		if time.Now().After(until) || ctx.Err() != nil {
			for _, w := range programs {
				w.stop(b)
				b.Log(w.log.Tail())
			}
			b.Fatalf("not done: %d rows, %d events", rows, events)
		}
	}
}

func walAt(ctx context.Context, tb testing.TB, conn *pgx.Conn) (n int64) {
	if conn != nil {
		require.NoError(tb, conn.QueryRow(ctx, `SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint`).Scan(&n))
	}
	return n
}

// profile fetches the CPU profile of ten seconds in the middle.
func profile(name, addr string) {
	time.Sleep(3 * time.Second)
	fetch(addr+"/debug/pprof/profile?seconds=10", name+"-cpu.pprof")
}

func fetch(url, file string) {
	res, err := http.Get("http://" + url)
	if err != nil {
		return // it has ended before
	}
	defer res.Body.Close() //nolint:errcheck // read
	f, err := os.Create(filepath.Join(*profiles, strings.TrimPrefix(file, "g-")))
	if err != nil {
		return
	}
	_, _ = io.Copy(f, res.Body)
	_ = f.Close()
}
