//go:build e2e

package behaviour

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	fp "github.com/exactly-pipeline/exactly/internal/failpoint"
	"github.com/exactly-pipeline/exactly/internal/stack/apache"
)

// The tests of this file end and freeze brokers under load. Each wants the three brokers to itself, so none is parallel; they run before
// those that are.

// cluster is the three brokers, all of them there and in sync, as they are again after the test.
func cluster(t *testing.T) *apache.Cluster {
	t.Helper()
	c := shared.Stack.Cluster()
	if c == nil || c.Size() != 3 {
		t.Fatal("these tests end brokers: they need TEST_STACK=kafka3")
	}
	whole := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		for i := range c.Size() {
			b := c.Broker(i)
			b.Resume()
			if !b.Running() {
				require.NoError(t, b.Start(ctx))
			}
		}
		require.NoError(t, c.AwaitJoined(ctx))
		require.NoError(t, c.AwaitInSync(ctx))
	}
	whole()
	t.Cleanup(whole)
	return c
}

// load is a generator at work.
type load struct {
	b        *bundle
	cmd      *exec.Cmd
	out, err bytes.Buffer
	done     chan struct{}
}

// load produces clicks at a steady rate until it is stopped.
func (b *bundle) load() *load {
	b.t.Helper()
	l := &load{b: b, cmd: exec.Command(shared.Bin, "generate", "--rate", "500", "--bad-share", "0.002", "--seed", "7", "--json"), done: make(chan struct{})}
	l.cmd.Env = append(os.Environ(), b.environ()...)
	l.cmd.Stdout, l.cmd.Stderr = &l.out, &l.err
	require.NoError(b.t, l.cmd.Start())
	go func() { defer close(l.done); _ = l.cmd.Wait() }() //nolint:errcheck // how it ended is in ProcessState
	b.t.Cleanup(func() {
		_ = l.cmd.Process.Kill()
		<-l.done
		if b.t.Failed() {
			b.t.Logf("generator:\n%s", l.err.Bytes())
		}
	})
	return l
}

// stop ends the load. Every click it made is acknowledged, or it does not end with 0.
func (l *load) stop() {
	l.b.t.Helper()
	require.NoError(l.b.t, l.cmd.Process.Signal(syscall.SIGTERM))
	<-l.done
	require.Zero(l.b.t, l.cmd.ProcessState.ExitCode(), "generate: %s", l.err.Bytes())
	var said struct{ Acknowledged int64 }
	require.NoError(l.b.t, json.Unmarshal(l.out.Bytes(), &said))
	require.Positive(l.b.t, said.Acknowledged)
	l.b.sent += said.Acknowledged
}

// progress requires that clicks are stored and published from now on.
func (b *bundle) progress(when string) {
	b.t.Helper()
	began := time.Now()
	defer func() {
		b.t.Logf("records stored and published %s, after %v", when, time.Since(began).Round(time.Millisecond))
	}()
	var from int64 = -1
	stored := b.stored()
	last := make([]int64, partitions) // what is pending counts as what it was
	b.until("records are stored and published "+when, func() bool {
		os, err := b.adm.GroupOffsets(b.ctx, all)
		if err != nil {
			return false // asked while the coordinator moves
		}
		var published int64
		for p, o := range os {
			if !o.Pending {
				last[p] = o.Offset
			}
			published += last[p]
		}
		if from < 0 {
			from = published
		}
		return published >= from+1000 && b.stored() >= stored+1000
	})
}

// at is a part a broker plays for the world of a test.
type at struct {
	what string
	who  func(b *bundle, c *apache.Cluster) (*apache.Broker, error)
}

var (
	inputLeader = at{"leader of the input", func(b *bundle, c *apache.Cluster) (*apache.Broker, error) {
		return c.Leader(b.ctx, b.cfg.Topics.Input, 0)
	}}
	outputLeader = at{"leader of the output", func(b *bundle, c *apache.Cluster) (*apache.Broker, error) {
		return c.Leader(b.ctx, b.cfg.Topics.Output, 0)
	}}
	groupCoord = at{"group coordinator", func(b *bundle, c *apache.Cluster) (*apache.Broker, error) {
		return c.GroupCoordinator(b.ctx, b.cfg.Group)
	}}
	txnCoord = at{"transaction coordinator", func(b *bundle, c *apache.Cluster) (*apache.Broker, error) {
		return c.TxnCoordinator(b.ctx, b.cfg.TransactionalID("a"))
	}}
)

