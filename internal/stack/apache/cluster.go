// Package apache owns Apache Kafka's brokers: a cluster of one to nine of them in KRaft mode, each a process of its own that can be killed,
// frozen and started again.
//
// It promises that they listen on loopback only, on the same ports after every start where those are still free, that what was acknowledged
// is there again (one broker: as long as the machine runs; three: two copies of everything), that whoever asks for the leader or the
// coordinator is told the one there is now, and that no broker outlives this process. It never creates a topic but the broker's own.
package apache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/internal/stack/child"
	"github.com/exactly-pipeline/exactly/internal/stack/jvm"
	"github.com/exactly-pipeline/exactly/internal/wait"
)

// pollInterval is how often what tells nobody is asked for.
const pollInterval = 50 * time.Millisecond

// Cluster is a running cluster.
type Cluster struct {
	opt     Options
	brokers []*Broker
	cl      *kgo.Client
	adm     *kadm.Client
}

// Start starts all brokers and returns when each has joined and the coordinators answer. failed is told of a broker that ends by itself
// later on. ctx bounds the start only.
func Start(ctx context.Context, programs *jvm.Programs, o Options, failed func(error)) (_ *Cluster, err error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	if err := o.choosePorts(); err != nil {
		return nil, err
	}
	c := &Cluster{opt: o}
	defer func() {
		if err != nil {
			c.kill()
		}
	}()
	for i := range o.Brokers {
		c.brokers = append(c.brokers, newBroker(&c.opt, programs, i, failed))
	}
	// All at once: none of them is ready without a quorum of the others.
	errs := make([]error, o.Brokers)
	var wg sync.WaitGroup
	for i, b := range c.brokers {
		wg.Go(func() { errs[i] = b.launch(ctx) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	c.cl, err = kgo.NewClient(kgo.SeedBrokers(strings.Split(c.Addrs(Plaintext), ",")...), kgo.MetadataMinAge(pollInterval),
		kgo.RetryBackoffFn(func(int) time.Duration { return pollInterval }))
	if err != nil {
		return nil, err
	}
	c.adm = kadm.NewClient(c.cl)
	if err := c.awaitUsable(ctx); err != nil {
		return nil, fmt.Errorf("wait for the brokers: %w%s", err, c.tails())
	}
	return c, nil
}

// awaitUsable waits until all brokers have joined and the coordinators answer, whose topics are made by their being asked for.
func (c *Cluster) awaitUsable(ctx context.Context) error {
	if err := c.AwaitJoined(ctx); err != nil {
		return err
	}
	return c.poll(ctx, func(ctx context.Context) error {
		_, err := c.GroupCoordinator(ctx, "none")
		if err == nil {
			_, err = c.TxnCoordinator(ctx, "none")
		}
		return err
	})
}

// AwaitJoined waits until every broker that runs is known to the others and serves clients.
func (c *Cluster) AwaitJoined(ctx context.Context) error {
	return c.poll(ctx, func(ctx context.Context) error {
		there, err := c.adm.ListBrokers(ctx)
		if err != nil {
			return err
		}
		known := map[int]bool{}
		for _, b := range there {
			known[int(b.NodeID)] = true
		}
		for _, b := range c.brokers {
			if b.Running() && !known[b.id] {
				return fmt.Errorf("broker %d has not joined yet", b.id)
			}
		}
		return nil
	})
}

// AwaitInSync waits until every partition there is has all of its replicas in sync and is led by its preferred one or another: until one more
// broker may be lost.
func (c *Cluster) AwaitInSync(ctx context.Context) error {
	return c.poll(ctx, func(ctx context.Context) error {
		ts, err := c.adm.ListTopicsWithInternal(ctx)
		if err != nil {
			return err
		}
		for _, t := range ts {
			if t.Err != nil {
				return t.Err
			}
			for _, p := range t.Partitions {
				if p.Err != nil || p.Leader < 0 || len(p.ISR) < len(p.Replicas) {
					return fmt.Errorf("%s/%d: leader %d, in sync %v of %v (%v)", t.Topic, p.Partition, p.Leader, p.ISR, p.Replicas, p.Err)
				}
			}
		}
		return nil
	})
}

// poll asks until there is no error. The last one is told if ctx ends first, or a broker has ended by itself.
func (c *Cluster) poll(ctx context.Context, ask func(context.Context) error) error {
	for {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := ask(once)
		cancel()
		if err == nil {
			return nil
		}
		for _, b := range c.brokers {
			if ended := b.Err(); ended != nil {
				return ended
			}
		}
		if wait.For(ctx, pollInterval) != nil {
			return errors.Join(ctx.Err(), err)
		}
	}
}

// Size is how many brokers there are, running or not.
func (c *Cluster) Size() int { return len(c.brokers) }

// Broker is the broker with node.id i.
func (c *Cluster) Broker(i int) *Broker { return c.brokers[i] }

// Addrs is host:port of all brokers, separated by commas, on the listener of that name.
func (c *Cluster) Addrs(listener string) string {
	var out []string
	for _, b := range c.brokers {
		out = append(out, b.Addr(listener))
	}
	return strings.Join(out, ",")
}

// Stop ends the brokers, each handing over what it leads, and returns when all are gone.
func (c *Cluster) Stop() error {
	c.cl.Close()
	for _, b := range c.brokers {
		b.close()
	}
	// The last ones have no quorum left to hand over to, and would wait for one for minutes: they are killed. Their logs are recovered at
	// the next start, as after any crash.
	var forced []string
	for i := len(c.brokers) - 1; i >= 0; i-- {
		b := c.brokers[i]
		grace := stopTimeout
		if c.opt.Archive != "" {
			grace = archiveTimeout
		}
		if i < len(c.brokers)/2 { // with those that still run it is no majority
			grace = quorumLostTimeout
		}
		if !b.stop(grace) && grace >= stopTimeout {
			forced = append(forced, fmt.Sprint(b.id))
		}
	}
	if len(forced) > 0 {
		return fmt.Errorf("kafka broker %s did not stop in time and was killed", strings.Join(forced, ", "))
	}
	return nil
}

// kill ends what has been started of a cluster that does not come up.
func (c *Cluster) kill() {
	if c.cl != nil {
		c.cl.Close()
	}
	for _, b := range c.brokers {
		b.close()
		b.Kill()
	}
}

func (c *Cluster) tails() string {
	var s strings.Builder
	for _, b := range c.brokers {
		s.WriteString(child.Tail(b.log))
	}
	return s.String()
}
