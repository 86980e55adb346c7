// Package rollout does with worker processes what Kubernetes does with the pods of a StatefulSet: a rolling restart, and a scale up and down, under load.
// The audit has to be clean after each, and no partition may stand still for longer than five seconds while there is something to do.
package rollout

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
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
	partitions  = 6
	session     = 20 * time.Second // a member that is gone and has not left is missed this long: four times what a partition may stand still
	mayStand    = 5 * time.Second
	rate        = 600 // clicks a second: some for each partition at every look
	patience    = 60 * time.Second
	statefulSet = "exactly"
)

var shared teststack.Package

func TestMain(m *testing.M) { os.Exit(shared.Run(m, teststack.Join)) }

var worlds atomic.Int64

// cluster is a StatefulSet of worker processes, on a stack.
type cluster struct {
	t        *testing.T
	ctx      context.Context
	cfg      config.Config
	env      []string
	db       *pgxpool.Pool
	adm      *admin.Admin
	replicas atomic.Int64 // what the StatefulSet asks for
	asked    atomic.Int64 // how often a pod asked for that
	pods     map[int]*process
}

// process is one run of the program.
type process struct {
	cmd  *exec.Cmd
	log  teststack.Log
	done chan struct{}
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	name := "rollout_" + regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(t.Name()), "_") + fmt.Sprint("_", worlds.Add(1))
	dsn, err := shared.Stack.NewDatabase(ctx, name)
	require.NoError(t, err)
	c := &cluster{t: t, ctx: ctx, pods: map[int]*process{}}
	env := shared.Stack.Env()
	for k, v := range map[string]string{
		"EXACTLY_POSTGRES_DSN": dsn, "EXACTLY_GROUP": name, "EXACTLY_TOPICS_INPUT": name + ".in", "EXACTLY_TOPICS_OUTPUT": name + ".out", "EXACTLY_TOPICS_DLQ": name + ".dlq",
		"EXACTLY_TOPICS_REPLAY": "", "EXACTLY_LEDGER_HEADS_TOPIC": name + ".heads", "EXACTLY_TOPICS_PARTITIONS": fmt.Sprint(partitions), "EXACTLY_HTTP_ADDR": "",
		"EXACTLY_KAFKA_SESSION_TIMEOUT": session.String(), "EXACTLY_KAFKA_HEARTBEAT_INTERVAL": "300ms",
	} {
		env[k] = v
	}
	for k, v := range env {
		c.env = append(c.env, k+"="+v)
	}
	c.cfg, err = config.Load("", c.env, nil)
	require.NoError(t, err)
	c.env = append(c.env, c.kubernetes()...)
	c.db, err = pgxpool.New(ctx, dsn)
	require.NoError(t, err)
	t.Cleanup(c.db.Close)
	c.adm, err = admin.New(&c.cfg, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(c.adm.Close)
	setup := c.start("setup")
	<-setup.done
	require.Zero(t, setup.cmd.ProcessState.ExitCode(), setup.log.Tail())
	return c
}

// kubernetes is the API as far as a pod asks it, and how a pod is told of it.
func (c *cluster) kubernetes() []string {
	api := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		require.Equal(c.t, "/apis/apps/v1/namespaces/here/statefulsets/"+statefulSet, r.URL.Path)
		c.asked.Add(1)
		fmt.Fprintf(w, `{"spec": {"replicas": %d}}`, c.replicas.Load()) //nolint:errcheck // a test's
	}))
	api.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	api.StartTLS()
	c.t.Cleanup(api.Close)
	dir := c.t.TempDir()
	for name, content := range map[string]string{
		"token": "a-token", "namespace": "here", "ca.crt": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw})),
	} {
		require.NoError(c.t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	host, port, err := net.SplitHostPort(strings.TrimPrefix(api.URL, "https://"))
	require.NoError(c.t, err)
	return []string{"KUBERNETES_SERVICE_HOST=" + host, "KUBERNETES_SERVICE_PORT=" + port, "EXACTLY_KUBERNETES_ACCOUNT_DIR=" + dir}
}

// start runs the program; with are arguments, and NAME=VALUE for its environment.
func (c *cluster) start(with ...string) *process {
	c.t.Helper()
	p := &process{done: make(chan struct{})}
	p.cmd = exec.Command(shared.Bin)
	p.cmd.Env = append(os.Environ(), c.env...)
	for _, a := range with {
		if strings.HasPrefix(a, "EXACTLY_") {
			p.cmd.Env = append(p.cmd.Env, a)
		} else {
			p.cmd.Args = append(p.cmd.Args, a)
		}
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	require.NoError(c.t, p.cmd.Start())
	go func() { _ = p.cmd.Wait(); close(p.done) }() //nolint:errcheck // how it ended is in ProcessState
	c.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
		if c.t.Failed() {
			c.t.Logf("%v:\n%s", with, p.log.Tail())
		}
	})
	return p
}

