package audit

import (
	"bufio"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/exactly-pipeline/exactly/ledger"
)

// publishHeads writes the heads of all entries to a topic, as workers and commands do.
func (w *world) publishHeads(key ed25519.PrivateKey) {
	if w.opts.Heads == "" {
		w.opts.Heads = fmt.Sprintf("heads%d", serial.Add(1))
		created, err := w.adm.CreateTopics(w.ctx, 1, 1, forEver, w.opts.Heads)
		require.NoError(w.t, err)
		require.NoError(w.t, created.Error())
	}
	for i := range w.ledger {
		e := &w.ledger[i]
		w.publishHead(key, headJSON{
			V: 1, SourceID: e.SourceID, Topic: w.opts.Input, Group: w.opts.Group, Partition: e.Partition, Seq: e.Seq, Hash: fmt.Sprintf("%x", e.Hash()), To: e.To,
			At: e.CommittedAt.Format(time.RFC3339Nano), Kind: string(e.Kind),
		})
	}
}

func (w *world) publishHead(key ed25519.PrivateKey, h headJSON) {
	if key != nil {
		h.Sig = ed25519.Sign(key, encodeHead(h))
		h.Key = "k"
	}
	require.NoError(w.t, w.cl.ProduceSync(w.ctx, &kgo.Record{Topic: w.opts.Heads, Key: []byte("k"), Value: encodeHead(h)}).FirstErr())
}

// rewrite makes the whole chain anew from an entry that was changed on, as somebody with every right in Postgres could.
func (w *world) rewrite(change func()) {
	change()
	w.seal()
	_, err := w.db.PgConn().Exec(w.ctx, `SET session_replication_role = replica; DELETE FROM offset_ledger`).ReadAll()
	require.NoError(w.t, err)
	for i := range w.ledger {
		e := &w.ledger[i]
		b := &pgx.Batch{}
		queueEntry(b, e, e.Hash())
		require.NoError(w.t, w.db.SendBatch(w.ctx, b).Close())
	}
	for part, o := range w.offsets {
		w.exec(`UPDATE partition_offsets SET next_offset = $2, ledger_seq = $3, ledger_head = $4 WHERE source_partition = $1`, part, o.next, o.seq, notNull(o.head))
	}
}

func TestHeads(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.store(ownHash)
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	w.publishHeads(private)
	w.opts.PublicKey = public
	rep := w.audit()
	require.True(t, rep.Clean(), sentences(rep))
	require.EqualValues(t, 4, rep.Partitions[0].HeadSeq)

	w.rewrite(func() { w.ledger[2].Worker = "somebody else" })
	rep = w.audit()
	require.Equal(t, []string{"ledger_chain heads 0#3"}, said(rep), sentences(rep))
	require.Contains(t, sentences(rep), "one of the two was rewritten (the entries up to seq 2 are as they were)")

	w.rewrite(func() { w.ledger[2].Worker = "w" })
	require.True(t, w.audit().Clean())
	w.publishHead(nil, headJSON{V: 1, SourceID: 1, Topic: w.opts.Input, Group: w.opts.Group, Partition: 1, Seq: 2, Hash: fmt.Sprintf("%x", w.ledger[5].Hash())})
	rep = w.audit()
	require.Equal(t, []string{"ledger_chain heads 1#2"}, said(rep), sentences(rep))
	require.Contains(t, sentences(rep), "not signed with the given key")
}

// A tail that was removed everywhere in Postgres, with the stored offset and the rows, adds up by itself.
func TestRemovedTail(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	owed(w)
	w.store(ownHash)
	w.publishHeads(nil)
	w.opts.Anchor = filepath.Join(t.TempDir(), "anchor")
	require.True(t, w.audit().Clean())
	w.exec(`DELETE FROM enriched_clicks WHERE source_partition = 0 AND source_offset >= 9`)
	w.exec(`DELETE FROM outbox WHERE source_partition = 0 AND source_offset >= 9`)
	w.rewrite(func() {
		w.ledger = append(w.ledger[:3:3], w.ledger[4:]...)
		w.offsets[0].next = 9
	})
	heads := w.opts.Heads
	for _, c := range []struct{ heads, anchor, says string }{
		{heads, "", "the ledger's tail was removed (the entries up to seq 3 are as they were)"},
		{"", w.opts.Anchor, "though its head is in the anchor file, line 1"},
	} {
		w.opts.Heads, w.opts.Anchor = c.heads, c.anchor
		rep := w.audit()
		require.Equal(t, []string{"ledger_chain heads 0#4"}, said(rep), sentences(rep))
		require.Contains(t, sentences(rep), c.says)
	}
	w.opts.Heads, w.opts.Anchor = "", ""
	require.True(t, w.audit().Clean(), "nothing else could have told")
}

