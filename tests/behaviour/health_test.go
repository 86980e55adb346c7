package behaviour

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

// address is one of loopback that nobody listens on.
func address(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// watched is a worker whose health is asked for.
type watched struct {
	*worker
	at string
}

func (b *bundle) watched(id string, with ...string) *watched {
	at := address(b.t)
	return &watched{b.start(id, append(with, "EXACTLY_HTTP_ADDR="+at)...), "http://" + at}
}

// ask returns 0 where nobody answers.
func (w *watched) ask(path string) (int, string) {
	req, err := http.NewRequestWithContext(w.b.ctx, http.MethodGet, w.at+path, http.NoBody)
	require.NoError(w.b.t, err)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	return res.StatusCode, strings.TrimSpace(string(text))
}

// until waits for an answer to one path, and requires that another has the same all along.
func (w *watched) until(path, says string, meanwhile string, stays int) {
	w.b.t.Helper()
	last := ""
	w.b.until(fmt.Sprintf("%s says %q", path, says), func() bool {
		if meanwhile != "" {
			code, text := w.ask(meanwhile)
			require.Equal(w.b.t, stays, code, "%s: %s", meanwhile, text)
		}
		_, text := w.ask(path)
		if text != last {
			last = text
			w.b.t.Logf("%s: %s", path, text)
		}
		return regexp.MustCompile("^(?:" + says + ")$").MatchString(text)
	})
}

const alive = http.StatusOK

// valve stands between a worker and a server, and can be shut: connections are cut and refused; or jammed: nothing comes through.
type valve struct {
	at     string
	how    atomic.Int32
	mu     sync.Mutex
	conns  []net.Conn
	opened sync.Cond
}

const (
	open = iota
	shut
	jammed
)

func newValve(t *testing.T, server string) *valve {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	v := &valve{at: l.Addr().String()}
	v.opened.L = &v.mu
	t.Cleanup(func() { _ = l.Close(); v.turn(shut) })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if v.how.Load() == shut {
				_ = c.Close()
				continue
			}
			s, err := new(net.Dialer).DialContext(t.Context(), "tcp", server)
			if err != nil {
				_ = c.Close()
				continue
			}
			v.mu.Lock()
			v.conns = append(v.conns, c, s)
			v.mu.Unlock()
			go v.carry(s, c)
			go v.carry(c, s)
		}
	}()
	return v
}

func (v *valve) carry(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		v.mu.Lock()
		for v.how.Load() == jammed {
			v.opened.Wait()
		}
		v.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (v *valve) turn(how int32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.how.Store(how)
	v.opened.Broadcast()
	if how == shut {
		for _, c := range v.conns {
			_ = c.Close()
		}
		v.conns = nil
	}
}

// through is a DSN that leads through the valve.
func (v *valve) through(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	u.Host = v.at
	return u.String()
}

// Postgres is away, in either way: alive for longer than anything may be stuck, not ready, and well again when it is back.
func TestHealthPostgresAway(t *testing.T) {
	for name, how := range map[string]int32{"refused": shut, "silent": jammed} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			dsn := b.env["EXACTLY_POSTGRES_DSN"]
			c, err := pgx.ParseConfig(dsn)
			require.NoError(t, err)
			v := newValve(t, net.JoinHostPort(c.Host, fmt.Sprint(c.Port)))
			v.turn(how)
			w := b.watched("a", "EXACTLY_POSTGRES_DSN="+v.through(t, dsn), "EXACTLY_HEALTH_STUCK_AFTER=10s")
			w.until("/startupz", "waits for postgres", "", 0)
			w.until("/readyz", "starting: waits for postgres", "/livez", alive)
			v.turn(open)
			w.until("/startupz", "ok", "/livez", alive)
			b.generate(2000)
			b.settle()
			w.until("/readyz", "ok", "/livez", alive)
			v.turn(how)
			b.generate(200)
			w.until("/readyz", "postgres: it does not answer", "/livez", alive)
			w.stays("/livez", alive, "/readyz", http.StatusServiceUnavailable, 5)
			v.turn(open)
			w.until("/readyz", "ok", "/livez", alive)
			b.settle()
		})
	}
}

// stays requires both answers to be these all along, for so many rounds of a worker's looks at its stores.
func (w *watched) stays(live string, liveCode int, ready string, readyCode, rounds int) {
	w.b.t.Helper()
	for began := time.Now(); time.Since(began) < time.Duration(rounds)*3*time.Second; _ = wait.For(w.b.ctx, 100*time.Millisecond) {
		code, text := w.ask(live)
		require.Equal(w.b.t, liveCode, code, "%s: %s", live, text)
		code, text = w.ask(ready)
		require.Equal(w.b.t, readyCode, code, "%s: %s", ready, text)
	}
}

