//go:build e2e

package rig

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
	"github.com/exactly-pipeline/exactly/internal/confluent"
	"github.com/exactly-pipeline/exactly/internal/provision"
	"github.com/exactly-pipeline/exactly/internal/stack"
	"github.com/exactly-pipeline/exactly/internal/stack/apache"
	"github.com/exactly-pipeline/exactly/internal/stack/child"
	"github.com/exactly-pipeline/exactly/outbox"
	"github.com/exactly-pipeline/exactly/txn"
)

// delayer is a way to a broker on which one EndTxn can be kept back: the client sees its connection end, while the request stays on the way.
type delayer struct {
	to      string
	mu      sync.Mutex
	armed   bool
	let     chan struct{} // closed: what is kept back may arrive
	arrived chan struct{} // closed: it was answered
}

func (d *delayer) serve(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		go d.link(client)
	}
}

func (d *delayer) link(client net.Conn) {
	defer client.Close() //nolint:errcheck // it ends either way
	server, err := net.Dial("tcp", d.to)
	if err != nil {
		return
	}
	defer server.Close() //nolint:errcheck // it ends either way
	kept := make(chan struct{})
	go func() {
		_, _ = io.Copy(client, server)
		select {
		case <-kept:
		default:
			_ = client.Close()
		}
	}()
	var f frames
	b := make([]byte, 64<<10)
	for {
		n, err := client.Read(b)
		if n > 0 && f.endTxn(b[:n]) && d.take() {
			close(kept)
			_ = client.Close()
			<-d.let
			if _, err := server.Write(b[:n]); err == nil {
				_ = server.SetReadDeadline(time.Now().Add(5 * time.Second))
				_, _ = server.Read(b)
			}
			close(d.arrived)
			return
		}
		if n > 0 {
			if _, err := server.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// arm has the next EndTxn kept back.
func (d *delayer) arm() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.armed, d.let, d.arrived = true, make(chan struct{}), make(chan struct{})
}

func (d *delayer) take() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := d.armed
	d.armed = false
	return was
}

// late is what both parts of the test have.
type late struct {
	t   *testing.T
	cfg config.Config
	adm *admin.Admin
	way *delayer
}

func newLate(t *testing.T) *late {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	port, err := child.FreePort(0)
	require.NoError(t, err)
	st, err := stack.Start(ctx, stack.Options{Dir: t.TempDir(), Kind: stack.Kafka, NoSyncKafka: true, NoSyncPostgres: true, Log: zap.NewNop(), Apache: apache.Options{
		Brokers: 1, Listeners: []apache.Listener{{Name: "PROXIED", Protocol: "PLAINTEXT", Advertise: []int{port}}},
	}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, st.Stop()) })
	var env []string
	for k, v := range st.Env() {
		env = append(env, k+"="+v)
	}
	l := &late{t: t, way: &delayer{to: st.Cluster().Broker(0).Addr("PROXIED")}}
	l.cfg, err = config.Load("", env, nil)
	require.NoError(t, err)
	_, err = provision.Setup(ctx, &l.cfg, provision.Options{Log: zap.NewNop()})
	require.NoError(t, err)
	l.adm, err = admin.New(&l.cfg, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(l.adm.Close)
	l.cfg.Kafka.Brokers = child.Loopback(port)
	listener, err := net.Listen("tcp", l.cfg.Kafka.Brokers)
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go l.way.serve(listener)
	return l
}

func (l *late) producer() (txn.Producer, error) { return confluent.NewProducer(&l.cfg, zap.NewNop()) }

func (l *late) message(v string) outbox.Message {
	return outbox.Message{Topic: l.cfg.Topics.Output, Partition: 0, TimestampMs: time.Now().UnixMilli(), Key: []byte("k"), Value: []byte(v)}
}

// ends is where the first output partition ends: for readers of what is committed, and for all.
func (l *late) ends() (committed, all int64) {
	ctx, cancel := context.WithTimeout(l.t.Context(), 30*time.Second)
	defer cancel()
	at := func(offsets kadm.ListedOffsets, err error) int64 {
		require.NoError(l.t, err)
		o, ok := offsets.Lookup(l.cfg.Topics.Output, 0)
		require.True(l.t, ok)
		return o.Offset
	}
	return at(l.adm.Kadm().ListCommittedOffsets(ctx, l.cfg.Topics.Output)), at(l.adm.Kadm().ListEndOffsets(ctx, l.cfg.Topics.Output))
}

// deliver waits until something of a transaction under way is in the log, and lets the old EndTxn arrive in the middle of it.
func (l *late) deliver() {
	require.Eventually(l.t, func() bool { committed, all := l.ends(); return all > committed }, 30*time.Second, 20*time.Millisecond)
	close(l.way.let)
	select {
	case <-l.way.arrived:
	case <-time.After(30 * time.Second):
		require.Fail(l.t, "what was kept back did not arrive")
	}
}

// TestRepeatedEndTxn: an EndTxn whose connection breaks is sent again by the client and answered; the first copy arrives in the middle of the
// next transaction.
func TestRepeatedEndTxn(t *testing.T) {
	l := newLate(t)
	group := func() engine.Stamp {
		md, err := kafka.NewTestConsumerGroupMetadata(l.cfg.Group)
		require.NoError(t, err)
		return md
	}
	item := func(to int64, v string) []engine.Item {
		return []engine.Item{{Partition: 0, To: to, LeaderEpoch: -1, Epoch: 1, LedgerSeq: to, Messages: []outbox.Message{l.message(v)}}}
	}

	// What librdkafka alone does, and Kafka takes: the copy commits what the program has not ended. If either ever mends that, this says so.
	t.Run("the client alone", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		p, err := l.producer()
		require.NoError(t, err)
		defer p.Close()
		require.NoError(t, p.Init(ctx))
		one := func(v string) {
			m := l.message(v)
			require.NoError(t, p.Begin())
			require.NoError(t, p.Produce(ctx, &m))
			require.NoError(t, p.Send(ctx))
		}
		one("unharmed")
		require.NoError(t, p.Commit(ctx))
		require.False(t, p.Repeated())
		l.way.arm()
		one("ended twice")
		require.NoError(t, p.Commit(ctx))
		require.True(t, p.Repeated())
		one("ended by a copy")
		l.deliver()
		require.Eventually(t, func() bool { committed, all := l.ends(); return all == committed }, 30*time.Second, 20*time.Millisecond,
			"the copy no longer ends the transaction")
		require.NoError(t, p.Commit(ctx), "and nothing is said of it")
	})

	t.Run("the publisher", func(t *testing.T) {
		p := &txn.Publisher{Topic: l.cfg.Topics.Input, New: l.producer, Timeout: 10 * time.Second, Log: zap.NewNop()}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		require.NoError(t, p.Renew(ctx))
		defer p.Close()
		never := func() bool { return false }
		publish := func(items []engine.Item, cancelled func() bool) (engine.Outcome, error) {
			return p.Publish(items, group(), cancelled)
		}
		got, err := publish(item(1, "first"), never)
		require.NoError(t, err)
		require.Equal(t, engine.Committed, got)
		l.way.arm()
		got, err = publish(item(2, "ended twice"), never)
		require.NoError(t, err)
		require.Equal(t, engine.Committed, got)

		got, err = publish(item(3, "never begun"), never)
		require.Equal(t, engine.Lost, got, "with that producer nothing is begun any more")
		require.ErrorContains(t, err, "twice")
		require.NoError(t, p.Renew(ctx))
		before, _ := l.ends()
		got, err = publish(item(3, "not ended by the copy"), func() bool { l.deliver(); return true })
		require.Equal(t, engine.Aborted, got, "%v", err)
		after, all := l.ends()
		require.Eventually(t, func() bool { after, all = l.ends(); return after == all }, 30*time.Second, 20*time.Millisecond)
		require.Equal(t, before+2, after, "the aborted message and its marker")
		require.NotContains(t, strings.Join(l.committed(), " "), "not ended by the copy")
		got, err = publish(item(3, "third"), never)
		require.NoError(t, err)
		require.Equal(t, engine.Committed, got)
		require.Eventually(t, func() bool { return strings.HasSuffix(strings.Join(l.committed(), ","), "first,ended twice,third") }, 30*time.Second, 20*time.Millisecond)
	})
}

// committed is what a reader of committed records finds in the first output partition.
func (l *late) committed() []string {
	end, _ := l.ends()
	ctx, cancel := context.WithTimeout(l.t.Context(), 30*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(append(admin.Options(&l.cfg), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{l.cfg.Topics.Output: {0: kgo.NewOffset().AtStart()}}))...)
	require.NoError(l.t, err)
	defer cl.Close()
	var out []string
	for at := int64(0); at < end; {
		fetches := cl.PollFetches(ctx)
		require.NoError(l.t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			at = r.Offset + 1
			if !r.Attrs.IsControl() {
				out = append(out, string(r.Value))
			}
		})
	}
	return out
}