// An anchor file is only added to, and only while the ledger is sound.
func TestAnchor(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.store(ownHash)
	w.opts.Anchor = filepath.Join(t.TempDir(), "anchor")
	lines := func() int {
		all, err := readAnchor(w.opts.Anchor)
		require.NoError(t, err)
		return len(all)
	}
	require.True(t, w.audit().Clean())
	require.Equal(t, 2, lines())
	rep := w.audit()
	require.True(t, rep.Clean())
	require.Equal(t, 4, lines())
	require.Contains(t, fmt.Sprint(rep.Notes), "2 heads checked")
	w.rewrite(func() { w.ledger[5].Records, w.ledger[5].Worker = 6, "x" })
	rep = w.audit()
	require.Equal(t, []string{"ledger_chain heads 1#2"}, said(rep), sentences(rep))
	require.Equal(t, 4, lines())
	require.NoError(t, os.WriteFile(w.opts.Anchor, []byte("{}\nx\n"), 0o600))
	_, err := Run(w.ctx, w.opts)
	require.ErrorContains(t, err, "line 2")
}

// A heal puts other entries in the place of those that were lost, and its head says so.
func TestReplacedHeads(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.store(ownHash)
	w.publishHeads(nil)
	old := w.ledger[3].Hash()
	w.rewrite(func() { w.ledger[3].Kind, w.ledger[3].Why = ledger.Heal, "restored from a backup" })
	rep := w.audit()
	require.Equal(t, []string{"ledger_chain heads 0#4"}, said(rep), sentences(rep))
	e := &w.ledger[3]
	w.publishHead(nil, headJSON{V: 1, SourceID: 1, Topic: w.opts.Input, Group: w.opts.Group, Partition: 0, Seq: e.Seq, Hash: fmt.Sprintf("%x", e.Hash()), To: e.To, Kind: "heal",
		Replaces: &replacedHead{4, fmt.Sprintf("%x", old), 0}})
	rep = w.audit()
	require.True(t, rep.Clean(), sentences(rep))
}

// A heal's head excuses what an anchor file noted before it, too, and nothing that was noted after.
func TestAnchorAfterHeal(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.store(ownHash)
	w.publishHeads(nil)
	w.opts.Anchor = filepath.Join(t.TempDir(), "anchor")
	require.True(t, w.audit().Clean())
	past, err := os.ReadFile(w.opts.Anchor)
	require.NoError(t, err)
	past = regexp.MustCompile(`"written_at":"[^"]*"`).ReplaceAll(past, []byte(`"written_at":"2026-01-03T00:00:00Z"`))
	require.NoError(t, os.WriteFile(w.opts.Anchor, past, 0o600))
	old := w.ledger[3].Hash()
	w.rewrite(func() { w.ledger[3].Kind, w.ledger[3].Why = ledger.Heal, "restored from a backup" })
	e := &w.ledger[3]
	w.publishHead(nil, headJSON{V: 1, SourceID: 1, Topic: w.opts.Input, Group: w.opts.Group, Partition: 0, Seq: e.Seq, Hash: fmt.Sprintf("%x", e.Hash()), To: e.To, At: "2026-01-03T00:00:01.5Z", Kind: "heal",
		Replaces: &replacedHead{Seq: 4, Hash: fmt.Sprintf("%x", old)}})
	rep := w.audit()
	require.True(t, rep.Clean(), sentences(rep))
	lines, err := readAnchor(w.opts.Anchor)
	require.NoError(t, err)
	require.Len(t, lines, 4, "the heads of now are added")
	b, err := json.Marshal(anchored{V: 1, Group: w.opts.Group, Topic: w.opts.Input, SourceID: 1, Partition: 0, Seq: 4, Hash: "00", To: 11, WrittenAt: "2026-01-03T00:00:02Z"})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(w.opts.Anchor, append(past, b...), 0o600))
	rep = w.audit()
	require.Equal(t, []string{"ledger_chain heads 0#4"}, said(rep), sentences(rep))
}

// A line that can't be read to its end is no end of the file.
func TestAnchorLineTooLong(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "anchor")
	require.NoError(t, os.WriteFile(path, []byte("{\"v\":1}\n{\"topic\":\""+strings.Repeat("x", bufio.MaxScanTokenSize)+"\"}\n"), 0o600))
	_, err := readAnchor(path)
	require.ErrorContains(t, err, "line 2")
}

// What is archived while the audit runs was there in its snapshot.
func TestArchivedBesideTheAudit(t *testing.T) {
	t.Parallel()
	w := consistent(t)
	w.store(ownHash)
	w.publishHeads(nil)
	at(w, "ledger heads", func() {
		_, err := w.db.PgConn().Exec(w.ctx, `SET session_replication_role = replica; DELETE FROM offset_ledger WHERE source_partition = 0 AND seq <= 3`).ReadAll()
		require.NoError(t, err)
	})
	rep := w.audit()
	require.True(t, rep.Clean(), sentences(rep))
}
