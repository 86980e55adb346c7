package stack

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"

	"github.com/exactly-pipeline/exactly/internal/stack/child"
)

// broker is a stack's broker without the rest.
type broker struct {
	*kafka
	dir     string
	state   *state
	stopped bool
}

func startBroker(t *testing.T, dir string, st *state) *broker {
	t.Helper()
	k, err := startKafka(Options{Dir: dir, NoSyncKafka: true, GroupMinSession: time.Second, Log: zap.NewNop()}, st)
	require.NoError(t, err)
	b := &broker{kafka: k, dir: dir, state: st}
	t.Cleanup(func() { b.stop(t) })
	return b
}

func (b *broker) stop(t *testing.T) {
	if !b.stopped {
		b.stopped = true
		require.NoError(t, b.kafka.stop())
	}
}

func (b *broker) brokers() string { return child.Loopback(b.state.KafkaPort) }

// killed stops b and returns a copy of its files as they were before: what a kill would have left.
func (b *broker) killed(t *testing.T) (image string) {
	t.Helper()
	image = filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.CopyFS(image, os.DirFS(b.dir)))
	b.stop(t)
	return image
}

// crashedInCommit returns the directory of a broker that ended after it had noted the decision to commit "third" and before it
// wrote any marker.
func crashedInCommit(t *testing.T) (dir string) {
	t.Helper()
	b := startBroker(t, t.TempDir(), &state{ClusterID: "c"})
	fillKafka(t, b.brokers())
	tx := transactional(t, b.brokers())
	require.NoError(t, tx.BeginTransaction())
	write(t, tx, "third")
	stageOffset(t, tx, 43)
	image, copied := filepath.Join(t.TempDir(), "image"), make(chan error, 1)
	b.cluster.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
		// Runs after the decision and before kfake: what is on disk now is what a kill would leave.
		copied <- os.CopyFS(image, os.DirFS(b.dir))
		return nil, errors.New("killed"), true
	})
	require.NoError(t, tx.EndTransaction(bounded(t), kgo.TryCommit)) // the client asks again, and kfake goes through with it
	require.NoError(t, <-copied)
	b.stop(t)
	return image
}

func groupOffset(t *testing.T, brokers string) int64 {
	t.Helper()
	offsets, err := kadm.NewClient(client(t, brokers)).FetchOffsets(bounded(t), "g")
	require.NoError(t, err)
	o, _ := offsets.Lookup("clicks", 1)
	return o.At
}

func TestHalfACommitIsCompleted(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, kafka string){
		"no marker written": func(*testing.T, string) {},
		"one marker written": func(t *testing.T, kafka string) {
			p, err := scanPartition(filepath.Join(kafka, "partitions", "clicks-2"))
			require.NoError(t, err)
			require.Len(t, p.open, 1)
			for pid, epoch := range p.open {
				require.NoError(t, p.appendMarker(pid, epoch, true, time.Now()))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := crashedInCommit(t)
			damage(t, filepath.Join(dir, "kafka"))
			b := startBroker(t, dir, &state{})
			require.Equal(t, everywhere("first", "second", "third"), committed(t, b.brokers()))
			require.EqualValues(t, 43, groupOffset(t, b.brokers()))
		})
	}
}

func TestUndecidedIsAborted(t *testing.T) {
	dir := crashedInCommit(t)
	decision := filepath.Join(dir, "kafka.decision")
	raw, err := os.ReadFile(decision)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(decision, raw[:len(raw)-1], 0o600)) // torn: the broker had not gone on
	b := startBroker(t, dir, &state{})
	require.Equal(t, everywhere("first", "second"), committed(t, b.brokers()))
	require.EqualValues(t, 42, groupOffset(t, b.brokers()))
}

// TestOldDecisionIsNotRepeated: a decision that was carried out says nothing of the transaction after it, though the
// producer has the same epoch there (clients without KIP-890, librdkafka among them).
func TestOldDecisionIsNotRepeated(t *testing.T) {
	dir := crashedInCommit(t)
	require.NoError(t, appendLog(filepath.Join(dir, "kafka", "pids.log"), []any{pidEntry{Type: "endtx", PID: 1}}))
	b := startBroker(t, dir, &state{})
	require.Equal(t, everywhere("first", "second"), committed(t, b.brokers()))
}