func pod(n int) string { return fmt.Sprintf("%s-%d", statefulSet, n) }

// up starts pods as Kubernetes does, each with the same settings and its own name.
func (c *cluster) up(ordinals ...int) {
	c.t.Helper()
	for _, n := range ordinals {
		c.pods[n] = c.start("run", "EXACTLY_WORKER_ID="+pod(n), "EXACTLY_KUBERNETES_STATEFUL_SET="+statefulSet)
	}
}

// down ends pods as Kubernetes does, by SIGTERM, and requires that each ends well.
func (c *cluster) down(ordinals ...int) {
	c.t.Helper()
	for _, n := range ordinals {
		require.NoError(c.t, c.pods[n].cmd.Process.Signal(syscall.SIGTERM))
	}
	for _, n := range ordinals {
		select {
		case <-c.pods[n].done:
		case <-time.After(15 * time.Second):
			c.t.Fatalf("%s did not end", pod(n))
		}
		require.Zero(c.t, c.pods[n].cmd.ProcessState.ExitCode(), c.pods[n].log.Tail())
	}
}

func (c *cluster) until(what string, ok func() bool) {
	c.t.Helper()
	for began := time.Now(); !ok(); {
		if time.Since(began) > patience || wait.For(c.ctx, 50*time.Millisecond) != nil {
			c.t.Fatalf("in vain: %s", what)
		}
	}
}

// owners are who captures each partition.
func (c *cluster) owners() map[int32]string {
	c.t.Helper()
	out := map[int32]string{}
	rows, err := c.db.Query(c.ctx, `SELECT source_partition, worker FROM partition_offsets`)
	require.NoError(c.t, err)
	defer rows.Close()
	for rows.Next() {
		var p int32
		var w *string
		require.NoError(c.t, rows.Scan(&p, &w))
		if w != nil {
			out[p] = *w
		}
	}
	require.NoError(c.t, rows.Err())
	return out
}

// spread waits until exactly these pods have all partitions between them, evenly: no rebalance is to come then.
func (c *cluster) spread(ordinals ...int) map[int32]string {
	c.t.Helper()
	want := map[string]bool{}
	for _, n := range ordinals {
		want[pod(n)] = true
	}
	var now map[int32]string
	c.until(fmt.Sprintf("pods %v have all partitions", ordinals), func() bool {
		now = c.owners()
		have := map[string]int{}
		for _, w := range now {
			if !want[w] {
				return false
			}
			have[w]++
		}
		for _, n := range have {
			if n < partitions/len(want) || n > (partitions+len(want)-1)/len(want) {
				return false
			}
		}
		return len(now) == partitions && len(have) == len(want)
	})
	return now
}

// clean waits until all that was generated is in both sinks, and has the audit look.
func (c *cluster) clean(generated int64) {
	c.t.Helper()
	c.until("all is in both sinks", func() bool { s, g := c.positions(); return sum(s) == generated && sum(g) == generated })
	o, err := connect.Audit(&c.cfg)
	require.NoError(c.t, err)
	o.Settled = true
	r, err := audit.Run(c.ctx, o)
	require.NoError(c.t, err)
	require.True(c.t, r.Clean(), "%+v", r)
}
