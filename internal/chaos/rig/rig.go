// Package rig owns the stack that a run of chaos may break: brokers, Postgres, the registry, disks, and one worker's network.
//
// It promises that whatever it broke is whole again when a fault is over, as far as that is possible, and that nothing of it is left when it
// is closed: no process, no mount. It never touches a worker but by what is between that worker and the stores, and never another stack.
package rig

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/chaos"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/internal/stack"
	"github.com/exactly-pipeline/exactly/internal/stack/apache"
	"github.com/exactly-pipeline/exactly/internal/stack/child"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

// Session is the workers' session timeout.
const Session = 3 * time.Second

// WorkerN is the worker whose network is struck.
const WorkerN = "chaos-n"

// The faults of a rig.
const (
	BrokerKill  chaos.Kind = "broker killed"
	BrokerStop  chaos.Kind = "broker stopped and started"
	BrokerDisk  chaos.Kind = "broker's disk full"
	PGKill      chaos.Kind = "Postgres killed"
	PGStop      chaos.Kind = "Postgres stopped at once and restarted"
	PGCopy      chaos.Kind = "Postgres stopped in the middle of a COPY"
	PGCommit    chaos.Kind = "Postgres stopped in the middle of a COMMIT"
	PGSessions  chaos.Kind = "workers' Postgres sessions terminated"
	PGDisk      chaos.Kind = "Postgres' disk full"
	ClockJump   chaos.Kind = "broker's clock jumps"
	RegistryOff chaos.Kind = "schema registry away"
	Net         chaos.Kind = "network"
	EndTxnLost  chaos.Kind = "the answer to EndTxn lost"
	EndTxnLate  chaos.Kind = "EndTxn delivered after the worker gave up"
	CommitLost  chaos.Kind = "the answer to COMMIT lost"
)

// Which way a clock jumps.
const (
	forward = "an hour forward"
	back    = "ten seconds back"
)

// Options say what to break.
type Options struct {
	Dir      string // for everything, there already
	Kind     stack.Kind
	Brokers  int
	Clocks   bool              // brokers' wall clocks that can jump: needs a C compiler
	Disks    bool              // file systems of their own, that can be full: needs root
	Settings map[string]string // further EXACTLY_ settings of the workers
	Say      func(string)
}

// Rig is a running stack with what it takes to break it.
type Rig struct {
	opt   Options
	stack *stack.Stack
	env   map[string]string
	cfg   config.Config
	net   *network
	reg   *proxy
	disks []*disk
	pg    sync.Mutex // one fault of Postgres at a time
	kafka sync.Mutex // one broker away at a time: two of three are needed
}

