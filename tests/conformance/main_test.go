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
	"strings"
	"testing"
	"time"

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
	if shared.name == "aphand" {
		shared.name = "kafka"
		shared.brokers, shared.registry = "127.0.0.1:39192", "http://127.0.0.1:39180/apis/ccompat/v7"
		return m.Run()
	}
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
		o, ok := shared.said.told[r.name]
		if !ok {
			continue
		}
		fmt.Fprintf(w, "  %-8s %-28s %s\n", o.result, r.name, r.leans)
		for _, p := range o.differs {
			d := find(differs, shared.name, r.name, p)
			fmt.Fprintf(w, "           %-28s differs: %s: %s\n", "", p, strings.TrimSpace(d.instead))
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
			w := newWorld(t, r)
			defer func() { shared.said.tell(w.outcome()) }()
			r.holds(w)
			for _, d := range differs {
				if d.rule == r.name && d.on(shared.name) && !w.asked[d.point] {
					t.Errorf("nothing was observed at %q, which the table of differences names", d.point)
				}
			}
		})
	}
}
