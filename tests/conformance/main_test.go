// Package conformance holds Kafka and the schema registry to what the pipeline leans on, rule by rule, on whichever stack it is pointed
// at: the embedded one, Apache Kafka with one broker or three, srfake or Apicurio Registry.
//
// Each rule has a name and the reason why it matters. Where a stack is known to do otherwise, the table of differences says what it does
// instead, and that is asserted, too: a difference that goes away is found as surely as one that appears.
package conformance

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/internal/stack"
	"github.com/exactly-pipeline/exactly/internal/teststack"
)

// stacks are those that the tables know.
var stacks = []string{"embedded", "kafka", "kafka3"}

// shared is the stack of all rules. Each rule has topics, a group and subjects of its own.
var shared struct {
	name, brokers, registry string
	said                    report
}

func allRules() []rule { return slices.Concat(brokerRules(), registryRules()) }

func brokerRules() []rule {
	return slices.Concat(transactionRules, stableRules, fencingRules, membershipRules, recordRules, logRules, producerRules)
}

// Most rules wait for a timeout of the broker's, not for a processor.
const parallel = "8"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	if err := flag.Set("test.parallel", parallel); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "exactly-conformance-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the system's temporary folder
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if shared.name = os.Getenv(teststack.Variable); shared.name == "" {
		shared.name = stacks[0]
	}
	at := time.Now()
	s, err := teststack.Start(ctx, stack.Options{Dir: dir, Only: stack.Broker | stack.Registry})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer s.Stop() //nolint:errcheck // its directory goes as well
	shared.brokers, shared.registry = s.Brokers(), s.RegistryURL()
	started := time.Since(at)
	code := m.Run()
	if testing.Verbose() {
		list(os.Stdout)
		fmt.Printf("the stack took %.1f s to start, the rules %.1f s\n", started.Seconds(), time.Since(at).Seconds()-started.Seconds())
	}
	return code
}

// list prints what became of each rule, and why it is there.
func list(w io.Writer) {
	fmt.Fprintf(w, "\nrules on the stack %q:\n", shared.name)
	for _, r := range allRules() {
		for _, client := range r.by {
			o, ok := shared.said.told[r.name+"/"+client]
			if !ok {
				continue
			}
			fmt.Fprintf(w, "  %-8s %-30s %-10s %s\n", o.result, r.name, client, r.leans)
			for _, d := range o.differs {
				fmt.Fprintf(w, "  %51s %s: %s\n", "", d.point, d.instead)
			}
		}
	}
}

func TestBrokers(t *testing.T)    { check(t, brokerRules()) }
func TestRegistries(t *testing.T) { check(t, registryRules()) }

func check(t *testing.T, rules []rule) {
	for i := range rules {
		r := &rules[i]
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			if len(r.by) == 1 {
				try(t, r, r.by[0])
				return
			}
			for _, client := range r.by {
				t.Run(client, func(t *testing.T) {
					t.Parallel()
					try(t, r, client)
				})
			}
		})
	}
}

func try(t *testing.T, r *rule, client string) {
	w := newWorld(t, r, client)
	defer func() { shared.said.tell(w) }()
	r.holds(w)
	for _, d := range differs {
		if d.rule == r.name && d.on(shared.name, client) && !w.asked[d.point] {
			t.Errorf("nothing was observed at %q, which the table of differences names", d.point)
		}
	}
	require.Equal(t, client != "", w.clients, "the rule is tried with the wrong clients")
}