// Start starts the stack and sets it up.
func Start(ctx context.Context, o Options) (_ *Rig, err error) {
	r := &Rig{opt: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	// Postgres does not run as root: its user must be able to walk to a disk of its own.
	if err := os.Chmod(o.Dir, 0o711); err != nil {
		return nil, err
	}
	so := stack.Options{Dir: filepath.Join(o.Dir, "stack"), Kind: o.Kind, NoSyncKafka: true, NoSyncPostgres: true, Log: zap.NewNop()}
	ports := make([]int, o.Brokers)
	if o.Kind == stack.Kafka {
		for i := range ports {
			if ports[i], err = child.FreePort(0); err != nil {
				return nil, err
			}
		}
		so.Apache = apache.Options{
			Brokers: o.Brokers, Revive: true,
			Listeners:  []apache.Listener{{Name: "PROXIED", Protocol: "PLAINTEXT", Advertise: ports}},
			Properties: map[string]string{"num.network.threads": "2", "num.io.threads": "4"},
			JVM:        []string{"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"},
		}
		if o.Disks && o.Brokers > 1 {
			d, err := mountDisk(r.brokerDir(o.Brokers-1), -1)
			if err != nil {
				return nil, err
			}
			r.disks = append(r.disks, d)
		}
		if o.Clocks { // after the disk, which would hide one of them
			if err := r.clocks(ctx, &so.Apache); err != nil {
				return nil, err
			}
		}
	}
	if r.stack, err = stack.Start(ctx, so); err != nil {
		return nil, err
	}
	r.env = r.stack.Env()
	for k, v := range map[string]string{
		"EXACTLY_GROUP": "chaos", "EXACTLY_KAFKA_SESSION_TIMEOUT": Session.String(), "EXACTLY_KAFKA_HEARTBEAT_INTERVAL": "300ms",
		"EXACTLY_KAFKA_STABLE_TIMEOUT": "500ms", "EXACTLY_POSTGRES_LOCK_TIMEOUT": "1s", "EXACTLY_BATCH_MAX_RECORDS": "2000", "EXACTLY_BATCH_DRAIN_RECORDS": "2000",
	} {
		r.env[k] = v
	}
	for k, v := range o.Settings {
		r.env[k] = v
	}
	var pairs []string
	for k, v := range r.env {
		pairs = append(pairs, k+"="+v)
	}
	if r.cfg, err = config.Load("", pairs, nil); err != nil {
		return nil, err
	}
	for { // a registry that has only just started may take longer than one request's patience; setup is safe to repeat
		if _, err = provision.Setup(ctx, &r.cfg, provision.Options{Log: zap.NewNop()}); err == nil {
			break
		}
		if wait.For(ctx, time.Second) != nil {
			return nil, err
		}
	}
	if o.Disks {
		if err := r.moveTables(ctx); err != nil {
			return nil, err
		}
	}
	return r, r.wire(ports)
}

// brokerDir is where a broker keeps everything.
func (r *Rig) brokerDir(id int) string {
	return filepath.Join(r.opt.Dir, "stack", fmt.Sprintf("broker-%d", id))
}

// postgresAt is host:port.
func (r *Rig) postgresAt() string {
	_, rest, _ := strings.Cut(r.stack.DSN(), "@")
	at, _, _ := strings.Cut(rest, "/")
	return at
}

// wire puts proxies before what WorkerN talks to.
func (r *Rig) wire(ports []int) error {
	server := newServer()
	r.net = &network{}
	var err error
	if c := r.stack.Cluster(); c != nil {
		for i := range c.Size() {
			p, err := newProxy(server, fmt.Sprintf("%p-broker-%d", r, i), child.Loopback(ports[i]), c.Broker(i).Addr("PROXIED"))
			if err != nil {
				return err
			}
			r.net.kafka = append(r.net.kafka, p)
		}
	}
	if r.net.postgres, err = newProxy(server, fmt.Sprintf("%p-postgres", r), "127.0.0.1:0", r.postgresAt()); err != nil {
		return err
	}
	// Everybody's way to the registry: to kill it would keep it away for as long as it takes to start, which is the machine's business.
	u, err := url.Parse(r.stack.RegistryURL())
	if err != nil {
		return err
	}
	if r.reg, err = newProxy(server, fmt.Sprintf("%p-registry", r), "127.0.0.1:0", u.Host); err != nil {
		return err
	}
	u.Host = r.reg.Listen
	r.env["EXACTLY_REGISTRY_URL"] = u.String()
	return nil
}

// Env is the settings of the workers, and of whatever looks at the stores.
func (r *Rig) Env() map[string]string { return r.env }

// WorkerEnv is what single workers have beside that, a NAME=VALUE a line.
func (r *Rig) WorkerEnv() map[string]string {
	own := []string{"EXACTLY_POSTGRES_DSN=" + strings.Replace(r.stack.DSN(), r.postgresAt(), r.net.postgres.Listen, 1)}
	var brokers []string
	for _, p := range r.net.kafka {
		brokers = append(brokers, p.Listen)
	}
	if len(brokers) > 0 {
		own = append(own, "EXACTLY_KAFKA_BROKERS="+strings.Join(brokers, ","))
	}
	return map[string]string{WorkerN: strings.Join(own, "\n")}
}

// Name names the stack.
func (r *Rig) Name() string { return r.stack.String() }

// Stack is the stack itself.
func (r *Rig) Stack() *stack.Stack { return r.stack }

// Heal waits until all is whole again: every broker there, every partition with all its replicas.
func (r *Rig) Heal(ctx context.Context) error {
	c := r.stack.Cluster()
	if c == nil {
		return nil
	}
	r.kafka.Lock()
	defer r.kafka.Unlock()
	return r.whole(ctx, c)
}

func (r *Rig) whole(ctx context.Context, c *apache.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := c.AwaitJoined(ctx); err != nil {
		return err
	}
	return c.AwaitInSync(ctx)
}

// Close leaves nothing.
func (r *Rig) Close() error {
	var errs []error
	if r.net != nil {
		for _, p := range append(r.net.kafka, r.net.postgres, r.reg) {
			if p != nil {
				p.tap.letGo()
				p.Stop()
			}
		}
	}
	if r.stack != nil {
		errs = append(errs, r.stack.Stop())
	}
	for _, d := range r.disks {
		errs = append(errs, d.unmount())
	}
	return errors.Join(errs...)
}

// Disks says whether this process may mount file systems that can be filled: nil, or why not. It mounts one, in dir, and takes it away.
func Disks(dir string) error {
	d, err := mountDisk(filepath.Join(dir, "mountable"), -1)
	if err != nil {
		return err
	}
	return d.unmount()
}

// Size is how much happens to a rig.
type Size struct {
	Brokers  int // killed; every fourth one is stopped in an orderly way beside
	Postgres int // killed or stopped
	Network  int // rounds of everything that can befall a network
	Disks    int // rounds
	Storm    time.Duration
	Grow     bool
	Clocks   int // jumps forward, and as many back
	Between  time.Duration
	Clients  []string
}

// Plan draws the faults of the rig from the seed.
func Plan(rng *rand.Rand, s Size, kafka bool) []chaos.Fault {
	var stores, net, members []chaos.Fault
	roles := []string{"partition leader", "group coordinator", "transaction coordinator", "output leader"}
	for i := range s.Brokers {
		stores = append(stores, chaos.Fault{Kind: BrokerKill, Detail: roles[i%len(roles)], For: time.Duration(4+rng.IntN(5)) * time.Second})
		if i%4 == 0 {
			stores = append(stores, chaos.Fault{Kind: BrokerStop, Detail: roles[(i/4+1)%len(roles)], For: 2 * time.Second})
		}
	}
	pg := []chaos.Kind{PGKill, PGCopy, PGStop, PGCommit}
	for i := range s.Postgres {
		f := chaos.Fault{Kind: pg[i%len(pg)], For: time.Duration(rng.IntN(3)) * time.Second}
		if f.Kind == PGCopy || f.Kind == PGCommit {
			f.Worker = chaos.WorkerZ
		}
		stores = append(stores, f)
	}
	if s.Postgres > 0 {
		stores = append(stores, chaos.Fault{Kind: PGSessions}, chaos.Fault{Kind: PGSessions})
	}
	if s.Network > 0 {
		stores = append(stores, chaos.Fault{Kind: RegistryOff, For: 5 * time.Second})
	}
	for range s.Clocks {
		stores = append(stores, chaos.Fault{Kind: ClockJump, Detail: forward, For: 3 * time.Second}, chaos.Fault{Kind: ClockJump, Detail: back, For: 3 * time.Second})
	}
	for range s.Disks {
		stores = append(stores, chaos.Fault{Kind: PGDisk, For: 4 * time.Second}, chaos.Fault{Kind: BrokerDisk})
	}
	for range s.Network {
		for _, t := range troubles {
			net = append(net, chaos.Fault{Kind: Net, Detail: "Postgres: " + t.name})
			if kafka {
				net = append(net, chaos.Fault{Kind: Net, Detail: "Kafka: " + t.name})
			}
		}
		net = append(net, chaos.Fault{Kind: CommitLost})
		if kafka {
			net = append(net, chaos.Fault{Kind: EndTxnLost}, chaos.Fault{Kind: EndTxnLate})
		}
	}
	if s.Storm > 0 {
		members = append(members, chaos.Fault{Kind: chaos.Storm, For: s.Storm})
	}
	if s.Grow {
		members = append(members, chaos.Fault{Kind: chaos.Grow})
	}
	for _, fs := range [][]chaos.Fault{stores, net} {
		rng.Shuffle(len(fs), func(i, j int) { fs[i], fs[j] = fs[j], fs[i] })
	}
	for i := range net {
		net[i].For, net[i].Worker = time.Duration(2+rng.IntN(5))*time.Second, WorkerN
	}
	var all []chaos.Fault
	for _, l := range []struct {
		lane string
		fs   []chaos.Fault
	}{{"stores", stores}, {"network", net}, {"members", members}} {
		for i := range l.fs {
			l.fs[i].Lane = l.lane
			if l.fs[i].Worker == chaos.WorkerZ { // its lane: nobody else may have that worker in hand
				l.fs[i].Lane = "zombies"
			}
		}
		all = append(all, l.fs...)
	}
	chaos.Dress(rng, all, chaos.Size{Between: s.Between, Clients: s.Clients})
	return all
}

// PostgresVersion is what the server says it is.
func (r *Rig) PostgresVersion(ctx context.Context) string {
	conn, err := pgx.Connect(ctx, r.stack.DSN())
	if err != nil {
		return "unknown"
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing left to lose
	var v string
	if err := conn.QueryRow(ctx, "SHOW server_version").Scan(&v); err != nil {
		return "unknown"
	}
	return v
}
