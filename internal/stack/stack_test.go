package stack

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sr"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

const childDir = "STACK_TEST_CHILD_DIR" // set: this process is a stack on that directory, to be killed

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		s, err := Start(context.Background(), Options{Dir: dir, NoSyncKafka: true, NoSyncPostgres: true, Log: zap.NewExample()})
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		fmt.Printf("ready %s %s %s %d\n", s.Brokers(), s.RegistryURL(), s.DSN(), s.PostgresPID())
		select {}
	}
	goleak.VerifyTestMain(m)
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func start(t *testing.T, dir string) *Stack {
	t.Helper()
	s, err := Start(bounded(t), Options{Dir: dir, NoSyncKafka: true, NoSyncPostgres: true, Log: zaptest.NewLogger(t, zaptest.Level(zap.WarnLevel))})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	return s
}

// addresses is what a client needs of a stack, in this process or another.
type addresses struct{ brokers, registry, dsn string }

func of(s *Stack) addresses { return addresses{s.Brokers(), s.RegistryURL(), s.DSN()} }

// doomed is a stack in a process of its own.
type doomed struct {
	addresses
	cmd         *exec.Cmd
	postgresPID int
}

func startChild(t *testing.T, dir string) *doomed {
	t.Helper()
	c := &doomed{cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), childDir+"="+dir)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, c.cmd.Start())
	t.Cleanup(func() { _ = c.cmd.Process.Kill(); _ = c.cmd.Wait() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
			_, err := fmt.Sscan(rest, &c.brokers, &c.registry, &c.dsn, &c.postgresPID)
			require.NoError(t, err)
			return c
		}
	}
	require.Fail(t, "the child did not get ready")
	return nil
}

// kill ends the child the hard way and waits until its Postgres has followed it.
func (c *doomed) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, c.cmd.Process.Kill())
	_ = c.cmd.Wait() // "signal: killed"
	require.Eventually(t, func() bool { return !alive(c.postgresPID) }, 20*time.Second, 5*time.Millisecond, "postgres %d outlived its parent", c.postgresPID)
}

// alive does not count a zombie: in a container nobody may be there to reap what we have orphaned.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func client(t *testing.T, brokers string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(brokers)}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

func transactional(t *testing.T, brokers string) *kgo.Client {
	return client(t, brokers, kgo.TransactionalID("tx"), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionTimeout(time.Minute))
}

const partitions = 3

// write puts a record a partition into cl's open transaction and has them acknowledged.
func write(t *testing.T, cl *kgo.Client, values string) {
	t.Helper()
	for p := range int32(partitions) {
		require.NoError(t, cl.ProduceSync(bounded(t), &kgo.Record{Topic: "clicks", Partition: p, Value: []byte(values)}).FirstErr())
	}
}

// stageOffset adds group g's offset to cl's open transaction, as a client without membership may.
func stageOffset(t *testing.T, cl *kgo.Client, offset int64) {
	t.Helper()
	id, epoch, err := cl.ProducerID(bounded(t))
	require.NoError(t, err)
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = "tx", id, epoch, "g"
	_, err = add.RequestWith(bounded(t), cl)
	require.NoError(t, err)
	metadata := "exactly/1 7 9"
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch, req.Generation = "tx", "g", id, epoch, -1
	part := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	part.Partition, part.Offset, part.Metadata = 1, offset, &metadata
	topic := kmsg.NewTxnOffsetCommitRequestTopic()
	topic.Topic, topic.Partitions = "clicks", append(topic.Partitions, part)
	topic.TopicID, _ = ids(t, kadm.NewClient(cl)) // newer versions of the request have no name
	req.Topics = append(req.Topics, topic)
	res, err := req.RequestWith(bounded(t), cl)
	require.NoError(t, err)
	require.Zero(t, res.Topics[0].Partitions[0].ErrorCode)
}

func commit(t *testing.T, cl *kgo.Client, value string, offset int64) {
	t.Helper()
	require.NoError(t, cl.BeginTransaction())
	write(t, cl, value)
	stageOffset(t, cl, offset)
	require.NoError(t, cl.EndTransaction(bounded(t), kgo.TryCommit))
}

