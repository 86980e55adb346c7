//go:build e2e

package chaos

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/chaos"
	"github.com/exactly-pipeline/exactly/internal/chaos/rig"
	"github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/stack"
)

var (
	full   = flag.Bool("full", false, "100 kills and a million clicks instead of 40 and half a million")
	seed   = flag.Uint64("seed", 0, "of the schedule and the clicks; 0: by the clock")
	report = flag.String("report", "", "folder for chaos-report.html and .json")
)

var clients = []string{"confluent", "franz"}

// bars are what a run must have come up to.
type bars struct {
	size   chaos.Size
	rig    rig.Size
	clicks int64
	pace   time.Duration
	within time.Duration
}

func wanted() bars {
	b := bars{
		size:   chaos.Size{Kills: 40, Calm: 12, Rounds: 1, Zombies: 8, Terms: 2, Memory: 1, Twins: 1, Session: rig.Session, Between: 3500 * time.Millisecond, Clients: clients},
		rig:    rig.Size{Brokers: 4, Postgres: 4, Disks: 1, Network: 1, Clocks: 1, Storm: 15 * time.Second, Grow: true, Between: 2 * time.Second, Clients: clients},
		clicks: 500_000, pace: 8 * time.Minute, within: 12 * time.Minute,
	}
	if *full {
		b.size.Kills, b.size.Calm, b.size.Rounds, b.size.Zombies, b.size.Terms, b.size.Memory, b.size.Twins = 100, 30, 3, 20, 5, 3, 3
		b.rig.Brokers, b.rig.Postgres, b.rig.Network, b.rig.Clocks, b.rig.Storm = 10, 10, 3, 2, 40*time.Second
		b.clicks, b.pace, b.within = 1_000_000, 22*time.Minute, 30*time.Minute
	}
	return b
}

// TestChaos is `make chaos`.
func TestChaos(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	b := wanted()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	// Not t.TempDir: Postgres' user must be able to walk to its disk.
	dir, err := os.MkdirTemp("", "exactly-chaos-")
	require.NoError(t, err)
	defer os.RemoveAll(dir) //nolint:errcheck // the system's temporary folder
	if err := rig.Disks(dir); err != nil {
		fmt.Println("no disk is filled:", err)
		b.rig.Disks = 0
	}
	starting, stop := context.WithTimeout(ctx, 5*time.Minute)
	defer stop()
	r, err := rig.Start(starting, rig.Options{Dir: dir, Kind: stack.Kafka, Brokers: 3, Disks: b.rig.Disks > 0, Clocks: true})
	require.NoError(t, err)
	closed := false
	defer func() {
		if !closed {
			require.NoError(t, r.Close())
		}
	}()
	rng := chaos.NewRand(*seed)
	schedule := append(chaos.Plan(rng, b.size), rig.Plan(rng, b.rig, true)...)
	logs := t.TempDir()
	if *report != "" {
		require.NoError(t, os.MkdirAll(*report, 0o755))
		logs, err = filepath.Abs(filepath.Join(*report, "logs"))
		require.NoError(t, err)
		require.NoError(t, os.RemoveAll(logs))
		require.NoError(t, os.MkdirAll(logs, 0o755))
	}
	rep, err := chaos.Run(ctx, chaos.Options{
		Exe: bin, Env: r.Env(), WorkerEnv: r.WorkerEnv(), Dir: logs, Seed: *seed, Clicks: b.clicks, Pace: b.pace, Schedule: schedule,
		Inject: r.Inject(), What: r.Name(), Versions: versions(t, ctx, r), Out: os.Stdout, BeforeEnd: r.Heal,
	})
	if rep != nil && *report != "" {
		_, err := rep.Write(*report)
		require.NoError(t, err)
	}
	require.NoError(t, err)
	if rep.Verdict != chaos.Held {
		keepBrokerLogs(t, r, logs)
	}
	closed = true
	require.NoError(t, r.Close())
	require.Equal(t, chaos.Held, rep.Verdict, strings.Join(rep.Why, "\n"))
	require.GreaterOrEqual(t, rep.Kills(), b.size.Kills)
	require.GreaterOrEqual(t, rep.Struck(chaos.Zombie), b.size.Zombies)
	require.GreaterOrEqual(t, rep.Struck(rig.BrokerKill), b.rig.Brokers)
	require.GreaterOrEqual(t, rep.Struck(rig.PGKill, rig.PGStop, rig.PGCopy, rig.PGCommit), b.rig.Postgres)
	require.GreaterOrEqual(t, rep.Audit.Totals.Input, b.clicks)
	at := map[string]int{}
	for _, p := range rep.Points {
		at[p.Name] = p.Struck
	}
	for _, p := range failpoint.OfWorkers() {
		require.GreaterOrEqual(t, at[p], b.size.Rounds, "kills at %s", p)
	}
	if took := time.Duration(rep.TookMs) * time.Millisecond; took > b.within {
		t.Errorf("it took %v, more than %v", took, b.within)
	}
}

// keepBrokerLogs puts what the brokers said beside what the workers did.
func keepBrokerLogs(t *testing.T, r *rig.Rig, dir string) {
	c := r.Stack().Cluster()
	for i := range c.Size() {
		said, err := os.ReadFile(c.Broker(i).LogFile())
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("broker-%d.log", i)), said, 0o600))
	}
}

// versions are what took part.
func versions(t *testing.T, ctx context.Context, r *rig.Rig) []chaos.Version {
	out := []chaos.Version{{Name: "exactly", Version: said(t, "git", "describe", "--tags", "--always", "--dirty")}, {Name: "Apache Kafka", Version: kafkaVersion(t)}}
	out = append(out, chaos.Version{Name: "PostgreSQL", Version: r.PostgresVersion(ctx)})
	mod, err := os.ReadFile("../../go.mod")
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`(?m)^\s(github.com/(?:confluentinc/confluent-kafka-go/v2|twmb/franz-go|jackc/pgx/v5|Shopify/toxiproxy/v2)) (\S+)`).FindAllStringSubmatch(string(mod), -1) {
		out = append(out, chaos.Version{Name: m[1], Version: m[2]})
	}
	return append(out, chaos.Version{Name: "kernel", Version: said(t, "uname", "-sr")}, chaos.Version{Name: "cores", Version: said(t, "nproc")})
}

// kafkaVersion is the one that the stack fetches.
func kafkaVersion(t *testing.T) string {
	pom, err := os.ReadFile("../../internal/stack/jvm/pom.xml")
	require.NoError(t, err)
	m := regexp.MustCompile(`<artifactId>kafka_[0-9.]+</artifactId><version>([^<]+)<`).FindSubmatch(pom)
	require.NotNil(t, m)
	return string(m[1])
}

func said(t *testing.T, name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil { // a tree without its history, say: the run is worth no less
		t.Logf("%s: %v", name, err)
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
