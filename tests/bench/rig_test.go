package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/internal/stack"
	"github.com/exactly-pipeline/exactly/internal/stack/apache"
	"github.com/exactly-pipeline/exactly/internal/teststack"
)

const input = "user_clicks"

// rig is a stack with the clicks in its input topic, and the program.
type rig struct {
	dir   string
	bin   string
	stack *stack.Stack
	adm   *kadm.Client
}

// place is what one contender has for itself: a group, output topics, a database.
type place struct {
	*rig
	group, output, dsn string
}

func newRig(ctx context.Context, b *testing.B) *rig {
	dir := *stays
	if dir == "" {
		dir = b.TempDir()
	}
	bin, err := *built, error(nil)
	if bin == "" {
		bin, err = teststack.Build(dir)
	}
	require.NoError(b, err)
	s, err := stack.Start(ctx, stack.Options{Dir: filepath.Join(dir, "stack"), Kind: stack.Kafka, Apache: apache.Options{Brokers: 1}})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, s.Stop()) })
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Brokers()))
	require.NoError(b, err)
	b.Cleanup(cl.Close)
	r := &rig{dir: dir, bin: bin, stack: s, adm: kadm.NewClient(cl)}
	p := r.place("load")
	p.dsn = s.DSN()
	p.do(ctx, b, "setup")
	if have := r.ends(ctx, b, input); have < int64(*total) {
		p.do(ctx, b, "generate", "--rate", "0", "--count", fmt.Sprint(int64(*total)-have), "--seed", "1")
	}
	if *total > 0 {
		require.EqualValues(b, *total, r.ends(ctx, b, input), "clicks in the topic")
	}
	return r
}

// place is a contender's own, named after it.
func (r *rig) place(name string) *place {
	n := strings.NewReplacer("/", "-", "=", "-", "+", "-").Replace(name)
	return &place{rig: r, group: "g-" + n, output: "out-" + n}
}

// environ is the settings of commands and workers here.
func (p *place) environ(more ...string) []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "EXACTLY_") {
			env = append(env, kv)
		}
	}
	for k, v := range p.stack.Env() {
		env = append(env, k+"="+v)
	}
	env = append(env, "EXACTLY_HTTP_ADDR=", "EXACTLY_GROUP="+p.group, "EXACTLY_TOPICS_OUTPUT="+p.output, "EXACTLY_TOPICS_DLQ="+p.output+"-dlq",
		"EXACTLY_TOPICS_REPLAY="+p.output+"-replay", "EXACTLY_LEDGER_HEADS_TOPIC="+p.output+"-heads", "EXACTLY_POSTGRES_DSN="+p.dsn,
		fmt.Sprint("EXACTLY_TOPICS_PARTITIONS=", *parts))
	if *set != "" {
		env = append(env, strings.Split(*set, ",")...)
	}
	return append(env, more...)
}

// do runs a command of the program to its end.
func (p *place) do(ctx context.Context, tb testing.TB, args ...string) {
	cmd := exec.CommandContext(ctx, p.bin, args...)
	cmd.Env = p.environ()
	out, err := cmd.CombinedOutput()
	require.NoError(tb, err, "%v: %s", args, out)
}

// ends is how many offsets a topic has, markers of transactions among them.
func (r *rig) ends(ctx context.Context, tb testing.TB, topic string) (n int64) {
	ends, err := r.adm.ListEndOffsets(ctx, topic)
	require.NoError(tb, err)
	ends.Each(func(o kadm.ListedOffset) { n += max(o.Offset, 0) })
	return n
}

// committed is the sum of a group's offsets of the input.
func (r *rig) committed(ctx context.Context, tb testing.TB, group string) (n int64) {
	os, err := r.adm.FetchOffsets(ctx, group)
	if err != nil {
		return 0 // no such group yet
	}
	os.Each(func(o kadm.OffsetResponse) {
		if o.Topic == input {
			n += max(o.At, 0)
		}
	})
	return n
}

// readable counts the records that a reader of committed ones gets from a topic.
func (r *rig) readable(ctx context.Context, tb testing.TB, topic string, want int64) (n int64) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(r.stack.Brokers()), kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(tb, err)
	defer cl.Close()
	for wait := time.Minute; ; {
		c, cancel := context.WithTimeout(ctx, wait)
		fs := cl.PollFetches(c)
		cancel()
		got := int64(fs.NumRecords())
		if n += got; got == 0 {
			return n
		}
		if n >= want {
			wait = 500 * time.Millisecond // and nothing more
		}
	}
}

// database gives the place an empty database. The one before goes, and what is still to be written of it is written: everybody starts alike.
func (p *place) database(ctx context.Context, tb testing.TB) {
	conn, err := pgx.Connect(ctx, p.stack.DSN())
	require.NoError(tb, err)
	defer conn.Close(ctx) //nolint:errcheck // the stack goes with it
	_, err = conn.Exec(ctx, `DROP DATABASE IF EXISTS measured WITH (FORCE)`)
	require.NoError(tb, err)
	p.dsn, err = p.stack.NewDatabase(ctx, "measured")
	require.NoError(tb, err)
	_, err = conn.Exec(ctx, `CHECKPOINT`)
	require.NoError(tb, err)
}

// stored is what a query of one number says of the place's database; 0 while there is no such table.
func (p *place) stored(ctx context.Context, conn *pgx.Conn, sql string) (n int64) {
	_ = conn.QueryRow(ctx, sql).Scan(&n)
	return n
}

// clear removes what an earlier contender of that name has left, on a stack that was kept.
func (p *place) clear(ctx context.Context, tb testing.TB) {
	_, _ = p.adm.DeleteTopics(ctx, p.output, p.output+"-dlq", p.output+"-replay", p.output+"-heads")
	require.Eventually(tb, func() bool { // a member that was killed is one until its session ends
		_, err := p.adm.DeleteGroup(ctx, p.group)
		return err == nil || errors.Is(err, kerr.GroupIDNotFound)
	}, time.Minute, 100*time.Millisecond)
}

func makeTopics(ctx context.Context, tb testing.TB, p *place) {
	res, err := p.adm.CreateTopic(ctx, int32(*parts), 1, nil, p.output)
	require.NoError(tb, err)
	require.NoError(tb, res.Err)
}

func makeTables(ctx context.Context, tb testing.TB, p *place) {
	p.database(ctx, tb)
	p.do(ctx, tb, "migrate")
}

func setUp(ctx context.Context, tb testing.TB, p *place) {
	p.database(ctx, tb)
	p.do(ctx, tb, "setup")
}

func sumOfOffsets(*place) string {
	return `SELECT coalesce(sum(next_offset), 0)::bigint FROM partition_offsets`
}