// committed reads all partitions up to their stable ends and returns the values of each.
func committed(t *testing.T, brokers string) [partitions][]string {
	t.Helper()
	cl := client(t, brokers, kgo.ConsumeTopics("clicks"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	ends, err := kadm.NewClient(cl).ListCommittedOffsets(bounded(t), "clicks")
	require.NoError(t, err)
	highs, err := kadm.NewClient(cl).ListEndOffsets(bounded(t), "clicks")
	require.NoError(t, err)
	require.Equal(t, highs.Offsets(), ends.Offsets(), "a transaction is still open")
	var out [partitions][]string
	for left := partitions; left > 0; {
		fetches := cl.PollFetches(bounded(t))
		require.NoError(t, fetches.Err0())
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				out[r.Partition] = append(out[r.Partition], string(r.Value))
			}
			if end, _ := ends.Lookup("clicks", r.Partition); r.Offset == end.Offset-1 {
				left--
			}
		})
	}
	return out
}

func everywhere(values ...string) (out [partitions][]string) {
	for p := range out {
		out[p] = values
	}
	return out
}

type contents struct {
	topicID   kadm.TopicID
	clusterID string
	schemaIDs [2]int
}

// fillKafka makes the topic and two committed transactions.
func fillKafka(t *testing.T, brokers string) *kadm.Client {
	t.Helper()
	tx := transactional(t, brokers)
	adm := kadm.NewClient(tx)
	_, err := adm.CreateTopic(bounded(t), partitions, 1, nil, "clicks")
	require.NoError(t, err)
	commit(t, tx, "first", 41)
	commit(t, tx, "second", 42)
	return adm
}

// fill puts something into each store.
func fill(t *testing.T, a addresses) contents {
	t.Helper()
	ctx := bounded(t)
	adm := fillKafka(t, a.brokers)
	reg, err := sr.NewClient(sr.URLs(a.registry))
	require.NoError(t, err)
	var c contents
	for i, schema := range []string{`"string"`, `"long"`} {
		s, err := reg.CreateSchema(ctx, fmt.Sprintf("subject-%d", i), sr.Schema{Schema: schema, Type: sr.TypeAvro})
		require.NoError(t, err)
		c.schemaIDs[i] = s.ID
	}
	conn, err := pgx.Connect(ctx, a.dsn)
	require.NoError(t, err)
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, `CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n`)
	require.NoError(t, err)

	c.topicID, c.clusterID = ids(t, adm)
	return c
}

func ids(t *testing.T, adm *kadm.Client) (kadm.TopicID, string) {
	t.Helper()
	m, err := adm.Metadata(bounded(t), "clicks")
	require.NoError(t, err)
	return m.Topics["clicks"].ID, m.Cluster
}

// requireContents checks that what fill put there is all there, and nothing else.
func requireContents(t *testing.T, want contents, a addresses) {
	t.Helper()
	ctx := bounded(t)
	require.Equal(t, everywhere("first", "second"), committed(t, a.brokers))
	adm := kadm.NewClient(client(t, a.brokers))
	topicID, clusterID := ids(t, adm)
	require.Equal(t, want.topicID, topicID)
	require.Equal(t, want.clusterID, clusterID)
	offsets, err := adm.FetchOffsets(ctx, "g")
	require.NoError(t, err)
	o, ok := offsets.Lookup("clicks", 1)
	require.True(t, ok)
	require.EqualValues(t, 42, o.At)
	require.Equal(t, "exactly/1 7 9", o.Metadata)

	reg, err := sr.NewClient(sr.URLs(a.registry))
	require.NoError(t, err)
	for i, id := range want.schemaIDs {
		s, err := reg.SchemaByVersion(ctx, fmt.Sprintf("subject-%d", i), 1)
		require.NoError(t, err)
		require.Equal(t, id, s.ID)
	}
	conn, err := pgx.Connect(ctx, a.dsn)
	require.NoError(t, err)
	defer conn.Close(ctx)
	var n int
	require.NoError(t, conn.QueryRow(ctx, `SELECT count(*) FROM kept`).Scan(&n))
	require.Equal(t, 1000, n)
}

