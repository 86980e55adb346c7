package conformance

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/internal/admin"
	"github.com/exactly-pipeline/exactly/internal/config"
)

const (
	session  = 4 * time.Second  // of members of the group
	patience = 40 * time.Second // for anything to happen on a crowded machine; nothing waits this long when all is well
)

// world is one rule's: a group and topics of its own, on the shared stack.
type world struct {
	t      *testing.T
	ctx    context.Context
	rule   *rule
	client string        // the Kafka client the rule is tried with
	cfg    config.Config // as a worker would have it
	adm    *admin.Admin
	kadm   *kadm.Client
	raw    *kgo.Client // speaks the protocol as librdkafka does: before KIP-890, topics by name

	mu      sync.Mutex
	asked   map[string]bool
	clients bool // one of the pipeline's clients was used
}

// worlds counts them, so that a rule can be run several times on one stack.
var worlds atomic.Int64

func newWorld(t *testing.T, r *rule, client string) *world {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	name := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(r.name, "_") + fmt.Sprintf("_%d_%d", time.Now().UnixMilli(), worlds.Add(1))
	cfg, err := config.Load("", nil, map[string]string{
		"kafka.brokers": shared.brokers, "registry.url": shared.registry, "group": name, "worker.id": "observer",
		"topics.input": name + ".in", "topics.output": name + ".out", "topics.dlq": name + ".dlq",
		"topics.replay": name + ".replay", "ledger.heads_topic": name + ".heads",
		"kafka.session_timeout": session.String(), "kafka.heartbeat_interval": "300ms", "kafka.stable_timeout": "50ms",
	})
	require.NoError(t, err)
	cfg.Kafka.Client = client
	w := &world{t: t, ctx: ctx, rule: r, client: client, cfg: cfg, asked: map[string]bool{}}
	w.adm, err = admin.New(&w.cfg, zap.NewNop())
	require.NoError(t, err)
	t.Cleanup(w.adm.Close)
	w.raw = w.kgo()
	w.kadm = kadm.NewClient(w.raw)
	return w
}

// kgo is a franz-go client for what the product has no call for.
func (w *world) kgo(opts ...kgo.Opt) *kgo.Client {
	w.t.Helper()
	cl, err := kgo.NewClient(append(append(admin.Options(&w.cfg), kgo.MaxVersions(kversion.V3_7_0()), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequestTimeoutOverhead(patience), kgo.RetryTimeout(patience), kgo.DialTimeout(patience)), opts...)...)
	require.NoError(w.t, err)
	w.t.Cleanup(cl.Close)
	return cl
}

// pool holds topics that nobody has used yet, by their number of partitions. They are made many at a time: a broker takes its time for one.
var pool = struct {
	mu   sync.Mutex
	sets map[int32][]config.Topics
}{sets: map[int32][]config.Topics{}}

// topics makes the input and both outputs with n partitions each.
func (w *world) topics(n int32) {
	w.t.Helper()
	pool.mu.Lock()
	defer pool.mu.Unlock()
	if len(pool.sets[n]) == 0 {
		brokers, err := w.kadm.ListBrokers(w.ctx)
		require.NoError(w.t, err)
		var names []string
		for i := range 8 {
			set := fmt.Sprintf("conformance_%d_%d_%d", n, time.Now().UnixNano(), i)
			t := config.Topics{Input: set + ".in", Output: set + ".out", DLQ: set + ".dlq"}
			names = append(names, t.Input, t.Output, t.DLQ)
			pool.sets[n] = append(pool.sets[n], t)
		}
		res, err := w.kadm.CreateTopics(w.ctx, n, int16(min(3, len(brokers))), nil, names...)
		require.NoError(w.t, errors.Join(err, res.Error()))
		require.NoError(w.t, w.adm.AwaitTopics(w.ctx, names...))
	}
	sets := pool.sets[n]
	last := sets[len(sets)-1]
	pool.sets[n] = sets[:len(sets)-1]
	w.cfg.Topics.Input, w.cfg.Topics.Output, w.cfg.Topics.DLQ = last.Input, last.Output, last.DLQ
}

// is holds what was observed at a point of the rule to what the rule says, or to the difference this stack is known for. It goes on
// after a failure: one run then shows all of them.
func (w *world) is(point string, want, got any) {
	w.t.Helper()
	w.mu.Lock()
	w.asked[point] = true
	w.mu.Unlock()
	if err := judge(differs, shared.name, w.client, w.rule.name, point, fmt.Sprint(want), fmt.Sprint(got)); err != nil {
		w.t.Error(err)
	}
}

func (w *world) outcome() outcome {
	o := outcome{result: "holds"}
	for _, d := range differs {
		if d.rule == w.rule.name && d.on(shared.name, w.client) && w.asked[d.point] {
			o.result, o.differs = "differs", append(o.differs, d)
		}
	}
	if w.t.Failed() {
		o.result = "FAILS"
	}
	return o
}

// until waits for the thing itself, and fails when patience runs out.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			w.t.Fatalf("waited %v in vain until: %s", patience, what)
		}
	}
}

// ask asks the product's admin client until it has an answer: its own deadlines pass now and then on a crowded machine, and that is none.
func ask[T any](w *world, f func(context.Context) (T, error)) T {
	w.t.Helper()
	var got T
	var err error
	w.until("kafka answers", func() bool {
		got, err = f(w.soon())
		var ke *kerr.Error
		return err == nil || errors.As(err, &ke)
	})
	require.NoError(w.t, err)
	return got
}

// look is a claim's, at partition 0.
func (w *world) look(leaderEpoch int32) engine.Look {
	w.t.Helper()
	return ask(w, func(ctx context.Context) (map[int32]engine.Look, error) {
		return w.adm.Look(ctx, map[int32]int32{0: leaderEpoch})
	})[0]
}

func (w *world) members() map[string]string { w.t.Helper(); return ask(w, w.adm.Members) }

// name is an error in the protocol's own word, "ok" for none.
func name(err error) string {
	var ke *kerr.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &ke):
		return ke.Message
	}
	return err.Error()
}

func code(c int16) string { return name(kerr.ErrorForCode(c)) }

// list is a sorted list in one line.
func list32(ps []int32) string {
	s := slices.Clone(ps)
	slices.Sort(s)
	return strings.Trim(fmt.Sprint(s), "[]")
}