func TestTornFiles(t *testing.T) {
	dir := crashedInCommit(t)
	kafka := filepath.Join(dir, "kafka")
	for _, name := range []string{"pids.log", "groups.log"} {
		require.NoError(t, appendFile(filepath.Join(kafka, name), []byte("\x40\x00\x00\x00torn")))
	}
	part := filepath.Join(kafka, "partitions", "clicks-0")
	raw, err := os.ReadFile(filepath.Join(part, "0.dat"))
	require.NoError(t, err)
	require.NoError(t, appendFile(filepath.Join(part, "0.dat"), raw[:40]))
	require.NoError(t, os.Truncate(filepath.Join(part, "0.idx"), 3*indexEntryBytes+4)) // the open transaction's entry is gone, one is torn

	r, err := recoverKafka(kafka, filepath.Join(dir, "kafka.decision"))
	require.NoError(t, err)
	require.Equal(t, recovered{committed: partitions, fenced: 1, tornBytes: 8 + 8 + 40}, r)
	r, err = recoverKafka(kafka, filepath.Join(dir, "kafka.decision"))
	require.NoError(t, err)
	require.Equal(t, recovered{fenced: 1}, r, "a second recovery finds nothing to repair")

	b := startBroker(t, dir, &state{})
	require.Equal(t, everywhere("first", "second", "third"), committed(t, b.brokers()))
	commit(t, transactional(t, b.brokers()), "fourth", 44)
	b = startBroker(t, b.killed(t), &state{})
	require.EqualValues(t, 44, groupOffset(t, b.brokers()), "what was appended behind a torn entry is found again")
}

// TestRepeatedBatchAfterCrash: an idempotent producer that lost the answer sends its batch again, and the broker knows it.
func TestRepeatedBatchAfterCrash(t *testing.T) {
	b := startBroker(t, t.TempDir(), &state{ClusterID: "c"})
	fillKafka(t, b.brokers())
	cl := client(t, b.brokers(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	rec := func() *kgo.Record { return &kgo.Record{Topic: "clicks", Value: []byte("idempotent")} }
	require.NoError(t, cl.ProduceSync(bounded(t), rec()).FirstErr())
	image := b.killed(t)

	raw, err := os.ReadFile(filepath.Join(image, "kafka", "partitions", "clicks-0", "0.dat"))
	require.NoError(t, err)
	var last []byte
	for len(raw) > 0 {
		b, ok := nextBatch(raw)
		require.True(t, ok)
		last, raw = raw[:b.bytes], raw[b.bytes:]
	}
	clear(last[:8]) // as the client sent it: the first offset is the broker's

	b = startBroker(t, image, b.state)
	adm := client(t, b.brokers())
	topicID, _ := ids(t, kadm.NewClient(adm))
	req := kmsg.NewPtrProduceRequest()
	req.Acks = -1
	req.TimeoutMillis = 10_000
	req.Topics = []kmsg.ProduceRequestTopic{{Topic: "clicks", TopicID: topicID, Partitions: []kmsg.ProduceRequestTopicPartition{{Records: last}}}}
	res, err := req.RequestWith(bounded(t), adm)
	require.NoError(t, err)
	require.Zero(t, res.Topics[0].Partitions[0].ErrorCode)

	require.NoError(t, cl.ProduceSync(bounded(t), rec()).FirstErr(), "the producer that lived through it goes on")
	require.Equal(t, []string{"first", "second", "idempotent", "idempotent"}, committed(t, b.brokers())[0])
}

// TestAbortsStayAborted: what a crash cut off is neither committed by the crash after it, nor does it hide what the same
// producer commits in between.
func TestAbortsStayAborted(t *testing.T) {
	b := startBroker(t, t.TempDir(), &state{ClusterID: "c"})
	fillKafka(t, b.brokers())
	tx := transactional(t, b.brokers())
	require.NoError(t, tx.BeginTransaction())
	write(t, tx, "never committed")
	stageOffset(t, tx, 77)
	b = startBroker(t, b.killed(t), b.state)
	require.Error(t, tx.EndTransaction(bounded(t), kgo.TryCommit), "the client that lived through it has lost half of its transaction")
	commit(t, transactional(t, b.brokers()), "third", 43)
	require.Equal(t, everywhere("first", "second", "third"), committed(t, b.brokers()))
	b = startBroker(t, b.killed(t), b.state)
	require.Equal(t, everywhere("first", "second", "third"), committed(t, b.brokers()))
	require.EqualValues(t, 43, groupOffset(t, b.brokers()))
}