// Kafka is frozen, on a stack of its own.
func TestHealthKafkaAway(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "env")
	dev := exec.Command(shared.Bin, "dev", "--no-sync", "--data", filepath.Join(dir, "data"), "--env-file", file)
	out, err := dev.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, dev.Start())
	t.Cleanup(func() {
		_ = dev.Process.Signal(syscall.SIGCONT)
		_ = dev.Process.Signal(syscall.SIGTERM) // not Kill: Postgres would write while the directory is removed
		_ = dev.Wait()
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.Contains(lines.Text(), "ready") {
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	env, err := os.ReadFile(file)
	require.NoError(t, err)
	m := regexp.MustCompile(`(?m)^EXACTLY_KAFKA_BROKERS=['"]?([^'"\n]+)`).FindSubmatch(env)
	require.NotNil(t, m, "%s", env)

	b := setup(t, "EXACTLY_KAFKA_BROKERS="+string(m[1]))
	w := b.watched("a", "EXACTLY_HEALTH_STUCK_AFTER=10s")
	b.generate(2000)
	b.settle()
	w.until("/readyz", "ok", "/livez", alive)
	require.NoError(t, dev.Process.Signal(syscall.SIGSTOP))
	w.until("/readyz", "kafka: it does not tell where the input ends", "/livez", alive)
	w.stays("/livez", alive, "/readyz", http.StatusServiceUnavailable, 5)
	require.NoError(t, dev.Process.Signal(syscall.SIGCONT))
	w.until("/readyz", "ok", "/livez", alive)
	b.generate(2000)
	b.settle()
}

// The registry is away: nobody waits while every schema is known, then one partition does.
func TestHealthRegistryAway(t *testing.T) {
	g := newGate(t.Cleanup)
	b := setup(t, "EXACTLY_REGISTRY_URL="+g.url)
	w := b.watched("a", "EXACTLY_HEALTH_STUCK_AFTER=10s")
	b.generate(1000)
	b.settle()
	fresh, _ := b.register(b.cfg.Topics.Input+"-value", writers[0])
	g.away("503")
	known := avro(b.clickID())
	var rs []*kgo.Record
	for i := range 100 {
		rs = append(rs, record(int32(i%partitions), i, known))
	}
	b.produce(rs...)
	b.until("clicks of a known schema go on", func() bool { return b.stored() == b.sent })
	w.until("/readyz", "ok", "/livez", alive)
	b.produce(record(2, 100, fresh))
	w.until("/readyz", "partition 2 waits: registry", "/livez", alive)
	g.away("")
	w.until("/readyz", "ok", "/livez", alive)
	b.settle()
}

// A held partition waits for a person, who is not to be asked by restarts.
func TestHealthHeld(t *testing.T) {
	b := setup(t)
	w := b.watched("a", "EXACTLY_HEALTH_STUCK_AFTER=10s")
	b.generate(1000)
	b.settle()
	w.until("/readyz", "ok", "/livez", alive)
	b.exactly("offsets", "hold", "--partition", "1", "--reason", "a look")
	b.generate(1000) // it finds out at its next capture
	w.until("/readyz", "partition 1 is held", "/livez", alive)
	w.stays("/livez", alive, "/readyz", http.StatusServiceUnavailable, 1)
	b.exactly("offsets", "release", "--partition", "1")
	w.until("/readyz", "ok", "/livez", alive)
	b.settle()
}

// The program stands still, at a place where it has no reason to: not alive, until it goes on.
func TestHealthStuck(t *testing.T) {
	for point, says := range map[string]string{
		fp.EngineLoop:      "the worker's loop has not gone round for .*",
		fp.CaptureBefore:   "partition . is consuming, has work, and has not got on for .*",
		fp.PublishProduced: "partition . is consuming, has work, and has not got on for .*",
		fp.ClaimBefore:     "partition . is claiming, has work, and has not got on for .*",
	} {
		t.Run(point, func(t *testing.T) {
			b := setup(t, "EXACTLY_KAFKA_SESSION_TIMEOUT=30s") // nobody is to take it for dead before it says so itself
			at := "@1"
			if point == fp.EngineLoop {
				at = "@30" // it has joined
			}
			w := b.watched("a", failpoint(point+"=hold"+at), "EXACTLY_HEALTH_STUCK_AFTER=10s")
			w.until("/startupz", "ok", "", 0)
			b.generate(2000)
			b.until("it is held at "+point, func() bool { return b.hit(point) })
			w.until("/livez", says, "", 0)
			code, text := w.ask("/readyz")
			require.Equal(t, http.StatusServiceUnavailable, code, text)
			b.release(point)
			w.until("/livez", "ok", "", 0)
			w.until("/readyz", "ok", "/livez", alive)
			b.settle()
		})
	}
}

// The database lacks a migration that the program needs: not ready. It is ahead: an upgrade, and ready.
func TestHealthMigrations(t *testing.T) {
	b := setup(t)
	w := b.watched("a")
	w.until("/startupz", "ok", "", 0)
	w.until("/readyz", "ok", "/livez", alive)
	_, err := b.db.Exec(b.ctx, `UPDATE goose_db_version SET is_applied = false WHERE version_id = (SELECT max(version_id) FROM goose_db_version)`)
	require.NoError(t, err)
	w.until("/readyz", `postgres: it is at migration \d+, this program needs \d+: run exactly migrate`, "/livez", alive)
	_, err = b.db.Exec(b.ctx, `UPDATE goose_db_version SET is_applied = true`)
	require.NoError(t, err)
	w.until("/readyz", "ok", "/livez", alive)
	_, err = b.db.Exec(b.ctx, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, true)`)
	require.NoError(t, err)
	b.generate(500)
	b.until("all of it is captured", func() bool { return b.stored() == b.sent })
	w.stays("/livez", alive, "/readyz", http.StatusOK, 1)
}
