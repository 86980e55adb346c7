package audit

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/exactly-pipeline/exactly/ledger"
)

// live goes on from a stored world as a worker would: capture in one Postgres transaction, publish in one Kafka transaction.
type live struct {
	*world
	kafka *kgo.Client
	seq   map[int32]int64
	n     int64
}

func goOn(w *world) *live {
	return &live{world: w, kafka: w.producer(), seq: map[int32]int64{0: 4, 1: 2}, n: 1000}
}

// feed writes input and captures it; what is owed for it is returned.
func (l *live) feed(part int32, count int) []message {
	e := ledger.Entry{SourceID: 1, Partition: part, Seq: l.offsets[part].seq + 1, Kind: ledger.Capture, From: l.offsets[part].next, Epoch: 1, Worker: "w", CommittedAt: day2, PrevHash: l.offsets[part].head}
	rows, outbox := len(l.rows), len(l.outbox)
	for range count {
		l.n++
		r := l.inputRecord(part, l.n, l.click(l.n))
		require.NoError(l.t, l.cl.ProduceSync(l.ctx, r).FirstErr())
		in := inputRec{part: part, offset: r.Offset, key: r.Key, value: r.Value, ms: r.Timestamp.UnixMilli(), click: l.click(l.n)}
		l.capture(&in)
		e.To = r.Offset + 1
		e.Records, e.Rows, e.Events = e.Records+1, e.Rows+1, e.Events+1
	}
	e.Digest = l.digest(&e)
	b := &pgx.Batch{}
	for i := range l.rows[rows:] {
		queueRow(b, &l.rows[rows+i])
	}
	for i := range l.outbox[outbox:] {
		queueMessage(b, &l.outbox[outbox+i])
	}
	o := l.offsets[part]
	o.next, o.seq, o.head = e.To, e.Seq, e.Hash()
	queueEntry(b, &e, o.head)
	b.Queue(`UPDATE partition_offsets SET next_offset = $2, ledger_seq = $3, ledger_head = $4, published_at_least = $5 WHERE source_partition = $1`, part, o.next, o.seq, o.head, l.group[part])
	require.NoError(l.t, pgx.BeginFunc(l.ctx, l.db, func(tx pgx.Tx) error { return tx.SendBatch(l.ctx, b).Close() }))
	return l.messages(part, e.From, e.To)
}

// send puts the records and the group's offset into a Kafka transaction that is begun.
func (l *live) send(owed []message) {
	last := owed[len(owed)-1]
	require.NoError(l.t, l.kafka.BeginTransaction())
	require.NoError(l.t, l.kafka.ProduceSync(l.ctx, records(owed)...).FirstErr())
	l.holdGroup(l.kafka, last.part, last.SourceOffset+1)
}

// holdGroup puts a group offset into cl's open transaction.
func (w *world) holdGroup(cl *kgo.Client, part int32, at int64) {
	id, epoch, err := cl.ProducerID(w.ctx)
	require.NoError(w.t, err)
	txn := cl.OptValue(kgo.TransactionalID).(string)
	add := kmsg.NewPtrAddOffsetsToTxnRequest()
	add.TransactionalID, add.ProducerID, add.ProducerEpoch, add.Group = txn, id, epoch, w.opts.Group
	ra, err := add.RequestWith(w.ctx, cl)
	require.NoError(w.t, err)
	require.NoError(w.t, kerr.ErrorForCode(ra.ErrorCode))
	commit := kmsg.NewPtrTxnOffsetCommitRequest()
	commit.TransactionalID, commit.ProducerID, commit.ProducerEpoch, commit.Group, commit.Generation = txn, id, epoch, w.opts.Group, -1
	t := kmsg.NewTxnOffsetCommitRequestTopic()
	topics, err := w.adm.ListTopics(w.ctx, w.opts.Input)
	require.NoError(w.t, err)
	t.Topic, t.TopicID = w.opts.Input, topics[w.opts.Input].ID
	p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	p.Partition, p.Offset = part, at
	t.Partitions = append(t.Partitions, p)
	commit.Topics = append(commit.Topics, t)
	rc, err := commit.RequestWith(w.ctx, cl)
	require.NoError(w.t, err)
	require.NoError(w.t, kerr.ErrorForCode(rc.Topics[0].Partitions[0].ErrorCode))
}

func (l *live) commit(owed []message) {
	last := owed[len(owed)-1]
	require.NoError(l.t, l.kafka.EndTransaction(l.ctx, kgo.TryCommit))
	l.group[last.part] = last.SourceOffset + 1
}

func (l *live) publishNow(owed []message) { l.send(owed); l.commit(owed) }