func TestStopAndStart(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	want, before, pid := fill(t, of(s)), of(s), s.PostgresPID()
	require.NoError(t, s.Stop())
	require.NoError(t, s.Stop(), "stopping twice is allowed")
	require.False(t, alive(pid))
	require.NoError(t, s.Err(), "an end that was asked for is no failure")
	s = start(t, dir)
	require.Equal(t, before, of(s), "same addresses")
	requireContents(t, want, of(s))
}

func TestKillAndStart(t *testing.T) {
	dir := t.TempDir()
	c := startChild(t, dir)
	want := fill(t, c.addresses)
	open := transactional(t, c.brokers)
	require.NoError(t, open.BeginTransaction())
	write(t, open, "never committed")
	stageOffset(t, open, 77)
	c.kill(t)

	// Killed a second time, right after a start: what the first kill aborted stays so.
	startChild(t, dir).kill(t)

	s := start(t, dir)
	requireContents(t, want, of(s))
	// The client that lived through it has lost half of its transaction: it must not be told that it committed.
	require.Error(t, open.EndTransaction(bounded(t), kgo.TryCommit))
	requireContents(t, want, of(s))
	commit(t, transactional(t, s.Brokers()), "third", 43)
	require.Equal(t, everywhere("first", "second", "third"), committed(t, s.Brokers()))
}

func TestPostgresEndsByItself(t *testing.T) {
	dir := t.TempDir()
	s, err := Start(bounded(t), Options{Dir: dir, NoSyncKafka: true, NoSyncPostgres: true})
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(s.PostgresPID(), syscall.SIGKILL))
	<-s.Failed()
	require.ErrorContains(t, s.Err(), "ended by itself")
	require.Error(t, s.Stop())
	start(t, dir) // at once, while its backends may still be there
}

func TestStalePostmasterPID(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	require.NoError(t, s.Stop())
	// The pid of a process that is alive and no Postgres: after a reboot, or in a container, that is what a stale file holds.
	stale := fmt.Sprintf("%d\n%s\n0\n0\n\n127.0.0.1\n", os.Getpid(), filepath.Join(dir, "postgres", "data"))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "postgres", "data", "postmaster.pid"), []byte(stale), 0o600))
	start(t, dir)
}

func TestRunning(t *testing.T) {
	s := start(t, t.TempDir())
	t.Run("one stack a directory", func(t *testing.T) {
		_, err := Start(bounded(t), Options{Dir: s.opt.Dir})
		require.ErrorIs(t, err, ErrInUse)
		require.ErrorContains(t, err, fmt.Sprint(os.Getpid()))
	})
	t.Run("new database", func(t *testing.T) {
		dsn, err := s.NewDatabase(bounded(t), `an "odd" name`)
		require.NoError(t, err)
		conn, err := pgx.Connect(bounded(t), dsn)
		require.NoError(t, err)
		require.NoError(t, conn.Close(bounded(t)))
		_, err = s.NewDatabase(bounded(t), `an "odd" name`)
		require.Error(t, err)
	})
	t.Run("short sessions", func(t *testing.T) {
		for session, want := range map[time.Duration]int16{time.Second: 79, 900 * time.Millisecond: 26} { // member id required; invalid session timeout
			req := kmsg.NewPtrJoinGroupRequest()
			req.Group, req.SessionTimeoutMillis, req.RebalanceTimeoutMillis, req.ProtocolType = "short", int32(session.Milliseconds()), 5000, "consumer"
			req.Protocols = append(req.Protocols, kmsg.JoinGroupRequestProtocol{Name: "range"})
			res, err := req.RequestWith(bounded(t), client(t, s.Brokers()))
			require.NoError(t, err)
			require.Equal(t, want, res.ErrorCode, "%v", session)
		}
	})
	t.Run("no topic by itself", func(t *testing.T) {
		cl := client(t, s.Brokers(), kgo.AllowAutoTopicCreation())
		m, err := kadm.NewClient(cl).Metadata(bounded(t), "missing")
		require.NoError(t, err)
		require.Error(t, m.Topics["missing"].Err)
	})
}
