// Package bench measures what a worker moves, whole processes side by side on one machine: workers with each client, the limits that bare
// clients and a bare COPY set, and another program for the same job, all on the same broker and Postgres, one after the other. No test
// depends on a figure.
package bench

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	total    = flag.Int("clicks", 1_000_000, "clicks already in the topic when a program starts")
	parts    = flag.Int("partitions", 12, "of each topic")
	peer     = flag.Bool("peer", false, "run Kafka Streams and a JDBC sink, too (Maven)")
	audit    = flag.Bool("audit", false, "have the audit look at what each worker has written")
	profiles = flag.String("profile", "", "`folder` for a CPU and an allocation profile of each worker")
	set      = flag.String("set", "", "settings of the workers, `EXACTLY_…=value` separated by commas")
	rates    = flag.String("rates", "100,1000,10000,50000", "clicks a second whose latency is measured")
	lasts    = flag.Duration("lasts", 15*time.Second, "how long each rate is sent")
	built    = flag.String("bin", "", "`program` to measure; empty: built from this tree")
	stays    = flag.String("stack", "", "`folder` to keep the stack's data in; empty: a temporary one")
)

// TestMain is also where the bare clients begin: they are this program once more, since a process is what is measured.
func TestMain(m *testing.M) {
	if r := os.Getenv(roleVariable); r != "" {
		if err := roles[r](context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, r+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	os.Exit(m.Run())
}

// BenchmarkBothSinks has all clicks in the topic, and measures each program from its start until all of them are committed in Kafka, and in
// Postgres where it writes there. -bench 'BothSinks/worker' takes some of them.
func BenchmarkBothSinks(b *testing.B) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	r := newRig(ctx, b)
	for _, c := range contenders() {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				r.measure(ctx, b, c)
			}
		})
	}
	require.NoError(b, r.stack.Err())
}

// contender is a program, or several of its kind, that is measured.
type contender struct {
	name    string
	workers int
	prepare func(context.Context, testing.TB, *place)
	start   func(context.Context, testing.TB, *place, int) *program
	kafka   bool // it commits offsets of the input, and writes as many events
	rows    func(p *place) string
	settled bool // an audit can look at it
}

func contenders() []contender {
	var all []contender
	for _, client := range []string{"confluent", "franz"} {
		all = append(all, contender{name: "limit/copied/client=" + client, workers: 1, prepare: makeTopics, start: bare("copy-" + client), kafka: true})
	}
	for _, n := range []string{"1", "2"} {
		all = append(all, contender{name: "limit/COPY/connections=" + n, workers: 1, prepare: makeTables, start: bare("rows-" + n), rows: sumOfOffsets})
	}
	if *peer {
		all = append(all, contender{name: "peer/streams+jdbc/connections=2", workers: 1, prepare: makePeer, start: startPeer, kafka: true, rows: peerRows})
	}
	for _, client := range []string{"confluent", "franz"} {
		for _, n := range []int{1, 2, 4} {
			name := fmt.Sprintf("worker/client=%s/workers=%d", client, n)
			all = append(all, contender{name: name, workers: n, prepare: setUp, start: startWorker(client), kafka: true, rows: sumOfOffsets, settled: true})
		}
	}
	return all
}
