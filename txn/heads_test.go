package txn

import (
	"crypto/ed25519"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/exactly-pipeline/exactly/engine"
	"github.com/exactly-pipeline/exactly/ledger"
	"github.com/exactly-pipeline/exactly/outbox"
)

func headed(partition int32, seq int64) engine.Item {
	return engine.Item{
		Partition: partition, To: seq * 10, LedgerSeq: seq,
		Head: &ledger.Head{V: 1, Topic: "in", Group: "g", Partition: partition, Seq: seq, Hash: ledger.Hex{byte(seq)}, To: seq * 10, At: "2026-01-01T00:00:00.000000Z", Kind: ledger.Capture},
	}
}

// A head goes along in the transaction that publishes its capture: the newest of each partition, one a second, again if it was aborted.
func TestHeadsGoAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		public, private, err := ed25519.GenerateKey(nil)
		require.NoError(t, err)
		s := &scripted{answers: map[string][]error{}}
		p := publisher(s)
		p.HeadsTopic, p.Signer = "heads", ledger.NewSigner(private)
		publish := func(want engine.Outcome, items ...engine.Item) (seqs []int64) {
			s.sent, s.calls = nil, nil
			got, _ := p.Publish(items, "stamp", never)
			require.Equal(t, want, got)
			for i := range s.sent {
				m := &s.sent[i]
				if m.Topic != "heads" {
					continue
				}
				require.Zero(t, m.Partition)
				h, err := ledger.ParseHead(m.Value)
				require.NoError(t, err)
				require.Equal(t, string(h.RecordKey()), string(m.Key))
				require.NoError(t, h.Signature([]ed25519.PublicKey{public}))
				seqs = append(seqs, int64(h.Partition)*100+h.Seq)
			}
			return seqs
		}
		s.answers["commit"] = []error{classed(Abortable)}
		require.Equal(t, []int64{302, 401}, publish(engine.Aborted, headed(3, 1), headed(4, 1), headed(3, 2)))
		require.Equal(t, []int64{302, 401}, publish(engine.Committed, headed(3, 1), headed(4, 1), headed(3, 2)), "what was aborted was not published")
		require.Equal(t, []string{"begin", "produce", "produce", "offsets in", "commit"}, s.calls)
		time.Sleep(999 * time.Millisecond)
		require.Equal(t, []int64{501}, publish(engine.Committed, headed(3, 3), headed(5, 1)))
		time.Sleep(time.Millisecond)
		require.Equal(t, []int64{304}, publish(engine.Committed, headed(3, 4), headed(5, 2)))
		time.Sleep(time.Second)
		drain := headed(3, 5)
		drain.Drain = true
		require.Equal(t, []int64{305}, publish(engine.Committed, drain), "a drain publishes it likewise")
		time.Sleep(time.Second)
		none := headed(3, 6)
		none.Head = nil
		require.Empty(t, publish(engine.Committed, none))
		s.answers["produce"] = []error{&Error{Abortable, errors.New("no such topic")}}
		require.Equal(t, []int64{307}, publish(engine.Aborted, headed(3, 7)), "what Kafka does not take, it does not take without its head either")
		p.HeadsTopic = ""
		require.Empty(t, publish(engine.Committed, headed(3, 8)))
	})
}

// What a capture, and a claim, say of the newest entry is what the ledger has.
func TestHeadsOfCaptures(t *testing.T) {
	d := newDB(t)
	s := d.store("a")
	d.started(s, 1)
	newest := func() (hash []byte) {
		require.NoError(t, d.conn.QueryRow(d.ctx, `SELECT hash FROM offset_ledger ORDER BY seq DESC LIMIT 1`).Scan(&hash))
		return hash
	}
	c := d.claim(s, 0)
	require.Equal(t, ledger.Start, c.Head.Kind)
	require.Equal(t, newest(), []byte(c.Head.Hash))
	b := d.batch(0, c.Epoch, 0, 3, 0)
	d.capture(s, b)
	require.Equal(t, newest(), []byte(b.Head.Hash))
	require.Equal(t, []int64{2, 3}, []int64{b.Head.Seq, b.Head.To})
	require.Equal(t, []string{"in", "g", d.src.TopicIDs["in"]}, []string{b.Head.Topic, b.Head.Group, b.Head.TopicID})
	c = d.claim(s, 0)
	require.Equal(t, b.Head, c.Head)
	refused := d.batch(0, c.Epoch-1, 3, 5, 0)
	d.capture(s, refused)
	require.Nil(t, refused.Head)
	var m outbox.Message // a head is no message of a capture
	require.Error(t, d.conn.QueryRow(d.ctx, `SELECT topic FROM outbox WHERE topic LIKE '%heads%'`).Scan(&m.Topic))
}