// visible waits until what was committed can be read: Apache Kafka answers a commit a little before it is.
func (l *live) visible() {
	require.Eventually(l.t, func() bool {
		ends, err := l.adm.ListEndOffsets(l.ctx, l.opts.Output, l.opts.DLQ)
		require.NoError(l.t, err)
		stable, err := l.adm.ListCommittedOffsets(l.ctx, l.opts.Output, l.opts.DLQ)
		require.NoError(l.t, err)
		all := true
		ends.Each(func(e kadm.ListedOffset) {
			s, _ := stable.Lookup(e.Topic, e.Partition)
			all = all && s.Offset == e.Offset
		})
		return all
	}, time.Minute, 10*time.Millisecond)
}

// Beside a worker that works, every audit is clean, whatever moment it falls into.
func TestLive(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.store(ownHash)
	l := goOn(w)
	stop := make(chan struct{})
	var worker sync.WaitGroup
	worker.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			owed := l.feed(int32(i%2), 1+i%5)
			if i%7 == 0 { // an attempt that is given up, and made again
				l.send(owed)
				require.NoError(t, l.kafka.EndTransaction(l.ctx, kgo.TryAbort))
			}
			l.publishNow(owed)
		}
	})
	var seen Totals
	for range 15 {
		rep, err := Run(w.ctx, w.opts)
		require.NoError(t, err)
		require.True(t, rep.Clean(), sentences(rep))
		require.GreaterOrEqual(t, rep.Totals.Input, seen.Input)
		require.Equal(t, rep.Totals.Input, rep.Totals.Rows+rep.Totals.DeadLetters)
		seen = rep.Totals
	}
	close(stop)
	worker.Wait()
	w.opts.Settled = true
	rep := w.audit()
	require.True(t, rep.Clean(), sentences(rep))
	require.Greater(t, rep.Totals.Input, int64(13), "the worker made no progress beside the audits")
	require.Equal(t, rep.Totals.Input, rep.Totals.Events+rep.Totals.DLQ)
}

// What is captured and not published is owed: no finding, unless all was said to be done.
func TestOwed(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	owed(w)
	w.store(ownHash)
	rep := w.audit()
	require.True(t, rep.Clean(), sentences(rep))
	require.EqualValues(t, 2, rep.Totals.Owed)
	require.Contains(t, rep.Verdict, "still owed 2")
	require.EqualValues(t, 13, rep.Totals.Input)
	w.opts.Settled = true
	rep = w.audit()
	require.Equal(t, []string{"gap group 0@9"}, said(rep), sentences(rep))
}

func TestSettled(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.store(ownHash)
	w.opts.Settled = true
	rep := w.audit()
	require.True(t, rep.Clean(), sentences(rep))
	require.Zero(t, rep.Totals.Waiting, "a marker at the end waits for nobody")
	require.NoError(t, w.cl.ProduceSync(w.ctx, w.inputRecord(1, 6, w.click(6)), w.inputRecord(1, 7, w.click(7))).FirstErr())
	rep = w.audit()
	require.Equal(t, []string{"gap input 1@6"}, said(rep), sentences(rep))
	require.EqualValues(t, 2, rep.Totals.Waiting)
}

// The events of the gap may already be there: the group offset was read before they came.
func TestPublishedAfterTheGroupOffsetWasRead(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	late := w.messages(0, 9, 11)
	owed(w)
	w.store(ownHash)
	at(w, "input", func() {
		w.transaction(w.producer(), kgo.TryCommit, records(late)...)
		w.commitGroup(map[int32]int64{0: 11})
	})
	rep := w.audit()
	require.True(t, rep.Clean(), sentences(rep))
	require.Zero(t, rep.Totals.Owed)
}

// What is captured and published after the snapshot is covered by the stored offset read at the end; what is only published is not.
func TestCapturedAfterTheSnapshot(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.store(ownHash)
	l := goOn(w)
	at(w, "input", func() { l.publishNow(l.feed(0, 3)); l.visible() })
	rep := w.audit()
	require.True(t, rep.Clean(), sentences(rep))
	require.EqualValues(t, 3, rep.Totals.Later)
	at(w, "input", func() {
		again := l.feed(1, 2)
		l.publishNow(again)
		l.publishNow(again)
		l.visible()
	})
	rep = w.audit()
	require.Equal(t, []string{"duplicate events 1@6", "duplicate events 1@7"}, said(rep), sentences(rep))
}

// at runs do once, when the audit reads that stage.
func at(w *world, stage string, do func()) {
	var once sync.Once
	w.opts.Progress = func(s string, _ int64) {
		if s == stage {
			once.Do(do)
		}
	}
}