// strike finds the broker, strikes it, and waits until another one has taken its place: it did play that part when it was struck.
func (b *bundle) strike(c *apache.Cluster, part at, with func(*apache.Broker)) *apache.Broker {
	b.t.Helper()
	struck, err := part.who(b, c)
	require.NoError(b.t, err)
	with(struck)
	began := time.Now()
	b.until("another broker is "+part.what, func() bool {
		now, err := part.who(b, c)
		return err == nil && now != struck
	})
	b.t.Logf("broker %d, %s, was struck; another one is that after %v", struck.ID(), part.what, time.Since(began).Round(time.Millisecond))
	return struck
}

// replicated requires that setup has made three copies of everything.
func (b *bundle) replicated() {
	b.t.Helper()
	ts, err := b.adm.Kadm().ListTopics(b.ctx, b.cfg.Topics.Input, b.cfg.Topics.Output, b.cfg.Topics.DLQ)
	require.NoError(b.t, err)
	require.Len(b.t, ts, 3)
	for _, t := range ts {
		for _, p := range t.Partitions {
			require.Len(b.t, p.Replicas, 3, "%s/%d", t.Topic, p.Partition)
		}
	}
}

// alive requires that no worker has ended: a broker's end is nothing to end for.
func (b *bundle) alive() {
	b.t.Helper()
	for _, w := range b.workers {
		select {
		case <-w.done:
			b.t.Fatalf("worker %s ended: %v\n%s", w.id, w.cmd.ProcessState, w.log.Tail())
		default:
		}
	}
}

// A broker is killed under load in each of its parts, and comes back: records are stored and published while it is away and after.
func TestBrokerKilled(t *testing.T) {
	for _, part := range []at{inputLeader, outputLeader, groupCoord, txnCoord} {
		t.Run(part.what, func(t *testing.T) {
			c := cluster(t)
			b := world(t)
			b.replicated()
			b.both(nil, nil)
			l := b.load()
			b.progress("before")
			killed := b.strike(c, part, (*apache.Broker).Kill)
			b.progress("while the broker is away")
			require.False(t, killed.Running())
			require.NoError(t, killed.Start(b.ctx))
			b.progress("after it came back")
			l.stop()
			b.alive()
			b.settle()
		})
	}
}

// A broker is frozen under load for longer than the workers' session and its own: its connections stay, and nothing answers. Woken up it
// finds that it has lost its parts.
func TestBrokerFrozen(t *testing.T) {
	for _, part := range []at{groupCoord, txnCoord} {
		t.Run(part.what, func(t *testing.T) {
			c := cluster(t)
			b := world(t)
			b.both(nil, nil)
			l := b.load()
			b.progress("before")
			since := time.Now()
			frozen := b.strike(c, part, (*apache.Broker).Pause)
			b.progress("while the broker is frozen")
			b.until("it was frozen for twice a worker's session", func() bool { return time.Since(since) > 2*session })
			b.progress("while the broker is still frozen")
			frozen.Resume()
			b.progress("after it woke up")
			l.stop()
			b.alive()
			b.settle()
		})
	}
}

// The coordinator of an open transaction, its events and offsets already in it, is killed: the commit goes to another one.
func TestBrokerKilledUnderTransaction(t *testing.T) {
	for _, part := range []at{groupCoord, txnCoord} {
		t.Run(part.what, func(t *testing.T) {
			c := cluster(t)
			b := world(t)
			b.both([]string{failpoint(fp.PublishOffsetsSent + "=hold@3")}, nil)
			l := b.load()
			b.until("a holds its transaction open", func() bool { return b.hit(fp.PublishOffsetsSent) })
			killed := b.strike(c, part, (*apache.Broker).Kill)
			b.release(fp.PublishOffsetsSent)
			b.progress("after the coordinator was killed")
			require.NoError(t, killed.Start(b.ctx))
			b.progress("after it came back")
			l.stop()
			b.alive()
			b.settle()
			require.Positive(t, b.captures("a"))
		})
	}
}