// A committed event behind another producer's open transaction can't be read yet, though the group offset tells of it.
func TestHidden(t *testing.T) {
	t.Parallel()
	build := func(t *testing.T) (*world, *kgo.Client) {
		w := consistent(t)
		late := w.messages(0, 9, 11)
		owed(w)
		w.store(ownHash)
		other := w.producer()
		w.open(other, records(w.messages(0, 1, 2))...)
		w.transaction(w.producer(), kgo.TryCommit, records(late)...)
		w.commitGroup(map[int32]int64{0: 11})
		return w, other
	}
	t.Run("for longer than it waits", func(t *testing.T) {
		t.Parallel()
		w, _ := build(t)
		w.opts.UndecidedIn = 50 * time.Millisecond
		rep := w.audit()
		require.Equal(t, []string{"undecided events 0@10", "undecided events 0@9"}, said(rep), sentences(rep))
		require.False(t, rep.Clean())
	})
	t.Run("for a moment", func(t *testing.T) {
		t.Parallel()
		w, other := build(t)
		at(w, "output topics", func() { require.NoError(t, other.EndTransaction(w.ctx, kgo.TryAbort)) })
		rep := w.audit()
		require.True(t, rep.Clean(), sentences(rep))
		require.Zero(t, rep.Totals.Owed)
	})
	t.Run("and is not there after all", func(t *testing.T) {
		t.Parallel()
		w := consistent(t)
		w.unpublish(0, 1)
		w.store(ownHash)
		other := w.producer()
		w.open(other, records(w.messages(0, 2, 3))...)
		at(w, "output topics", func() { require.NoError(t, other.EndTransaction(w.ctx, kgo.TryAbort)) })
		rep := w.audit()
		require.Equal(t, []string{"missing events 0@1"}, said(rep), sentences(rep))
	})
}

// A fetch brings whole batches, and by now perhaps more than was there when the end was listed: nothing of it may be skipped.
func TestReadingOn(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	o := w.opts
	require.NoError(t, o.fill())
	k, err := newKafka(w.ctx, &o)
	require.NoError(t, err)
	defer k.close()
	for to := range int64(12) {
		var got []int64
		take := func(recs []*kgo.Record) error {
			for _, r := range recs {
				got = append(got, r.Offset)
			}
			return nil
		}
		next, err := k.read(w.ctx, o.Input, 0, 0, to, take)
		require.NoError(t, err)
		require.Equal(t, to, next)
		_, err = k.read(w.ctx, o.Input, 0, next, 12, take)
		require.NoError(t, err)
		require.Equal(t, []int64{0, 1, 2, 7, 8, 9, 10}, got, "stopped at %d", to)
	}
}

// A transaction that holds the group offset open does not stop the audit: what was stable before is still true.
func TestUnstableGroupOffset(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	late := w.messages(0, 9, 11)
	owed(w)
	w.store(ownHash)
	l := goOn(w)
	l.send(late)
	w.opts.StableWait = 20 * time.Millisecond
	rep := w.audit()
	require.True(t, rep.Clean(), sentences(rep))
	require.EqualValues(t, 2, rep.Totals.Owed)
	require.Contains(t, fmt.Sprint(rep.Notes), "a transaction holds the group offset")
	l.commit(late)
	rep = w.audit()
	require.True(t, rep.Clean(), sentences(rep))
	require.Zero(t, rep.Totals.Owed)
}

// A worker notes a group offset as soon as its commit is answered. While a transaction holds the offset, its last stable value may be older: nobody reset it.
func TestUnstableBelowTheFloor(t *testing.T) {
	t.Parallel()
	build := func(t *testing.T) (*live, []message) {
		w := consistent(t)
		late := w.messages(0, 9, 11)
		owed(w)
		w.offsets[0].floor = 11
		w.store(ownHash)
		l := goOn(w)
		l.send(late)
		w.opts.StableWait = 20 * time.Millisecond
		return l, late
	}
	t.Run("for longer than it waits", func(t *testing.T) {
		t.Parallel()
		l, _ := build(t)
		l.opts.UndecidedIn = 50 * time.Millisecond
		rep := l.audit()
		require.Equal(t, []string{"undecided group 0@9"}, said(rep), sentences(rep))
	})
	t.Run("for a moment", func(t *testing.T) {
		t.Parallel()
		l, late := build(t)
		at(l.world, "outbox", func() { l.commit(late) })
		rep := l.audit()
		require.True(t, rep.Clean(), sentences(rep))
	})
}

// What was seen of a log's beginning tells nothing any more once that is gone.
func TestTruncatedWhileRead(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.store(ownHash)
	w.cut(w.opts.Output, 0, 3)
	o := w.opts
	require.NoError(t, o.fill())
	r := newRun(o)
	var err error
	r.kafka, err = newKafka(w.ctx, &r.opts)
	require.NoError(t, err)
	defer r.kafka.close()
	op := &outputPart{seen: map[int32]seen{0: {0, 0}}, known: map[int32]seen{0: {0, 0}}}
	out := &output{topic: o.Output, sink: Events, parts: map[int32]*outputPart{0: op}}
	require.False(t, out.mayBeGone(0, 0, 1))
	require.NoError(t, r.readOutput(w.ctx, out, op, 4, func(_ context.Context, _ *output, op *outputPart, rec *kgo.Record) error {
		op.order(0, 7, true)
		return nil
	}))
	require.True(t, out.mayBeGone(0, 0, 1), "nobody has read it")
	op.rewind()
	require.True(t, out.mayBeGone(0, 0, 1))
}
